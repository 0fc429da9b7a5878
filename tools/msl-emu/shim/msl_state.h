// What the runtime's parts share: the threadgroup that runs, its buffers, and what went wrong.
#pragma once
#include "msl_runtime.h"
#include <pthread.h>
#include <setjmp.h>
#include <string>
#include <vector>
#ifndef MSL_CHECKED
#define MSL_CHECKED 0
#endif
extern "C" void msl_switch(void** save, void* to);
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
  alignas(64) unsigned char result[2][256];  // a matrix of 8x8 floats
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
inline Lane* cur;
inline void* main_sp;
inline unsigned char* stacks;
inline Lane lanes[MAXT];
inline Group groups[32];
inline uint32_t nl, ng, nbar;
inline void (*entry)(const Ctx&);
inline uint32_t tg_lin, tg_ep[2];  // [0] device, [1] threadgroup
inline uint32_t gen;
inline std::vector<Tgv> tgvs;
inline size_t tgbytes;
inline Buf bufs[31];
inline uint32_t nb;
inline void* args_[31];
inline unsigned char* tga[8];
inline size_t tgan[8];
inline bool failed;
inline char errbuf[4096];
inline uint64_t sw, rvn, chk;
struct Unit {
  const KernelInfo* k;
  size_t n;
  const FcInfo* f;
  const Range* r;
};
inline const Unit* curu;
inline unsigned char* arena;
constexpr size_t ARENA = 1ull << 36;

// Of msl_fibers.cpp.
void lane_main();
void go_main();           // to the scheduler, whose turn it is then
void complete(Group* g);  // a meeting of all lanes that still run
void describe_stuck();

// Of msl_memory.cpp.
inline sigjmp_buf jb;
inline volatile bool injob;
inline pthread_t runner;  // of the launch: faults of other threads are not its own
void catch_faults();

// Of msl_launch.cpp. The first error of a launch counts.
void err(const char* f, ...);
const char* base(const char* f);
std::string where(Lane* L);
}  // namespace mslrt
