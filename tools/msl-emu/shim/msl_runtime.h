// Fiber SIMT runtime: one threadgroup at a time, one fiber per thread, rendezvous at simd ops and barriers.
#pragma once
#include <cstdint>
#include <cstddef>
namespace mslrt {
struct Site {
  const char* what;
  const char* file;
  int line;
};
struct Ctx {
  uint32_t thread_position_in_threadgroup[3], threadgroup_position_in_grid[3], thread_position_in_grid[3],
      threads_per_threadgroup[3], threadgroups_per_grid[3], threads_per_grid[3];
  uint32_t simdgroup_index_in_threadgroup, thread_index_in_simdgroup, thread_index_in_threadgroup,
      simdgroups_per_threadgroup, threads_per_simdgroup;
};
struct KernelInfo {
  const char* name;
  void (*entry)(const Ctx&);
  uint32_t buf_mask, write_mask, tg_mask, most_threads;
};
struct FcInfo {
  uint32_t index;
  const char* name;
  void* p;
  size_t size;
  bool* defined;
};
struct Range {
  const void* p;
  size_t n;
};
void register_unit(const KernelInfo*, size_t, const FcInfo*, const Range*);
struct Rv {
  unsigned char (*slots)[64];
  unsigned char* result;
  uint32_t mask;
  Site site;
};
Rv rendezvous(const void* v, size_t n, Site, void (*reduce)(Rv&));
void converge(Site);
void barrier(uint32_t flags, Site);
void sg_barrier(uint32_t flags, Site);
uint32_t lane();
uint32_t active();
void* arg(uint32_t i);
void* tgarg(uint32_t i);
void tg_touch(void* p, size_t n, const char* name);
void check_atomic(void* p, size_t n);
[[noreturn]] void fail_lane(Site, const char* msg);
}  // namespace mslrt
extern "C" {
struct msl_buf {
  void* ptr;
  size_t len;
  uint32_t index;
  uint32_t writable;
};
struct msl_fc {
  uint32_t index;
  uint32_t size;
  uint64_t bits;
};
struct msl_launch_desc {
  const char* kernel;
  uint32_t grid[3], tg[3];
  const msl_buf* bufs;
  uint32_t nbufs;
  const msl_fc* fcs;
  uint32_t nfcs;
  const uint32_t* tgmem;
  uint32_t ntgmem;
  uint32_t
      order;  // lane order inside a simdgroup and simdgroup order: 0 forward, 1 reversed, n>=2 shuffled with seed n
  uint32_t flags;  // 1: simd ops with exited lanes are allowed
  char* err;
  size_t errlen;
  uint64_t* stats; /* [0] switches [1] rendezvous [2] checked accesses [3] max threadgroup bytes */
};
int msl_launch(const msl_launch_desc*);
int msl_is_checked(void);
// The bits of a kernel's buffer arguments and of those that it may write, and the most threads of a threadgroup;
// 0 if there is no such kernel.
int msl_arguments(const char* kernel, uint32_t* all, uint32_t* written, uint32_t* most_threads);
// The index of a function constant of a kernel's file; -1 if there is no such constant.
int msl_constant(const char* kernel, const char* name);
}
