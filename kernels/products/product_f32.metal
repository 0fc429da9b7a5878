// Products with weights of f32, for small matrices whose errors would be large ones.
#include "common/basics.h"

struct ExactParams {
  uint n;  // rows of the weight
  uint rows;
  uint k;
  uint biased;
};

enum ExactSize : uint { kRowsAtOnce = 4 };  // rows of the weight that a threadgroup takes

// A lane sums every 32nd element, and the lanes' sums are added. Threadgroup: 4 rows of the weight, a simdgroup each,
// and 8 rows of x.
KERNEL(128)
product_f32(device const float* x [[buffer(0)]],
            device const float* weight [[buffer(1)]],
            device const float* bias [[buffer(2)]],
            device float* out [[buffer(3)]],
            constant ExactParams& p [[buffer(4)]],
            uint2 at [[threadgroup_position_in_grid]],
            uint sg [[simdgroup_index_in_threadgroup]],
            uint lane [[thread_index_in_simdgroup]]) {
  const uint row = at.x * kRowsAtOnce + sg;
  if (row >= p.n) return;
  device const float* w = weight + ulong(row) * p.k;
  float sum[8] = {};
  for (uint i = lane; i < p.k; i += 32) {
    const float of_w = w[i];
    UNROLL for (uint j = 0; j < 8; j++) {
      const ulong from = min(at.y * 8 + j, p.rows - 1);
      sum[j] = fma(of_w, x[from * p.k + i], sum[j]);
    }
  }
  UNROLL for (uint j = 0; j < 8; j++) {
    const float all = simd_sum(sum[j]);
    const uint column = at.y * 8 + j;
    if (lane == 0 && column < p.rows) out[ulong(column) * p.n + row] = all + (p.biased ? bias[row] : 0.0f);
  }
}
