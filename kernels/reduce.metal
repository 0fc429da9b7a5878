// Merges the partitions of each (row, query head), rotates back once, adds the mean of V.
#include "columns.h"
#include "vectors.h"

struct ReduceParams {
  uint heads;
  uint group;
  uint parts;   // partitions in the state
  uint window;  // a row sees at most so many positions, itself included
  uint sinks;
  float norm;   // 1 / sqrt(D)
  float scale;  // of sink logits, to base 2
};

constant constexpr uint kReducers = 8;

// Threadgroup: a (row, query head). Simdgroup s adds partitions s, s + 8 .., whatever the batch.
template <int D, class T>
kernel void reduce(device const float* part_o [[buffer(0)]],
                   device const float2* part_ml [[buffer(1)]],
                   device const uint* positions [[buffer(2)]],
                   device const uint* rotation [[buffer(3)]],
                   device const float* value_means [[buffer(4)]],
                   device const float* sink_logits [[buffer(5)]],
                   device T* out [[buffer(6)]],
                   constant ReduceParams& p [[buffer(7)]],
                   uint item [[threadgroup_position_in_grid]],
                   uint sg [[simdgroup_index_in_threadgroup]],
                   uint lane [[thread_index_in_simdgroup]]) {
  constexpr uint E = (D + 31) / 32;
  threadgroup float s_x[kReducers * D], s_l[kReducers];
  const uint head = item % p.heads, end = positions[item / p.heads] + 1, parts = (end + kPartition - 1) / kPartition;
  const uint first = kWindowed && end > p.window ? end - p.window : 0u;
  device const float2* ml = part_ml + ulong(item) * p.parts;
  device const float* o = part_o + ulong(item) * p.parts * D;
  float top = kSinkLogits ? sink_logits[head] * p.scale : kStart;
  for (uint i = lane; i < parts; i += 32) {
    if (in_window(i, first, p.sinks)) top = max(top, ml[i].x);
  }
  top = simd_max(top);
  float x[E], l = 0.0f;
  for (uint e = 0; e < E; e++) x[e] = 0.0f;
  UNROLL_4 for (uint i = sg; i < parts; i += kReducers) {
    if (!in_window(i, first, p.sinks)) continue;
    const float f = fast::exp2(ml[i].x - top);
    l = fma(f, ml[i].y, l);
    UNROLL for (uint e = 0; e < E; e++) {
      if (e * 32 + lane < D) x[e] = fma(f, o[ulong(i) * D + e * 32 + lane], x[e]);
    }
  }
  for (uint e = 0; e < E; e++) {
    if (e * 32 + lane < D) s_x[sg * D + e * 32 + lane] = x[e];
  }
  if (lane == 0) s_l[sg] = l;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (sg != 0) return;
  for (uint w = 1; w < kReducers; w++) l += s_l[w];
  if (kSinkLogits) l += fast::exp2(sink_logits[head] * p.scale - top);
  const float inverse = l > 0.0f ? 1.0f / l : 0.0f;
  for (uint i = lane; i < D; i += 32) {
    float y = s_x[i];
    for (uint w = 1; w < kReducers; w++) y += s_x[w * D + i];
    s_x[i] = y * inverse;
  }
  simdgroup_barrier(mem_flags::mem_threadgroup);
  if (is_rotated(kValueFormat)) unrotate<D>(s_x, rotation, p.norm, lane);
  for (uint i = lane; i < D; i += 32) {
    const float y = kValuesCentred && l > 0.0f ? s_x[i] + value_means[head / p.group * D + i] : s_x[i];
    store_float(out + ulong(item) * D + i, y);
  }
}
#define REDUCE(D, T, NAME) template [[host_name("reduce_d" #D "_" NAME)]] [[kernel]] decltype(reduce<D, T>) reduce<D, T>;
#define REDUCE_ALL(D) REDUCE(D, float, "f32") REDUCE(D, half, "f16") REDUCE(D, Bf16, "bf16")
FOR_HEAD_DIMS(REDUCE_ALL)
