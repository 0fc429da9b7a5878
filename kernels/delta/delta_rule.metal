// The recurrence of a gated delta net, and the gated norm of what it gives.
#include "delta/sequences.h"

struct DeltaParams {
  uint key_heads;
  uint group;         // value heads of a key head
  uint key_stride;    // of the number of a value head: from a key head to the next
  uint value_stride;  // and within the value heads of a key head
  uint value_dim;     // a multiple of 8
  uint kept;          // inputs of the convolution that the state holds
  uint state_len;     // floats of a slot
  float length;       // of queries
  float eps;
};

// Tokens whose rows are in threadgroup memory at once, the largest value_dim, and columns of a simdgroup.
enum DeltaSize : uint { kDeltaTokens = 16, kMostValues = 128, kSimdColumns = 8 };

// ln(1 + e^x), as max(x, 0) + ln(1 + u) with u = e^-|x|. With s = u / (2 + u), which is at most 1/3, the latter is
// 2 (s + s^3 / 3 + s^5 / 5 + ..); what follows s^13 is below 2^-25 of it.
INLINE float softplus(float x) {
  const float u = exp(-abs(x)), s = u / (2.0f + u), t = s * s;
  float sum = 1.0f / 13.0f;
  sum = fma(sum, t, 1.0f / 11.0f);
  sum = fma(sum, t, 1.0f / 9.0f);
  sum = fma(sum, t, 1.0f / 7.0f);
  sum = fma(sum, t, 1.0f / 5.0f);
  sum = fma(sum, t, 1.0f / 3.0f);
  sum = fma(sum, t, 1.0f);
  return max(x, 0.0f) + 2.0f * s * sum;
}
INLINE float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }

// The sum over the lanes of a simdgroup that have the same columns.
INLINE float2 key_sum(float2 x) {
  UNROLL for (ushort m = 4; m < 32; m *= 2) {
    x.x += simd_shuffle_xor(x.x, m);
    x.y += simd_shuffle_xor(x.y, m);
  }
  return x;
}

// Threadgroup: a value head of a sequence, for all of its tokens. The state S, [D][value_dim], stays in registers: a
// simdgroup has 8 columns of it. Of these, lane 4 g + c has columns 2 c and 2 c + 1, and keys 4 (8 i + g) + 0 .. 3. In
// memory, the float4 w of a lane has its keys 2 w and 2 w + 1, two columns each, and lanes follow each other.
//
// For a token, with k and q of length 1 and `length`: d = beta (v - keep S^T k), out = keep S^T q + d (q k),
// S = keep S + k d. No token's arithmetic depends on the tokens beside it.
//
// Beside the state, the slot keeps the last inputs of the convolution, which the first value head of a key head
// stores for q and k.
template <int D>
KERNEL(512)
delta_rule(device const float* x [[buffer(0)]],      // [rows][channels], before the convolution
           device const float* mixed [[buffer(1)]],  // after it
           device const float* z [[buffer(2)]],
           device const float* b [[buffer(3)]],
           device const float* a [[buffer(4)]],
           device const float2* decay [[buffer(5)]],  // exp(A_log) and dt_bias of each value head
           device const float* norm [[buffer(6)]],
           device const uint4* sequences [[buffer(7)]],
           device float* states [[buffer(8)]],
           device float* out [[buffer(9)]],
           constant DeltaParams& p [[buffer(10)]],
           uint3 at [[threadgroup_position_in_grid]],
           uint sg [[simdgroup_index_in_threadgroup]],
           uint simdgroups [[simdgroups_per_threadgroup]],
           uint lane [[thread_index_in_simdgroup]],
           uint tid [[thread_index_in_threadgroup]]) {
  constexpr uint kWords = D / 16;  // float4 of the state in a lane
  threadgroup float4 s_q[kDeltaTokens][D / 4], s_k[kDeltaTokens][D / 4];
  threadgroup float s_v[kDeltaTokens][kMostValues];  // v, then what the head gives
  // What multiplies the state before a token goes in, how much of the delta goes in, the product of q and k.
  threadgroup float s_keep[kDeltaTokens], s_beta[kDeltaTokens], s_qk[kDeltaTokens];
  const uint key_head = at.y, heads = p.key_heads * p.group, head = at.y * p.key_stride + at.x * p.value_stride;
  const uint keys = p.key_heads * D, values = heads * p.value_dim, channels = 2 * keys + values;
  const Sequence s = sequence_at(sequences, at.z);
  device float* inputs = states + ulong(s.slot) * p.state_len;
  device float4* memory = (device float4*)(inputs + ulong(p.kept) * channels + ulong(head) * D * p.value_dim);
  memory += sg * kWords * 32 + lane;
  const uint g = lane / 4, column = sg * kSimdColumns + lane % 4 * 2;
  float2 state[kWords][2];
  UNROLL for (uint w = 0; w < kWords; w++) {
    const float4 two = s.starts ? float4(0.0f) : memory[w * 32];
    state[w][0] = two.xy;
    state[w][1] = two.zw;
  }

  for (uint begin = 0; begin < s.rows; begin += kDeltaTokens) {
    const uint count = min(uint(kDeltaTokens), s.rows - begin);
    for (uint t = sg; t < count; t += simdgroups) {
      const ulong row = s.first + begin + t;
      device const float* of_row = mixed + row * channels;
      float q[D / 32], k[D / 32], qq = 0.0f, kk = 0.0f, qk = 0.0f;
      UNROLL for (uint i = 0; i < D / 32; i++) {
        q[i] = of_row[key_head * D + 32 * i + lane];
        k[i] = of_row[keys + key_head * D + 32 * i + lane];
        qq = fma(q[i], q[i], qq);
        kk = fma(k[i], k[i], kk);
        qk = fma(q[i], k[i], qk);
      }
      const float of_q = rsqrt(simd_sum(qq) + 1e-6f) * p.length, of_k = rsqrt(simd_sum(kk) + 1e-6f);
      qk = simd_sum(qk) * of_q * of_k;
      UNROLL for (uint i = 0; i < D / 32; i++) {
        ((threadgroup float*)s_q[t])[32 * i + lane] = q[i] * of_q;
        ((threadgroup float*)s_k[t])[32 * i + lane] = k[i] * of_k;
      }
      for (uint i = lane; i < p.value_dim; i += 32) s_v[t][i] = of_row[2 * keys + head * p.value_dim + i];
      if (lane == 0) {
        const ulong from = row * heads + head;
        s_keep[t] = exp(-decay[head].x * softplus(a[from] + decay[head].y));
        s_beta[t] = sigmoid(b[from]);
        s_qk[t] = qk;
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint t = 0; t < count; t++) {
      float4 k[kWords / 2];
      float2 of_k = float2(0.0f), of_q = float2(0.0f);
      UNROLL for (uint i = 0; i < kWords / 2; i++) {
        k[i] = s_k[t][8 * i + g];
        const float4 q = s_q[t][8 * i + g];
        UNROLL for (uint j = 0; j < 4; j++) {
          const float2 of_key = state[2 * i + j / 2][j % 2];
          of_k = fma(of_key, float2(k[i][j]), of_k);
          of_q = fma(of_key, float2(q[j]), of_q);
        }
      }
      of_k = key_sum(of_k);
      of_q = key_sum(of_q);
      const float keep = s_keep[t];
      const float2 v = float2(s_v[t][column], s_v[t][column + 1]);
      const float2 d = (v - keep * of_k) * s_beta[t];
      UNROLL for (uint i = 0; i < kWords / 2; i++) UNROLL for (uint j = 0; j < 4; j++) {
        const float2 of_key = state[2 * i + j / 2][j % 2];
        state[2 * i + j / 2][j % 2] = fma(float2(k[i][j]), d, keep * of_key);
      }
      simdgroup_barrier(mem_flags::mem_threadgroup);  // all lanes have read v
      if (g == 0) {
        const float2 y = fma(d, float2(s_qk[t]), keep * of_q);
        s_v[t][column] = y.x;
        s_v[t][column + 1] = y.y;
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint t = sg; t < count; t += simdgroups) {
      const ulong to = ulong(s.first + begin + t) * values + head * p.value_dim;
      float square = 0.0f;
      for (uint i = lane; i < p.value_dim; i += 32) square = fma(s_v[t][i], s_v[t][i], square);
      const float scale = rsqrt(simd_sum(square) / float(p.value_dim) + p.eps);
      for (uint i = lane; i < p.value_dim; i += 32) {
        out[to + i] = s_v[t][i] * scale * norm[i] * z[to + i] * sigmoid(z[to + i]);
      }
    }
  }

  UNROLL for (uint w = 0; w < kWords; w++) memory[w * 32] = float4(state[w][0], state[w][1]);
  const uint own = p.value_dim + (at.x == 0 ? 2 * D : 0);
  for (uint i = tid; i < own; i += simdgroups * 32) {
    const uint of_keys = i - p.value_dim;  // q's, then k's
    const uint channel =
        i < p.value_dim ? 2 * keys + head * p.value_dim + i : (of_keys < D ? 0 : keys - D) + key_head * D + of_keys;
    // Input s.rows + j lies behind place j, so it is read before something else is stored where it lies.
    for (uint j = 0; j < p.kept; j++) {
      inputs[ulong(j) * channels + channel] = input_at(x, inputs, s, p.kept, channels, channel, s.rows + j);
    }
  }
}

#define DELTA_RULE(D) template [[host_name("delta_rule_k" #D)]] [[kernel]] decltype(delta_rule<D>) delta_rule<D>;
DELTA_RULE(32)
DELTA_RULE(64)
DELTA_RULE(128)
