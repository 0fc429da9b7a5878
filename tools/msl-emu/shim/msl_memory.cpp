// Memory checks: bounds, races, uninitialised threadgroup memory; and its amount.
#include "msl_state.h"
#include <dlfcn.h>
#include <signal.h>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace mslrt {
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
// ---- guard pages, which find what leaves a buffer by far, and all in the fast mode ----
static struct sigaction old_segv;
static void on_segv(int sg, siginfo_t* si, void* uc) {
  unsigned char* p = (unsigned char*)si->si_addr;
  if (injob && cur && pthread_equal(runner, pthread_self())) {
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
void catch_faults() {
  static bool installed;
  if (installed) return;
  struct sigaction a = {};
  a.sa_sigaction = on_segv;
  a.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &a, &old_segv);
  installed = true;
}
}  // namespace mslrt
using namespace mslrt;
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
