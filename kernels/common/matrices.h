// 8x8 matrices of a simdgroup, with access to a lane's two elements.
#pragma once
#include "common/basics.h"

// A lane's two elements; the cast is needed where the header's type is not vec<T, 2>.
INLINE thread half2& elements(thread simdgroup_half8x8& x) {
  return reinterpret_cast<thread half2&>(x.thread_elements());
}
INLINE thread float2& elements(thread simdgroup_float8x8& x) {
  return reinterpret_cast<thread float2&>(x.thread_elements());
}
INLINE simdgroup_half8x8 tile_of(half2 x) {
  simdgroup_half8x8 a;
  elements(a) = x;
  return a;
}

#ifndef MSL_CUDA  // the CUDA shim has its own, one instruction each
// d0 += a b, d1 += c b
INLINE void mma_2x1(thread simdgroup_float8x8& d0,
                    thread simdgroup_float8x8& d1,
                    simdgroup_half8x8 a,
                    simdgroup_half8x8 c,
                    simdgroup_half8x8 b) {
  simdgroup_multiply_accumulate(d0, a, b, d0);
  simdgroup_multiply_accumulate(d1, c, b, d1);
}
// d0 += a0 b0 + a1 b1, d1 += c0 b0 + c1 b1
INLINE void mma_2x2(thread simdgroup_float8x8& d0,
                    thread simdgroup_float8x8& d1,
                    simdgroup_half8x8 a0,
                    simdgroup_half8x8 c0,
                    simdgroup_half8x8 b0,
                    simdgroup_half8x8 a1,
                    simdgroup_half8x8 c1,
                    simdgroup_half8x8 b1) {
  mma_2x1(d0, d1, a0, c0, b0);
  mma_2x1(d0, d1, a1, c1, b1);
}
// d0 = a0 b0 + a1 b1, d1 = c0 b0 + c1 b1
INLINE void product_2x2(thread simdgroup_float8x8& d0,
                        thread simdgroup_float8x8& d1,
                        simdgroup_half8x8 a0,
                        simdgroup_half8x8 c0,
                        simdgroup_half8x8 b0,
                        simdgroup_half8x8 a1,
                        simdgroup_half8x8 c1,
                        simdgroup_half8x8 b1) {
  simdgroup_multiply(d0, a0, b0);
  simdgroup_multiply(d1, c0, b0);
  mma_2x1(d0, d1, a1, c1, b1);
}
#endif

// The first of a lane's elements, 8 r + 2 c. index: 64 halves of this simdgroup.
INLINE uint first_element(threadgroup half* index, uint lane) {
  index[lane] = half(float(lane));
  index[lane + 32] = half(float(lane + 32));
  simdgroup_barrier(mem_flags::mem_threadgroup);
  simdgroup_half8x8 x;
  simdgroup_load(x, index, 8);
  return uint(float(elements(x)[0]));
}
