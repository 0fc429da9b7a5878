#include "msl_runtime.h"
#include <sys/mman.h>
#include <signal.h>
#include <setjmp.h>
#include <unistd.h>
#include <dlfcn.h>
#include <cstdio>
#include <cstdarg>
#include <cstring>
#include <cstdlib>
#include <vector>
#include <string>
#include <mutex>
#include <algorithm>

// ---- context switch (x86-64 SysV): callee-saved registers and the stack pointer ----
#if defined(__x86_64__)
extern "C" void msl_switch(void** save, void* to);
asm(R"(
.text
.globl msl_switch
.type msl_switch,@function
msl_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size msl_switch,.-msl_switch
.section .note.GNU-stack,"",@progbits
.text
)");
#else
#error "add a switch for this processor (or ucontext)"
#endif
#ifndef MSL_CHECKED
#define MSL_CHECKED 0
#endif
namespace mslrt {
enum St : uint8_t { RUN, AT_SIMD, AT_BAR, DONE };
constexpr size_t STACK = 64 << 10, GUARD = 4096, MAXT = 1024;
struct Group;
struct Lane {
  void* sp;
  St st;
  uint8_t l;
  uint16_t tid;
  Group* g;
  Site site;
  Ctx c;
};
struct Group {
  uint32_t full, alive, arrived, runnable;
  uint32_t ph;
  uint32_t mask[2];
  uint32_t sg_epoch[2];
  Lane* lanes;
  uint8_t ord[32], pos[32];
  void (*red)(Rv&);
  bool sgbar;
  alignas(64) unsigned char slots[2][32][64];
  alignas(64) unsigned char result[2][64];
};
struct Buf {
  unsigned char* base;
  size_t len;
  uint32_t idx;
  bool wr;
  uint64_t* shadow;
};
struct Tgv {
  unsigned char* p;
  size_t n;
  const char* name;
  uint32_t gen;
  uint64_t* shadow;
  size_t cap;
};
static Lane* cur;
static void* main_sp;
static unsigned char* stacks;
static Lane lanes[MAXT];
static Group groups[32];
static uint32_t nl, ng, nbar;
static void (*entry)(const Ctx&);
static uint32_t tg_lin, tg_ep[2];  // [0] device, [1] threadgroup
static uint32_t gen;
static std::vector<Tgv> tgvs;
static size_t tgbytes;
static Buf bufs[31];
static uint32_t nb;
static void* args_[31];
static unsigned char* tga[8];
static size_t tgan[8];
static const msl_launch_desc* D;
static bool failed;
static char errbuf[4096];
static uint64_t sw, rvn, chk;
static std::mutex mu;
static const KernelInfo* ki;
struct Unit {
  const KernelInfo* k;
  size_t n;
  const FcInfo* f;
  const Range* r;
};
static std::vector<Unit>& units() {
  static std::vector<Unit> u;
  return u;
}
static const Unit* curu;
static unsigned char* arena;
constexpr size_t ARENA = 1ull << 36;
static size_t arena_top;
void register_unit(const KernelInfo* k, size_t n, const FcInfo* f, const Range* r) {
  for (auto& u : units())
    if (u.k == k) return;
  units().push_back({k, n, f, r});
}

static void err(const char* f, ...) {
  if (failed) return;
  failed = true;
  va_list a;
  va_start(a, f);
  vsnprintf(errbuf, sizeof errbuf, f, a);
  va_end(a);
}
static const char* base(const char* f) {
  const char* s = f ? strrchr(f, '/') : nullptr;
  return s ? s + 1 : f ? f : "?";
}
static std::string where(Lane* L) {
  char b[256];
  snprintf(b, sizeof b, "threadgroup (%u,%u,%u) thread %u (simdgroup %u lane %u)", L->c.threadgroup_position_in_grid[0],
           L->c.threadgroup_position_in_grid[1], L->c.threadgroup_position_in_grid[2], L->tid,
           L->c.simdgroup_index_in_threadgroup, L->l);
  return b;
}
static inline void go(Lane* to) {
  Lane* me = cur;
  if (to == me) return;
  cur = to;
  sw++;
  msl_switch(&me->sp, to->sp);
}
static inline void go_main() {
  Lane* me = cur;
  sw++;
  msl_switch(&me->sp, main_sp);
}
static inline void next_or_main(Group* g) {
  uint32_t r = g->runnable;
  if (!r) {
    go_main();
    return;
  }
  uint32_t p = g->pos[cur->l];
  uint32_t hi = p == 31 ? 0 : r & (~0u << (p + 1));
  uint32_t q = __builtin_ctz(hi ? hi : r);
  go(&g->lanes[g->ord[q]]);
}
static void lane_main() {
  entry(cur->c);
  Group* g = cur->g;
  cur->st = DONE;
  g->alive &= ~(1u << cur->l);
  g->runnable &= ~(1u << g->pos[cur->l]);
  next_or_main(g);
  __builtin_trap();
}
void fail_lane(Site s, const char* msg) {
  err("%s at %s:%d: %s [%s]", s.what, base(s.file), s.line, msg, where(cur).c_str());
  for (;;) go_main();
}
uint32_t lane() { return cur->l; }
uint32_t active() { return cur->g->alive; }
void* arg(uint32_t i) { return args_[i]; }
void* tgarg(uint32_t i) { return tga[i]; }

static void complete(Group* g) {
  uint32_t ph = g->ph & 1;
  Rv r{g->slots[ph], g->result[ph], g->arrived, {}};
  if (g->red) g->red(r);
  g->mask[ph] = g->arrived;
  g->ph++;
  for (int i = 0; i < 32; i++)
    if (g->arrived >> i & 1) {
      g->lanes[i].st = RUN;
      g->runnable |= 1u << g->pos[i];
    }
  g->arrived = 0;
}
static bool same(const Site& a, const Site& b) {
  return a.line == b.line && a.what == b.what && (a.file == b.file || !strcmp(a.file, b.file));
}
Rv rendezvous(const void* v, size_t n, Site s, void (*red)(Rv&)) {
  Lane* L = cur;
  Group* g = L->g;
  uint32_t ph = g->ph & 1;
  if (g->arrived) {
    Lane* o = &g->lanes[__builtin_ctz(g->arrived)];
    if (!same(o->site, s)) {
      err("divergence: lane %u reached %s (%s:%d) while lane %u of the same simdgroup waits at %s (%s:%d) [%s]", L->l,
          s.what, base(s.file), s.line, o->l, o->site.what, base(o->site.file), o->site.line, where(L).c_str());
      for (;;) go_main();
    }
  }
  memcpy(g->slots[ph][L->l], v, n);
  L->site = s;
  g->red = red;
  g->arrived |= 1u << L->l;
  L->st = AT_SIMD;
  g->runnable &= ~(1u << g->pos[L->l]);
  if (g->arrived == g->full) {
    rvn++;
    complete(g);
  } else
    next_or_main(g);
  return {g->slots[ph], g->result[ph], g->mask[ph], s};
}
void converge(Site s) {
  char z = 0;
  rendezvous(&z, 1, s, nullptr);
}
void sg_barrier(uint32_t f, Site s) {
  converge(s); /* the epoch moves once per lane arrival group */
  Group* g = cur->g;
  uint32_t e = g->ph;
  if (f & 1) g->sg_epoch[0] = e;
  if (f & 2) g->sg_epoch[1] = e;
}
void barrier(uint32_t f, Site s) {
  Lane* L = cur;
  Group* g = L->g;
  L->site = s;
  L->st = AT_BAR;
  g->runnable &= ~(1u << g->pos[L->l]);
  if (nbar) { /* all must be at the same barrier */
    for (uint32_t i = 0; i < nl; i++)
      if (lanes[i].st == AT_BAR && &lanes[i] != L) {
        if (!same(lanes[i].site, s)) {
          err("divergent barrier: %s at %s:%d, another thread (%u) waits at %s:%d", where(L).c_str(), base(s.file),
              s.line, i, base(lanes[i].site.file), lanes[i].site.line);
          for (;;) go_main();
        }
        break;
      }
  }
  if (++nbar == nl) {
    nbar = 0;
    if (f & 1) tg_ep[0]++;
    if (f & 2) tg_ep[1]++;
    for (uint32_t i = 0; i < nl; i++) lanes[i].st = RUN;
    for (uint32_t i = 0; i < ng; i++)
      for (int k = 0; k < 32; k++)
        if (groups[i].full >> k & 1) groups[i].runnable |= 1u << groups[i].pos[k];
    return;
  }
  next_or_main(g);
}
// ---- checked mode: shadow state, fed by the calls -fsanitize=thread plants at each access ----
// key: tg(20) tgEpoch(14) sgEpoch(18) tid(10) multi(1) valid(1)
static inline uint64_t mkkey(int sp) {
  return (uint64_t)(tg_lin & 0xfffff) << 44 | (uint64_t)(tg_ep[sp] & 0x3fff) << 30 |
         (uint64_t)(cur->g->sg_epoch[sp] & 0x3ffff) << 12 | (uint64_t)cur->tid << 2 | 1;
}
static inline bool conflict(uint64_t p, uint64_t k, int sp) {
  if (!(p & 1)) return false;
  if (p >> 44 != k >> 44) return sp == 0;
  if ((p ^ k) >> 30) return false;
  uint32_t pt = p >> 2 & 1023, kt = k >> 2 & 1023;
  if (pt == kt && !(p & 2)) return false;
  if (pt / 32 == kt / 32 && ((p ^ k) >> 12 & 0x3ffff)) return false;
  return true;
}
static std::string symb(void* pc) {  // first inlined frame that lies in a .metal file
  Dl_info di;
  if (!dladdr(pc, &di) || !di.dli_fname) return "";
  char c[512];
  snprintf(c, sizeof c, "addr2line -Cspie '%s' 0x%zx 2>/dev/null", di.dli_fname, (size_t)pc - 1 - (size_t)di.dli_fbase);
  std::string s;
  if (FILE* p = popen(c, "r")) {
    char b[256];
    while (fgets(b, sizeof b, p)) {
      if (s.empty() || (s.find(".metal:") == std::string::npos && strstr(b, ".metal:"))) {
        char* q = strstr(b, ".metal:") ? strrchr(b, ' ') : b;
        s = q && *q == ' ' ? q + 1 : b;
      }
    }
    pclose(p);
    while (!s.empty() && (s.back() == '\n' || s.back() == ')')) s.pop_back();
  }
  return s;
}
[[noreturn]] static void fail_pc(void* pc, const char* f, ...) {
  char b[1024];
  va_list a;
  va_start(a, f);
  vsnprintf(b, sizeof b, f, a);
  va_end(a);
  if (!failed) {
    std::string s = symb(pc);
    char l[160] = "";
    if (cur->site.what)
      snprintf(l, sizeof l, ", after %s at %s:%d", cur->site.what, base(cur->site.file), cur->site.line);
    err("%s at %s%s [%s]", b, s.c_str(), l, where(cur).c_str());
  }
  for (;;) go_main();
}
struct Who {
  uint32_t tid, tg;
};
static Who who(uint64_t k) { return {(uint32_t)(k >> 2 & 1023), (uint32_t)(k >> 44)}; }
static inline void shadow(uint64_t* s, size_t off, size_t n, bool wr, bool atomic, int sp, const char* nm, uint32_t idx,
                          void* pc) {
  uint64_t k = mkkey(sp);
  for (size_t i = off; i < off + n; i++) {
    uint64_t &w = s[2 * i], &r = s[2 * i + 1];
    if (sp == 1 && !wr && (!(w & 1) || (w >> 44) != (k >> 44)))
      fail_pc(pc, "read of uninitialised threadgroup memory '%s' byte %zu", nm, i);
    if (conflict(w & ~2ull, k, sp) && !(atomic && (w & 2)))
      fail_pc(pc, "race on %s%s%u byte %zu: %s after a write by thread %u of threadgroup %u with no barrier between",
              nm, sp ? " #" : " ", idx, i, wr ? "write" : "read", who(w).tid, who(w).tg);
    if (wr) {
      if (conflict(r, k, sp) && !atomic)
        fail_pc(pc, "race on %s %u byte %zu: write after a read by thread %u of threadgroup %u with no barrier between",
                nm, idx, i, who(r).tid, who(r).tg);
      w = k | (atomic ? 2 : 0);
    } else {
      if ((r & 1) && ((r ^ k) >> 12) == 0 && ((r ^ k) >> 2 & 1023))
        r = k | 2;
      else if (!((r & 2) && ((r ^ k) >> 12) == 0))
        r = k;
    }
  }
}
static bool in_module(const void* p, size_t n) {
  for (const Range* r = curu->r; r->p; r++)
    if (p >= r->p && (const char*)p + n <= (const char*)r->p + r->n) return true;
  for (const FcInfo* f = curu->f; f->name; f++)
    if (p >= f->p && (const char*)p + n <= (const char*)f->p + f->size) return true;
  return false;
}
static void access(void* p_, size_t n, bool wr, void* pc, bool atomic = false) {
  unsigned char* p = (unsigned char*)p_;
  if (!cur) return;
  chk++;
  if ((size_t)(p - stacks) < MAXT * (STACK + GUARD) || (size_t)(p - (unsigned char*)lanes) < sizeof lanes) return;
  if ((size_t)(p - arena) < ARENA) {
    static uint32_t last;
    for (uint32_t t = 0; t < nb; t++) {
      Buf& b = bufs[(last + t) % nb];
      size_t o = p - b.base;
      if (o < b.len) {
        if (o + n > b.len) break;
        last = (last + t) % nb;
        if (wr && !b.wr) fail_pc(pc, "write to read-only buffer(%u) offset %zu", b.idx, o);
        shadow(b.shadow, o, n, wr, atomic, 0, "buffer", b.idx, pc);
        return;
      }
    }
    for (uint32_t t = 0; t < nb; t++) {
      Buf& b = bufs[t];
      long o = p - b.base;
      if (o >= -65536 && o < (long)b.len + 65536)
        fail_pc(pc, "out-of-bounds %s of %zu bytes: buffer(%u) offset %ld, length %zu", wr ? "write" : "read", n, b.idx,
                o, b.len);
    }
    fail_pc(pc, "out-of-bounds %s of %zu bytes: no buffer near", wr ? "write" : "read", n);
  }
  for (auto& t : tgvs)
    if (t.gen == gen) {
      size_t o = p - t.p;
      if (o < t.n && o + n <= t.n) {
        shadow(t.shadow, o, n, wr, atomic, 1, t.name, 0, pc);
        return;
      }
    }
  if (!wr && in_module(p, n)) return;
  for (auto& t : tgvs)
    if (t.gen == gen) {
      long o = p - t.p;
      if (o >= -4096 && o < (long)t.n + 4096)
        fail_pc(pc, "out-of-bounds %s of %zu bytes: threadgroup '%s' offset %ld, length %zu", wr ? "write" : "read", n,
                t.name, o, t.n);
    }
  Dl_info di;
  if (!wr && dladdr(p, &di) && di.dli_fbase) return;  // vtable/rodata constants of this module
  fail_pc(pc, "wild %s of %zu bytes at %p", wr ? "write" : "read", n, (void*)p);
}
void check_atomic(void* p, size_t n) {
  if (MSL_CHECKED) access(p, n, true, __builtin_return_address(0), true);
}
void tg_touch(void* p, size_t n, const char* name) {
  for (auto& t : tgvs)
    if (t.p == p) {
      if (t.gen == gen) return;
      t.gen = gen;
      tgbytes += n;
      memset(p, 0xFF, n);
      goto lim;
    }
  {
    Tgv t{(unsigned char*)p, n, name, gen, nullptr, n};
    if (MSL_CHECKED) t.shadow = (uint64_t*)calloc(n * 2, 8);
    tgvs.push_back(t);
    tgbytes += n;
    memset(p, 0xFF, n);
  }
lim:
  if (tgbytes > 32768) fail_lane({"threadgroup memory", name, 0}, "more than 32768 bytes of threadgroup memory in use");
}
static sigjmp_buf jb;
static volatile bool injob;
static struct sigaction old_segv;
static void on_segv(int sg, siginfo_t* si, void* uc) {
  unsigned char* p = (unsigned char*)si->si_addr;
  if (injob && cur) {
    if ((size_t)(p - arena) < ARENA) {
      for (uint32_t t = 0; t < nb; t++) {
        long o = p - bufs[t].base;
        if (o >= -(1 << 20) && o < (long)bufs[t].len + (1 << 20)) {
          err("out-of-bounds or read-only access: buffer(%u) offset %ld, length %zu, %s [%s]", bufs[t].idx, o,
              bufs[t].len, bufs[t].wr ? "writable" : "read-only", where(cur).c_str());
          break;
        }
      }
      err("wild access in the buffer arena [%s]", where(cur).c_str());
      siglongjmp(jb, 1);
    }
    if ((size_t)(p - stacks) < MAXT * (STACK + GUARD))
      err("stack overflow [%s]", where(cur).c_str());
    else
      err("segmentation fault at %p [%s]", (void*)p, where(cur).c_str());
    siglongjmp(jb, 1);
  }
  if (old_segv.sa_flags & SA_SIGINFO)
    old_segv.sa_sigaction(sg, si, uc);
  else {
    signal(sg, SIG_DFL);
    raise(sg);
  }
}
static void describe_stuck() {
  for (uint32_t i = 0; i < ng; i++) {
    Group& g = groups[i];
    if (g.arrived) {
      std::string miss;
      Lane* o = &g.lanes[__builtin_ctz(g.arrived)];
      uint32_t m = g.full & ~g.arrived;
      Lane* x = &g.lanes[__builtin_ctz(m)];
      err("divergence: simdgroup %u: %d lanes wait at %s (%s:%d) but lane %u %s%s%s:%d (missing mask %08x) "
          "[threadgroup (%u,%u,%u)]",
          i, __builtin_popcount(g.arrived), o->site.what, base(o->site.file), o->site.line, x->l,
          x->st == DONE ? "has returned; last seen " : "waits at ", x->site.what ? x->site.what : "",
          x->site.file ? (std::string(" ") + base(x->site.file)).c_str() : "", x->site.line, m,
          x->c.threadgroup_position_in_grid[0], x->c.threadgroup_position_in_grid[1],
          x->c.threadgroup_position_in_grid[2]);
      return;
    }
  }
  for (uint32_t i = 0; i < nl; i++)
    if (lanes[i].st == AT_BAR) {
      uint32_t d = 0;
      for (uint32_t k = 0; k < nl; k++) d += lanes[k].st == DONE;
      err("divergent barrier: %u threads wait at threadgroup_barrier (%s:%d), %u threads have returned [%s]", nbar,
          base(lanes[i].site.file), lanes[i].site.line, d, where(&lanes[i]).c_str());
      return;
    }
}
static int run(const msl_launch_desc* d) {
  const KernelInfo* k = nullptr;
  for (auto& u : units())
    for (size_t i = 0; i < u.n; i++)
      if (!strcmp(u.k[i].name, d->kernel)) {
        k = &u.k[i];
        curu = &u;
      }
  if (!k) {
    err("no kernel '%s'", d->kernel);
    return 1;
  }
  ki = k;
  entry = k->entry;
  nl = d->tg[0] * d->tg[1] * d->tg[2];
  if (!nl || nl > MAXT) {
    err("threadgroup of %u threads (1..1024)", nl);
    return 1;
  }
  ng = (nl + 31) / 32;
  uint32_t have = 0;
  for (uint32_t i = 0; i < d->nbufs; i++) {
    if (d->bufs[i].index > 30) {
      err("buffer index > 30");
      return 1;
    }
    const uint32_t bit = 1u << d->bufs[i].index;
    if (have & bit || !(k->buf_mask & bit)) {
      err("kernel %s: buffer(%u) %s", d->kernel, d->bufs[i].index, have & bit ? "is bound twice" : "is not a parameter");
      return 1;
    }
    if (!!d->bufs[i].writable != !!(k->write_mask & bit)) {
      err("kernel %s: buffer(%u) is marked as %s", d->kernel, d->bufs[i].index, d->bufs[i].writable ? "written, but it is constant" : "read, but the kernel may write it");
      return 1;
    }
    have |= bit;
  }
  if (k->buf_mask & ~have) {
    err("kernel %s: buffer(%d) is not bound", d->kernel, __builtin_ctz(k->buf_mask & ~have));
    return 1;
  }
  for (const FcInfo* f = curu->f; f->name; f++) {
    *f->defined = false;
    memset(f->p, 0, f->size);
    for (uint32_t i = 0; i < d->nfcs; i++)
      if (d->fcs[i].index == f->index) {
        if (d->fcs[i].size != f->size) {
          err("function constant %u '%s': size %u given, %zu declared", f->index, f->name, d->fcs[i].size, f->size);
          return 1;
        }
        memcpy(f->p, &d->fcs[i].bits, f->size);
        *f->defined = true;
      }
  }
  if (!arena) {
    arena = (unsigned char*)mmap(nullptr, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    stacks = (unsigned char*)mmap(nullptr, MAXT * (STACK + GUARD), PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (size_t i = 0; i < MAXT; i++) mprotect(stacks + i * (STACK + GUARD), GUARD, PROT_NONE);
  }
  arena_top = 1 << 20;
  nb = d->nbufs;
  memset(args_, 0, sizeof args_);
  for (uint32_t i = 0; i < nb; i++) {
    const msl_buf& b = d->bufs[i];
    size_t pg = (b.len + 4095) & ~4095ull;
    if (!pg) pg = 4096;
    unsigned char* m = arena + arena_top;
    mprotect(m, pg, PROT_READ | PROT_WRITE);
    unsigned char* st = m + ((pg - b.len) & ~15ull);
    memcpy(st, b.ptr, b.len);
    memset(st + b.len, 0xFF, m + pg - st - b.len);
    bool wr = b.writable && (k->write_mask >> b.index & 1);
    if (!wr) mprotect(m, pg, PROT_READ);
    bufs[i] = {st, b.len, b.index, wr, nullptr};
    if (MSL_CHECKED)
      bufs[i].shadow = (uint64_t*)mmap(nullptr, b.len * 16 + 16, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    args_[b.index] = st;
    arena_top += pg + (1 << 20);
  }
  for (uint32_t i = 0; i < 8; i++) {
    free(tga[i]);
    tga[i] = nullptr;
  }
  for (uint32_t i = 0; i < d->ntgmem && i < 8; i++)
    if (d->tgmem[i]) {
      tga[i] = (unsigned char*)aligned_alloc(16, (d->tgmem[i] + 15) & ~15u);
      tgan[i] = d->tgmem[i];
    }
  for (auto& t : tgvs) free(t.shadow);
  tgvs.clear();
  uint64_t maxtg = 0;
  static const char* dn[8] = {"[[threadgroup(0)]]", "[[threadgroup(1)]]", "[[threadgroup(2)]]", "[[threadgroup(3)]]",
                              "[[threadgroup(4)]]", "[[threadgroup(5)]]", "[[threadgroup(6)]]", "[[threadgroup(7)]]"};
  uint32_t seed = d->order;
  auto rnd = [&] {
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
  };
  tg_lin = 0;
  injob = true;
  if (sigsetjmp(jb, 1) == 0)
    for (uint32_t gz = 0; gz < d->grid[2] && !failed; gz++)
      for (uint32_t gy = 0; gy < d->grid[1] && !failed; gy++)
        for (uint32_t gx = 0; gx < d->grid[0] && !failed; gx++, tg_lin++) {
          gen++;
          tgbytes = 0;
          nbar = 0;
          tg_ep[0] = tg_ep[1] = 0;
          uint32_t done_groups = 0;
          for (uint32_t i = 0; i < ng; i++) {
            Group& g = groups[i];
            uint32_t n = std::min(32u, nl - i * 32);
            g.full = g.alive = n == 32 ? ~0u : (1u << n) - 1;
            g.arrived = 0;
            g.ph = 0;
            g.sg_epoch[0] = g.sg_epoch[1] = 0;
            g.lanes = &lanes[i * 32];
            for (uint32_t q = 0; q < n; q++) g.ord[q] = d->order == 1 ? n - 1 - q : q;
            if (d->order > 1)
              for (uint32_t q = n; q-- > 1;) std::swap(g.ord[q], g.ord[rnd() % (q + 1)]);
            for (uint32_t q = 0; q < n; q++) g.pos[g.ord[q]] = q;
            g.runnable = g.full;
          }
          for (uint32_t i = 0; i < nl; i++) {
            Lane& L = lanes[i];
            L.st = RUN;
            L.tid = i;
            L.l = i & 31;
            L.g = &groups[i / 32];
            L.site = {};
            Ctx& c = L.c;
            uint32_t tp[3] = {i % d->tg[0], i / d->tg[0] % d->tg[1], i / (d->tg[0] * d->tg[1])}, gp[3] = {gx, gy, gz};
            for (int a = 0; a < 3; a++) {
              c.thread_position_in_threadgroup[a] = tp[a];
              c.threadgroup_position_in_grid[a] = gp[a];
              c.threads_per_threadgroup[a] = d->tg[a];
              c.threadgroups_per_grid[a] = d->grid[a];
              c.threads_per_grid[a] = d->grid[a] * d->tg[a];
              c.thread_position_in_grid[a] = gp[a] * d->tg[a] + tp[a];
            }
            c.simdgroup_index_in_threadgroup = i / 32;
            c.thread_index_in_simdgroup = i & 31;
            c.thread_index_in_threadgroup = i;
            c.simdgroups_per_threadgroup = ng;
            c.threads_per_simdgroup = 32;
            void** s = (void**)(stacks + (i + 1) * (STACK + GUARD) - 64);
            *--s = nullptr;
            *--s = (void*)lane_main;
            for (int q = 0; q < 6; q++) *--s = nullptr;
            L.sp = s;
          }
          cur = &lanes[0];
          for (uint32_t i = 0; i < 8; i++)
            if (tga[i]) tg_touch(tga[i], tgan[i], dn[i]);
          for (;;) {  // scheduler
            if (failed) break;
            bool any = false;
            done_groups = 0;
            for (uint32_t ii = 0; ii < ng && !failed; ii++) {
              uint32_t i = d->order == 1 ? ng - 1 - ii : ii;
              Group& g = groups[i];
              if (!g.alive) done_groups++;
              if (g.runnable) {
                any = true;
                Lane* L = &g.lanes[g.ord[__builtin_ctz(g.runnable)]];
                cur = L;
                sw++;
                msl_switch(&main_sp, L->sp);
              }
              if (!failed && !g.runnable && g.arrived && g.arrived == g.alive && (d->flags & 1)) {
                any = true;
                rvn++;
                complete(&g);
              }
            }
            if (!any) {
              if (done_groups != ng) describe_stuck();
              break;
            }
          }
          maxtg = std::max<uint64_t>(maxtg, tgbytes);
          cur = nullptr;
        }
  cur = nullptr;
  injob = false;
  for (uint32_t i = 0; i < nb; i++) {
    const msl_buf& b = d->bufs[i];
    if (bufs[i].wr) memcpy(b.ptr, bufs[i].base, b.len);
    unsigned char* m = (unsigned char*)((size_t)bufs[i].base & ~4095ull);
    size_t pg = ((b.len + 4095) & ~4095ull) + 4096;
    madvise(m, pg - 4096, MADV_DONTNEED);
    mprotect(m, pg - 4096 ? pg - 4096 : 4096, PROT_NONE);
    if (bufs[i].shadow) munmap(bufs[i].shadow, b.len * 16 + 16);
  }
  if (d->stats) {
    d->stats[0] = sw;
    d->stats[1] = rvn;
    d->stats[2] = chk;
    d->stats[3] = maxtg;
  }
  return failed;
}
}  // namespace mslrt
using namespace mslrt;
extern "C" __attribute__((visibility("default"))) int msl_is_checked() { return MSL_CHECKED; }
extern "C" __attribute__((visibility("default"))) int msl_launch(const msl_launch_desc* d) {
  std::lock_guard<std::mutex> g(mu);
  failed = false;
  errbuf[0] = 0;
  D = d;
  sw = rvn = chk = 0;
  static bool inst;
  if (!inst) {
    struct sigaction a = {};
    a.sa_sigaction = on_segv;
    a.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &a, &old_segv);
    inst = true;
  }
  int r = run(d);
  if (d->err && d->errlen) snprintf(d->err, d->errlen, "%s", errbuf);
  return r;
}
#define RA __builtin_return_address(0)
#if MSL_CHECKED
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define TS(n)                                                         \
  void __tsan_read##n(void* p) { access(p, n, false, RA); }           \
  void __tsan_write##n(void* p) { access(p, n, true, RA); }           \
  void __tsan_unaligned_read##n(void* p) { access(p, n, false, RA); } \
  void __tsan_unaligned_write##n(void* p) { access(p, n, true, RA); }
TS(1) TS(2) TS(4) TS(8) TS(16) void __tsan_read_range(void* p, size_t n) { access(p, n, false, RA); }
void __tsan_write_range(void* p, size_t n) { access(p, n, true, RA); }
void* __tsan_memcpy(void* d, const void* s, size_t n) {
  if (n) {
    access((void*)s, n, false, RA);
    access(d, n, true, RA);
  }
  return memcpy(d, s, n);
}
void* __tsan_memmove(void* d, const void* s, size_t n) {
  if (n) {
    access((void*)s, n, false, RA);
    access(d, n, true, RA);
  }
  return memmove(d, s, n);
}
void* __tsan_memset(void* d, int c, size_t n) {
  if (n) access(d, n, true, RA);
  return memset(d, c, n);
}
}
#endif
