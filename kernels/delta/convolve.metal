// The causal convolution of a gated delta net.
#include "delta/sequences.h"

struct ConvolveParams {
  uint channels;
  uint kept;       // inputs that the state holds: one less than tokens that the convolution sees
  uint state_len;  // floats of a slot
};

// out = silu(sum of weight[i] and input i), the oldest input first. The state stays as it is. Threadgroup: 256 channels
// of a row.
KERNEL(256)
convolve(device const float* x [[buffer(0)]],
         device const float* weight [[buffer(1)]],
         device const uint* sequence_of_row [[buffer(2)]],
         device const uint4* sequences [[buffer(3)]],
         device const float* states [[buffer(4)]],
         device float* out [[buffer(5)]],
         constant ConvolveParams& p [[buffer(6)]],
         uint2 at [[threadgroup_position_in_grid]],
         uint tid [[thread_index_in_threadgroup]]) {
  const uint channel = at.x * 256 + tid, row = at.y;
  if (channel >= p.channels) return;
  const Sequence s = sequence_at(sequences, sequence_of_row[row]);
  device const float* state = states + ulong(s.slot) * p.state_len;
  float sum = 0.0f;
  UNROLL_4 for (uint i = 0; i <= p.kept; i++) {
    const float input = input_at(x, state, s, p.kept, p.channels, channel, row - s.first + i);
    sum = fma(weight[ulong(i) * p.channels + channel], input, sum);
  }
  out[ulong(row) * p.channels + channel] = sum / (1.0f + exp(-sum));
}
