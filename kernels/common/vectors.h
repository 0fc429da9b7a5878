// What the kernels that store keys, prepare queries and merge partitions share: rounding to bf16, clamping to the range
// of halves, the rotation of one vector by one simdgroup, the layout of the keys' constants, and RoPE of one pair.
#pragma once
#include "common/formats.h"

// The bits of a bf16, by hand: Metal 3.0 lacks the bfloat type.
INLINE ushort bf16_bits(float x) {  // to nearest, ties to even; finite x
  const uint b = as_type<uint>(x);
  return ushort((b + 0x7fffu + (b >> 16 & 1u)) >> 16);
}

// NaN becomes 0, anything beyond half's range is clamped. By bits: fast math may assume that neither occurs.
INLINE float sanitize(float x) {
  const uint b = as_type<uint>(x), size = b & 0x7fffffffu;
  const uint clamped = min(size, 0x477fe000u) | (b & 0x80000000u);  // 65504
  return as_type<float>(size > 0x7f800000u ? 0u : clamped);
}

// z = H diag(signs) x norm, or back, of z in threadgroup memory. `rotation`: (D + 31) / 32 words, a bit an element that
// is negated, then for D = 80 and 96 the rows of the Paley matrix, a bit a column that is -1. The Walsh factor acts on
// neighbours.
template <int D>
struct Rotation {
  static constant constexpr uint kOrder = D == 80 ? 20 : D == 96 ? 12 : 1;
  static constant constexpr uint kWalsh = D / kOrder;
};
INLINE float signed_norm(device const uint* rotation, uint i, float norm) {
  return rotation[i / 32] >> (i % 32) & 1u ? -norm : norm;
}
template <int D>
INLINE void walsh_hadamard(threadgroup float* z, uint lane) {
  for (uint h = 1; h < Rotation<D>::kWalsh; h *= 2) {
    for (uint k = lane; k < D / 2; k += 32) {
      const uint i = k / h * 2 * h + k % h;
      const float a = z[i], b = z[i + h];
      z[i] = a + b;
      z[i + h] = a - b;
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
  }
}
template <int D>
INLINE void paley(threadgroup float* z, device const uint* rotation, bool transposed, uint lane) {
  constexpr uint order = Rotation<D>::kOrder, walsh = Rotation<D>::kWalsh;
  device const uint* rows = rotation + (D + 31) / 32;
  float y[(D + 31) / 32];
  for (uint i = lane, k = 0; i < D; i += 32, k++) {
    const uint row = i / walsh;
    float sum = 0.0f;
    for (uint col = 0; col < order; col++) {
      const uint bit = transposed ? rows[col] >> row : rows[row] >> col;
      const float x = z[col * walsh + i % walsh];
      sum += bit & 1u ? -x : x;
    }
    y[k] = sum;
  }
  simdgroup_barrier(mem_flags::mem_threadgroup);
  for (uint i = lane, k = 0; i < D; i += 32, k++) z[i] = y[k];
  simdgroup_barrier(mem_flags::mem_threadgroup);
}
// Where D is a power of two: E neighbours a lane, in registers.
template <int D>
INLINE void walsh_rotation(threadgroup float* z, device const uint* rotation, bool back, float norm, uint lane) {
  constexpr int E = Rotation<D>::kOrder == 1 ? D / 32 : 1;
  float x[E];
  UNROLL for (int e = 0; e < E; e++) x[e] =
      back ? z[lane * E + e] : z[lane * E + e] * signed_norm(rotation, lane * E + e, norm);
  UNROLL for (int h = 1; h < E; h *= 2) UNROLL for (int e = 0; e < E; e++) {
    if (e & h) continue;
    const float a = x[e], b = x[e + h];
    x[e] = a + b;
    x[e + h] = a - b;
  }
  UNROLL for (ushort m = 1; m < 32; m *= 2) UNROLL for (int e = 0; e < E; e++) {
    const float other = simd_shuffle_xor(x[e], m);
    x[e] = lane & m ? other - x[e] : x[e] + other;
  }
  UNROLL for (int e = 0; e < E; e++) z[lane * E + e] = back ? x[e] * signed_norm(rotation, lane * E + e, norm) : x[e];
  simdgroup_barrier(mem_flags::mem_threadgroup);
}
template <int D>
INLINE void apply_signs(threadgroup float* z, device const uint* rotation, float norm, uint lane) {
  for (uint i = lane; i < D; i += 32) z[i] *= signed_norm(rotation, i, norm);
  simdgroup_barrier(mem_flags::mem_threadgroup);
}
template <int D>
INLINE void rotate(threadgroup float* z, device const uint* rotation, float norm, uint lane) {
  if (Rotation<D>::kOrder == 1) return walsh_rotation<D>(z, rotation, false, norm, lane);
  apply_signs<D>(z, rotation, norm, lane);
  walsh_hadamard<D>(z, lane);
  paley<D>(z, rotation, false, lane);
}
template <int D>
INLINE void unrotate(threadgroup float* z, device const uint* rotation, float norm, uint lane) {
  if (Rotation<D>::kOrder == 1) return walsh_rotation<D>(z, rotation, true, norm, lane);
  paley<D>(z, rotation, true, lane);
  walsh_hadamard<D>(z, lane);
  apply_signs<D>(z, rotation, norm, lane);
}

// What keys go through beside RoPE, where they are centred: D floats each, kKeyConstants of them for each kv head. They
// are what is subtracted from keys before RoPE at all positions but 0 (0 where a mean is not subtracted), and at
// position 0; what keys are multiplied by after RoPE, the same for both elements of a pair, and what queries are; the
// first mean less the subtracted one, after RoPE at position 0.
enum KeyConstant : uint { kSubtracted, kFirstMean, kScale, kInverseScale, kFirstDifference, kKeyConstants };

// RoPE: the two elements of a pair, after turning by an angle whose (cos, sin), times RoPE's attention factor, is
// given.
INLINE float2 apply_rope(float2 x, float2 angle) {
  return float2(x.x * angle.x - x.y * angle.y, x.x * angle.y + x.y * angle.x);
}
