// Rows of x as right operands of 8x8 products with weights, and sums of x.
//
// Rows come in octets, the columns of the products. For each octet and group of 32 elements, an operand has 32 places,
// place 4 r + c being row r and columns 2c and 2c + 1 of an 8x8 matrix; each has 16 bytes: for each of four matrices
// the halves of its two columns. Row 2c + e of matrix j is element 8c + {0, 2}, {1, 3}, {4, 6}, {5, 7} of the group
// (c of the row, not of the place). A group of a row is multiplied by a power of two which brings its largest element
// to 2^14 .. 2^15, so that halves neither overflow nor vanish: what is 2^28 times smaller than the largest has fewer
// bits.
//
// Beside it, for each octet and group, 24 floats: for each pair of columns what the halves of the two are to be
// multiplied by, and the two sums of the group's 32 elements as halves have them; then the sums of the first 16
// elements of the 8 columns.
#pragma once
#include "common/matrices.h"

// Elements of a group, and its size in an operand: places of 16 bytes, words of 8, floats.
enum OperandSize : uint { kGroup = 32, kGroupPlaces = 32, kGroupWords = 64, kGroupSums = 24 };

// A lane's place in an 8x8 matrix: row r, columns 2c and 2c + 1.
struct LanePlace {
  uint r, c;
};

// Where a lane's elements lie in every group, in words of 8 bytes, in the order of weights whose kSplit is SPLIT: there
// elements 16 h + 4c + .. are those of matrices 2 (c % 2) and 2 (c % 2) + 1 where c is 2 h + c / 2.
template <bool SPLIT>
INLINE uint operand_place(LanePlace l) {
  if (!SPLIT) return (l.r * 4 + l.c) * 2;
  const uint c = l.r / 2, e = l.r % 2;
  return (c / 2 * 2 + e) * 8 + l.c * 2 + c % 2;
}
// The four matrices' elements of a lane; `from`: its place in the group.
template <bool SPLIT>
INLINE uint4 operand_at(device const uint2* from) {
  if (!SPLIT) return *(device const uint4*)from;
  const uint2 first = from[0], second = from[32];
  return uint4(first, second);
}

// 8 neighbours of a row.
struct Eight {
  float z[8];
};

// Stores a group of an octet. Lanes 4 r to 4 r + 3 have the elements of row r, 8 each. `to`: octet times groups, plus
// group.
INLINE void store_group(device uint4* operand, device float* sums, ulong to, Eight x, uint lane) {
  const uint r = lane / 4, quarter = lane % 4;
  uint largest = 0;
  UNROLL for (uint i = 0; i < 8; i++) largest = max(largest, as_type<uint>(x.z[i]) & 0x7fffffffu);
  largest = max(largest, simd_shuffle_xor(largest, 1));
  largest = max(largest, simd_shuffle_xor(largest, 2));
  // 2^(14 - e) and its inverse, where the largest element is 2^e to 2^(e + 1); by bits.
  const uint e = clamp(largest >> 23, 15u, 254u);
  const float up = as_type<float>((268u - e) << 23), down = as_type<float>((e - 14u) << 23);
  half h[8];
  float sum = 0.0f;
  UNROLL for (uint i = 0; i < 8; i++) {
    h[i] = half(x.z[i] * up);
    sum += float(h[i]);
  }
  const float half_sum = sum + simd_shuffle_xor(sum, 1);
  const float other = simd_shuffle_xor(half_sum, 2);
  uint4 words;
  UNROLL for (uint j = 0; j < 4; j++) {
    const uint i = j % 2 + j / 2 * 4;
    words[j] = as_type<uint>(half2(h[i], h[i + 2]));
  }
  // Lanes of an even row take what it and the next row have for even rows of the matrices, lanes of an odd row the
  // rest.
  const bool odd = r % 2 == 1;
  UNROLL for (uint j = 0; j < 4; j++) {
    const half2 ours = as_type<half2>(words[j]), theirs = as_type<half2>(simd_shuffle_xor(words[j], 4));
    words[j] = as_type<uint>(odd ? half2(theirs.y, ours.y) : half2(ours.x, theirs.x));
  }
  operand[to * kGroupPlaces + (2 * quarter + r % 2) * 4 + r / 2] = words;
  if (quarter == 0) {
    device float* s = sums + to * kGroupSums + r / 2 * 4 + r % 2;
    s[0] = down;
    s[2] = down * (half_sum + other);
    sums[to * kGroupSums + 16 + r] = down * half_sum;
  }
}
