// 8x8 matrices of a simdgroup, with access to a lane's two elements.
#pragma once
#include "common/formats.h"

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
  simdgroup_multiply_accumulate(d0, a0, b0, d0);
  simdgroup_multiply_accumulate(d1, c0, b0, d1);
  simdgroup_multiply_accumulate(d0, a1, b1, d0);
  simdgroup_multiply_accumulate(d1, c1, b1, d1);
}
#endif

// A lane's place in a matrix (row r, columns 2c and 2c + 1), the xor masks that step through the rows, and the lanes
// that have the columns before it in its row and the row before it in its columns, the last before the first, which
// trellis codes need: found, not assumed.
struct Place {
  uint r, c;
  ushort m0, m1, m2;
  ushort column_before, row_before;
};
// index: 64 halves of this simdgroup.
INLINE Place find_place(threadgroup half* index, uint lane) {
  index[lane] = half(float(lane));
  index[lane + 32] = half(float(lane + 32));
  simdgroup_barrier(mem_flags::mem_threadgroup);
  simdgroup_half8x8 x;
  simdgroup_load(x, index, 8);
  const uint e = uint(float(elements(x)[0]));
  Place l;
  l.r = e / 8;
  l.c = e % 8 / 2;
  l.m0 = l.m1 = l.m2 = 0;
  for (ushort b = 1; b < 32; b <<= 1) {
    const uint o = simd_shuffle_xor(e, b) ^ e;
    if (o == 8) l.m0 = b;
    if (o == 16) l.m1 = b;
    if (o == 32) l.m2 = b;
  }
  l.column_before = l.row_before = 0;
  if (is_trellis(kKeyFormat) || is_trellis(kValueFormat)) {
    simdgroup_barrier(mem_flags::mem_threadgroup);
    index[l.r * 4 + l.c] = half(float(lane));
    simdgroup_barrier(mem_flags::mem_threadgroup);
    l.column_before = ushort(float(index[l.r * 4 + (l.c + 3) % 4]));
    l.row_before = ushort(float(index[(l.r + 7) % 8 * 4 + l.c]));
  }
  return l;
}
INLINE float row_max(float x, Place l) {
  x = max(x, simd_shuffle_xor(x, l.m0));
  x = max(x, simd_shuffle_xor(x, l.m1));
  return max(x, simd_shuffle_xor(x, l.m2));
}
INLINE float row_sum(float x, Place l) {
  x += simd_shuffle_xor(x, l.m0);
  x += simd_shuffle_xor(x, l.m1);
  return x + simd_shuffle_xor(x, l.m2);
}
