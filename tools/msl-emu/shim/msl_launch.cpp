// A launch: its kernel, buffers and constants, then one threadgroup after the other.
#include "msl_state.h"
#include <sys/mman.h>
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace mslrt {
static std::mutex mu;
static std::vector<Unit>& units() {
  static std::vector<Unit> u;
  return u;
}
void register_unit(const KernelInfo* k, size_t n, const FcInfo* f, const Range* r) {
  for (auto& u : units())
    if (u.k == k) return;
  units().push_back({k, n, f, r});
}

void err(const char* f, ...) {
  if (failed) return;
  failed = true;
  va_list a;
  va_start(a, f);
  vsnprintf(errbuf, sizeof errbuf, f, a);
  va_end(a);
}
const char* base(const char* f) {
  const char* s = f ? strrchr(f, '/') : nullptr;
  return s ? s + 1 : f ? f : "?";
}
std::string where(Lane* L) {
  char b[256];
  snprintf(b, sizeof b, "threadgroup (%u,%u,%u) thread %u (simdgroup %u lane %u)", L->c.threadgroup_position_in_grid[0],
           L->c.threadgroup_position_in_grid[1], L->c.threadgroup_position_in_grid[2], L->tid,
           L->c.simdgroup_index_in_threadgroup, L->l);
  return b;
}
static const KernelInfo* find_kernel(const char* name) {
  for (auto& u : units())
    for (size_t i = 0; i < u.n; i++)
      if (!strcmp(u.k[i].name, name)) {
        curu = &u;
        return &u.k[i];
      }
  err("no kernel '%s'", name);
  return nullptr;
}
// The launch's buffers are the kernel's, no more and no fewer, and its marks of what is written too.
static bool check_buffers(const msl_launch_desc* d, const KernelInfo* k) {
  uint32_t have = 0;
  for (uint32_t i = 0; i < d->nbufs; i++) {
    const msl_buf& b = d->bufs[i];
    if (b.index > 30) {
      err("buffer index > 30");
      return false;
    }
    const uint32_t bit = 1u << b.index;
    if (have & bit || !(k->buf_mask & bit)) {
      err("kernel %s: buffer(%u) %s", d->kernel, b.index, have & bit ? "is bound twice" : "is not a parameter");
      return false;
    }
    if (!!b.writable != !!(k->write_mask & bit)) {
      err("kernel %s: buffer(%u) is marked as %s", d->kernel, b.index,
          b.writable ? "written, but it is constant" : "read, but the kernel may write it");
      return false;
    }
    have |= bit;
  }
  if (k->buf_mask & ~have) {
    err("kernel %s: buffer(%d) is not bound", d->kernel, __builtin_ctz(k->buf_mask & ~have));
    return false;
  }
  return true;
}
static bool set_constants(const msl_launch_desc* d) {
  for (const FcInfo* f = curu->f; f->name; f++) {
    *f->defined = false;
    memset(f->p, 0, f->size);
    for (uint32_t i = 0; i < d->nfcs; i++)
      if (d->fcs[i].index == f->index) {
        if (d->fcs[i].size != f->size) {
          err("function constant %u '%s': size %u given, %zu declared", f->index, f->name, d->fcs[i].size, f->size);
          return false;
        }
        memcpy(f->p, &d->fcs[i].bits, f->size);
        *f->defined = true;
      }
  }
  return true;
}
static void reserve() {
  if (arena) return;
  arena = (unsigned char*)mmap(nullptr, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  stacks = (unsigned char*)mmap(nullptr, MAXT * (STACK + GUARD), PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  for (size_t i = 0; i < MAXT; i++) mprotect(stacks + i * (STACK + GUARD), GUARD, PROT_NONE);
}
// Copies of the buffers, each at the end of its pages, with pages that fault around it.
static void place_buffers(const msl_launch_desc* d, const KernelInfo* k) {
  size_t top = 1 << 20;
  nb = d->nbufs;
  memset(args_, 0, sizeof args_);
  for (uint32_t i = 0; i < nb; i++) {
    const msl_buf& b = d->bufs[i];
    size_t pg = (b.len + 4095) & ~4095ull;
    if (!pg) pg = 4096;
    unsigned char* m = arena + top;
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
    top += pg + (1 << 20);
  }
}
static void place_threadgroup_memory(const msl_launch_desc* d) {
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
}
// Simdgroups whose lanes run in the launch's order.
static void start_groups(uint32_t order, uint32_t& seed) {
  auto rnd = [&] {
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
  };
  for (uint32_t i = 0; i < ng; i++) {
    Group& g = groups[i];
    uint32_t n = std::min(32u, nl - i * 32);
    g.full = g.alive = n == 32 ? ~0u : (1u << n) - 1;
    g.arrived = 0;
    g.ph = 0;
    g.sg_epoch[0] = g.sg_epoch[1] = 0;
    g.lanes = &lanes[i * 32];
    for (uint32_t q = 0; q < n; q++) g.ord[q] = order == 1 ? n - 1 - q : q;
    if (order > 1)
      for (uint32_t q = n; q-- > 1;) std::swap(g.ord[q], g.ord[rnd() % (q + 1)]);
    for (uint32_t q = 0; q < n; q++) g.pos[g.ord[q]] = q;
    g.runnable = g.full;
  }
}
// A fiber for each thread of threadgroup `gp`.
static void start_lanes(const msl_launch_desc* d, const uint32_t (&gp)[3]) {
  for (uint32_t i = 0; i < nl; i++) {
    Lane& L = lanes[i];
    L.st = RUN;
    L.tid = i;
    L.l = i & 31;
    L.g = &groups[i / 32];
    L.site = {};
    Ctx& c = L.c;
    uint32_t tp[3] = {i % d->tg[0], i / d->tg[0] % d->tg[1], i / (d->tg[0] * d->tg[1])};
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
}
// Gives simdgroups their turns until all threads have returned, or none can go on.
static void schedule(const msl_launch_desc* d) {
  for (;;) {
    if (failed) break;
    bool any = false;
    uint32_t done_groups = 0;
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
}
static uint64_t run_threadgroup(const msl_launch_desc* d, const uint32_t (&gp)[3], uint32_t& seed) {
  static const char* dn[8] = {"[[threadgroup(0)]]", "[[threadgroup(1)]]", "[[threadgroup(2)]]", "[[threadgroup(3)]]",
                              "[[threadgroup(4)]]", "[[threadgroup(5)]]", "[[threadgroup(6)]]", "[[threadgroup(7)]]"};
  gen++;
  tgbytes = 0;
  nbar = 0;
  tg_ep[0] = tg_ep[1] = 0;
  start_groups(d->order, seed);
  start_lanes(d, gp);
  cur = &lanes[0];
  for (uint32_t i = 0; i < 8; i++)
    if (tga[i]) tg_touch(tga[i], tgan[i], dn[i]);
  schedule(d);
  cur = nullptr;
  return tgbytes;
}
static void give_back_buffers(const msl_launch_desc* d) {
  for (uint32_t i = 0; i < nb; i++) {
    const msl_buf& b = d->bufs[i];
    if (bufs[i].wr) memcpy(b.ptr, bufs[i].base, b.len);
    unsigned char* m = (unsigned char*)((size_t)bufs[i].base & ~4095ull);
    size_t pg = ((b.len + 4095) & ~4095ull) + 4096;
    madvise(m, pg - 4096, MADV_DONTNEED);
    mprotect(m, pg - 4096 ? pg - 4096 : 4096, PROT_NONE);
    if (bufs[i].shadow) munmap(bufs[i].shadow, b.len * 16 + 16);
  }
}
static int run(const msl_launch_desc* d) {
  const KernelInfo* k = find_kernel(d->kernel);
  if (!k) return 1;
  entry = k->entry;
  nl = d->tg[0] * d->tg[1] * d->tg[2];
  if (!nl || nl > k->most_threads) {
    err("kernel %s: threadgroup of %u threads (1..%u)", d->kernel, nl, k->most_threads);
    return 1;
  }
  ng = (nl + 31) / 32;
  if (!check_buffers(d, k) || !set_constants(d)) return 1;
  reserve();
  place_buffers(d, k);
  place_threadgroup_memory(d);
  static uint64_t most;  // not on the stack that a fault jumps back to
  most = 0;
  uint32_t seed = d->order;
  tg_lin = 0;
  runner = pthread_self();
  injob = true;
  if (sigsetjmp(jb, 1) == 0)
    for (uint32_t z = 0; z < d->grid[2] && !failed; z++)
      for (uint32_t y = 0; y < d->grid[1] && !failed; y++)
        for (uint32_t x = 0; x < d->grid[0] && !failed; x++, tg_lin++)
          most = std::max(most, run_threadgroup(d, {x, y, z}, seed));
  cur = nullptr;
  injob = false;
  give_back_buffers(d);
  if (d->stats) {
    d->stats[0] = sw;
    d->stats[1] = rvn;
    d->stats[2] = chk;
    d->stats[3] = most;
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
  sw = rvn = chk = 0;
  catch_faults();
  int r = run(d);
  if (d->err && d->errlen) snprintf(d->err, d->errlen, "%s", errbuf);
  return r;
}
extern "C" __attribute__((visibility("default"))) int msl_arguments(const char* kernel,
                                                                    uint32_t* all,
                                                                    uint32_t* written,
                                                                    uint32_t* most_threads) {
  for (const auto& u : units())
    for (size_t i = 0; i < u.n; i++)
      if (!strcmp(u.k[i].name, kernel)) {
        *all = u.k[i].buf_mask;
        *written = u.k[i].write_mask;
        *most_threads = u.k[i].most_threads;
        return 1;
      }
  return 0;
}
extern "C" __attribute__((visibility("default"))) int msl_constant(const char* kernel, const char* name) {
  for (const auto& u : units())
    for (size_t i = 0; i < u.n; i++)
      if (!strcmp(u.k[i].name, kernel))
        for (const FcInfo* f = u.f; f->name; f++)
          if (!strcmp(f->name, name)) return int(f->index);
  return -1;
}
