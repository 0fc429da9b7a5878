// Where a lane is in an 8x8 matrix, and sums over its rows.
#pragma once
#include "common/formats.h"
#include "common/matrices.h"

// A lane's place in a matrix (row r, columns 2c and 2c + 1), the xor masks that step through the rows, and the lanes
// that have the columns before it in its row and the row before it in its columns, the last before the first, which
// trellis codes need: found, not assumed.
struct Place {
  uint r, c;
  ushort m0, m1, m2;
  ushort column_before, row_before;
};
INLINE Place find_place(threadgroup half* index, uint lane) {
  const uint e = first_element(index, lane);
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
