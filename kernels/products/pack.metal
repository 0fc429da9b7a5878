// Kernels that make operands of products from rows of x.
#include "products/operand.h"

struct PackParams {
  uint rows;
  uint width;
  uint groups;  // groups of 32 elements in a row; the last may have fewer
};

// Makes the operand of the rows of x. A threadgroup takes 8 rows and 4 groups of 32 elements; each simdgroup takes one
// group.
KERNEL(128)
pack_rows(device const float* x [[buffer(0)]],
          device uint4* operand [[buffer(1)]],
          device float* sums [[buffer(2)]],
          constant PackParams& p [[buffer(3)]],
          uint2 at [[threadgroup_position_in_grid]],
          uint sg [[simdgroup_index_in_threadgroup]],
          uint lane [[thread_index_in_simdgroup]]) {
  const uint group = at.x * 4 + sg;
  if (group >= p.groups) return;
  const uint row = at.y * 8 + lane / 4, first = group * kGroup + lane % 4 * 8;
  Eight eight;
  UNROLL for (uint i = 0; i < 8; i++) {
    const bool inside = row < p.rows && first + i < p.width;
    eight.z[i] = inside ? x[ulong(row) * p.width + first + i] : 0.0f;
  }
  store_group(operand, sums, ulong(at.y) * p.groups + group, eight, lane);
}

struct NormOperandParams {
  uint rows;
  uint width;
  uint groups;
  uint add;  // 1 if delta is added to x, and x + delta is written to stream
  float eps;
};

enum NormOperandSize : uint { kNormSimdgroups = 16 };

// Makes the operand of the normalised rows, weight * s / rms(s), where s is x + delta, or x if `add` is 0. A
// threadgroup takes eight rows.
KERNEL(512)
norm_operand(device const float* x [[buffer(0)]],
             device const float* delta [[buffer(1)]],
             device const float* weight [[buffer(2)]],
             device float* stream [[buffer(3)]],
             device uint4* operand [[buffer(4)]],
             device float* sums [[buffer(5)]],
             constant NormOperandParams& p [[buffer(6)]],
             uint octet [[threadgroup_position_in_grid]],
             uint sg [[simdgroup_index_in_threadgroup]],
             uint lane [[thread_index_in_simdgroup]],
             uint tid [[thread_index_in_threadgroup]]) {
  threadgroup float s_square[8][kNormSimdgroups];
  for (uint r = 0; r < 8; r++) {
    const uint row = octet * 8 + r;
    float square = 0.0f;
    for (uint i = tid; row < p.rows && i < p.width; i += 32 * kNormSimdgroups) {
      const ulong at = ulong(row) * p.width + i;
      float z = x[at];
      if (p.add) {
        z += delta[at];
        stream[at] = z;
      }
      square = fma(z, z, square);
    }
    square = simd_sum(square);
    if (lane == 0) s_square[r][sg] = square;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);
  const uint row = octet * 8 + lane / 4;
  float square = 0.0f;
  for (uint i = 0; i < kNormSimdgroups; i++) square += s_square[lane / 4][i];
  const float inverse_rms = rsqrt(square / float(p.width) + p.eps);
  for (uint group = sg; group < p.groups; group += kNormSimdgroups) {
    const uint first = group * kGroup + lane % 4 * 8;
    Eight eight;
    UNROLL for (uint i = 0; i < 8; i++) {
      const ulong at = ulong(row) * p.width + first + i;
      const bool inside = row < p.rows && first + i < p.width;
      eight.z[i] = inside ? (p.add ? stream[at] : x[at]) * inverse_rms * weight[first + i] : 0.0f;
    }
    store_group(operand, sums, ulong(octet) * p.groups + group, eight, lane);
  }
}
