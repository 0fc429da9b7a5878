// Residual and RMSNorm in one pass over the activations.
#include "common/formats.h"

// Sum over a threadgroup of whole simdgroups; every thread gets it.
inline float group_sum(float x, threadgroup float* s, uint sg, uint groups, uint lane) {
  x = simd_sum(x);
  if (lane == 0) s[sg] = x;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float sum = 0.0f;
  for (uint i = 0; i < groups; i++) sum += s[i];
  return sum;
}

struct NormParams {
  uint width;
  uint add;  // whether delta is added to x, and the sum kept
  float eps;
};

// out = weight sum / rms(sum) with sum = x + delta, or x alone. Threadgroup: a row.
kernel void add_rms_norm(device const float* x [[buffer(0)]],
                         device const float* delta [[buffer(1)]],
                         device const float* weight [[buffer(2)]],
                         device float* sum [[buffer(3)]],
                         device float* out [[buffer(4)]],
                         constant NormParams& p [[buffer(5)]],
                         uint row [[threadgroup_position_in_grid]],
                         uint sg [[simdgroup_index_in_threadgroup]],
                         uint groups [[simdgroups_per_threadgroup]],
                         uint lane [[thread_index_in_simdgroup]],
                         uint tid [[thread_index_in_threadgroup]]) {
  threadgroup float s_sum[32];
  const ulong start = ulong(row) * p.width;
  float square = 0.0f;
  for (uint i = tid; i < p.width; i += groups * 32) {
    float r = x[start + i];
    if (p.add) {
      sum[start + i] = r + delta[start + i];
      r = sum[start + i];
    }
    square = fma(r, r, square);
  }
  const float scale = rsqrt(group_sum(square, s_sum, sg, groups, lane) / float(p.width) + p.eps);
  for (uint i = tid; i < p.width; i += groups * 32) {
    const float r = p.add ? sum[start + i] : x[start + i];
    out[start + i] = r * scale * weight[i];
  }
}
