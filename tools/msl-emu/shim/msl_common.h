// Types and functions of <metal_stdlib> shared by the CPU emulator and the CUDA shim.
// The including file defines MSL_HD (function qualifiers), metal::half, and includes <cstdint>,<cstring>.
// Everything lives in namespace metal; user text is compiled inside metal::user.
#pragma once
namespace metal {
using uint = unsigned int;
using ushort = unsigned short;
using uchar = unsigned char;
using ulong = unsigned long;
using int8_t = ::int8_t;
using uint8_t = ::uint8_t;
using int16_t = ::int16_t;
using uint16_t = ::uint16_t;
using int32_t = ::int32_t;
using uint32_t = ::uint32_t;
using int64_t = ::int64_t;
using uint64_t = ::uint64_t;

MSL_HD uint msl_f2u(float f) {
  uint u;
  memcpy(&u, &f, 4);
  return u;
}
MSL_HD float msl_u2f(uint u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
}  // namespace metal
#include "msl_floats.h"
#include "msl_vectors.h"
#include "msl_math.h"
namespace metal {
enum memory_order { memory_order_relaxed };
enum class mem_flags : uint {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
  mem_texture = 4,
  mem_threadgroup_imageblock = 8
};
MSL_HD constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags((uint)a | (uint)b); }
template <class T>
struct _atomic {
  T v;
};
template <class T>
using atomic = _atomic<T>;
using atomic_uint = _atomic<uint>;
using atomic_int = _atomic<int>;
using atomic_float = _atomic<float>;
using atomic_bool = _atomic<bool>;
}  // namespace metal
