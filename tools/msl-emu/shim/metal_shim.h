// RUN-mode shim: MSL source -> C++17 for the CPU emulator (clang-19).
#pragma once
#include <cstdint>
#include <cstring>
#include <cstddef>
#include <cmath>
#include "msl_runtime.h"
#define MSL_NI __attribute__((noinline, no_sanitize("thread")))
#define MSL_HD inline __attribute__((always_inline))
#define MSL_HALF_CLASS 0
#define MSL_EXP(x) ::expf(x)
#define MSL_EXP2(x) ::exp2f(x)
#define MSL_LOG(x) ::logf(x)
#define MSL_LOG2(x) ::log2f(x)
#define MSL_RSQRT(x) (1.0f / ::sqrtf(x))
#define MSL_POPC(x) (uint) __builtin_popcount(x)
#define MSL_CLZ(x) (uint) __builtin_clz(x)
#define MSL_CTZ(x) (uint) __builtin_ctz(x)
namespace metal {
using half = _Float16;
}
#include "msl_common.h"
#undef signbit
#define MSL_KERNEL
#define MSL_DEVICE
#define MSL_CONSTANT const
#define MSL_THREADGROUP
#define MSL_THREAD
#define MSL_FN inline
#define MSL_CONSTVAR static const
#define MSL_FCVAR static
#define MSL_FCINIT(i)
#define MSL_FCDEF(n) static bool msl_fcdef_##n = false;
#define is_function_constant_defined(n) msl_fcdef_##n
#define MSL_TGVAR static
#define MSL_TG_TOUCH(n) ::mslrt::tg_touch((void*)&n, sizeof(n), #n);
#define MSL_PTR(i) \
  ::metal::msl_ptr { ::mslrt::arg(i) }
#define MSL_REF(i) \
  ::metal::msl_ref { ::mslrt::arg(i) }
#define MSL_TGARG(i) \
  ::metal::msl_ptr { ::mslrt::tgarg(i) }
#define MSL_V3(n) \
  ::metal::msl_v3 { c.n }
#define MSL_V1(n) c.n
namespace metal {
struct msl_ptr {
  void* p;
  template <class T>
  operator T*() const {
    return (T*)p;
  }
};
struct msl_ref {
  void* p;
  template <class T>
  operator T&() const {
    return *(T*)p;
  }
};
struct msl_v3 {
  const uint32_t* p;
  operator uint() const { return p[0]; }
  operator ushort() const { return (ushort)p[0]; }
  operator vec<uint, 2>() const { return {p[0], p[1]}; }
  operator vec<uint, 3>() const { return {p[0], p[1], p[2]}; }
  operator vec<ushort, 2>() const { return {p[0], p[1]}; }
  operator vec<ushort, 3>() const { return {p[0], p[1], p[2]}; }
};
}  // namespace metal
#include "msl_simd.h"
#include "msl_atomics.h"
#include "msl_matrix.h"
