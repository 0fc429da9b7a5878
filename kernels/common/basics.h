// What every kernel shares: what it asks of the compiler, and bounds of numbers.
#pragma once
#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;

// Apple's compiler passes large arguments of a function that it calls through memory, so every function is inlined. The
// emulator runs as well without, and compiles faster.
#ifdef MSL_EMULATOR
#define INLINE inline
#define UNROLL
#define UNROLL_4
#else
#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("unroll")
#define UNROLL_4 _Pragma("unroll 4")  // loops of unknown length whose loads should overlap
#endif

// A kernel that is launched with at most THREADS threads a threadgroup, so that as many registers are there for it.
#define KERNEL(THREADS) [[kernel, max_total_threads_per_threadgroup(THREADS)]] void

// Both are finite, since fast math may assume that infinities do not occur.
constant constexpr float kNone = -1.0e30f;   // a masked logit
constant constexpr float kStart = -1.0e28f;  // the maximum before any logit; above kNone: a masked weight becomes 0
constant constexpr float kLimit = 65504.0f;
