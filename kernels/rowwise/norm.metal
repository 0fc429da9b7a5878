// Residual and RMSNorm in one pass over the activations.
#include "common/basics.h"

// Sum over a threadgroup of whole simdgroups; every thread gets it.
INLINE float group_sum(float x, threadgroup float* s, uint sg, uint groups, uint lane) {
  x = simd_sum(x);
  if (lane == 0) s[sg] = x;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float sum = 0.0f;
  for (uint i = 0; i < groups; i++) sum += s[i];
  return sum;
}

struct NormParams {
  uint width;
  float eps;
};

// out = weight sum / rms(sum) with sum = x + delta, which is kept, or x alone. Threadgroup: a row.
template <bool Add>
INLINE void norm(device const float* x,
                 device const float* delta,
                 device const float* weight,
                 device float* sum,
                 device float* out,
                 constant NormParams& p,
                 threadgroup float* s_sum,
                 uint row,
                 uint sg,
                 uint groups,
                 uint lane,
                 uint tid) {
  const ulong start = ulong(row) * p.width;
  float square = 0.0f;
  for (uint i = tid; i < p.width; i += groups * 32) {
    float r = x[start + i];
    if (Add) {
      sum[start + i] = r + delta[start + i];
      r = sum[start + i];
    }
    square = fma(r, r, square);
  }
  const float scale = rsqrt(group_sum(square, s_sum, sg, groups, lane) / float(p.width) + p.eps);
  for (uint i = tid; i < p.width; i += groups * 32) {
    const float r = Add ? sum[start + i] : x[start + i];
    out[start + i] = r * scale * weight[i];
  }
}
KERNEL(1024)
rms_norm(device const float* x [[buffer(0)]],
         device const float* weight [[buffer(1)]],
         device float* out [[buffer(2)]],
         constant NormParams& p [[buffer(3)]],
         uint row [[threadgroup_position_in_grid]],
         uint sg [[simdgroup_index_in_threadgroup]],
         uint groups [[simdgroups_per_threadgroup]],
         uint lane [[thread_index_in_simdgroup]],
         uint tid [[thread_index_in_threadgroup]]) {
  threadgroup float s_sum[32];
  norm<false>(x, x, weight, out, out, p, s_sum, row, sg, groups, lane, tid);
}
KERNEL(1024)
add_rms_norm(device const float* x [[buffer(0)]],
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
  norm<true>(x, delta, weight, sum, out, p, s_sum, row, sg, groups, lane, tid);
}
