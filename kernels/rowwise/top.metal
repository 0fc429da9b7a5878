// The largest logits of each row.
#include "common/order.h"

struct TopParams {
  uint width;  // candidates of a row
  uint count;  // wanted
  uint slice;  // candidates of a threadgroup: at most 16 a thread
};

constant constexpr uint kPerThread = 16;

// The `count` largest of each slice of a row, in order. Threadgroup (slice, row). A second launch over the slices'
// winners, whose indices are then `from`, gives those of the row. NaN counts as the lowest value.
template <bool First>
INLINE void largest(device const float* values,
                    device const uint* from,
                    device float* top,
                    device uint* index,
                    constant TopParams& p,
                    threadgroup float* s_value,
                    threadgroup uint* s_index,
                    uint2 tg,
                    uint slices,
                    uint sg,
                    uint groups,
                    uint lane,
                    uint tid) {
  float x[kPerThread];
  uint at[kPerThread];
  const uint threads = groups * 32, begin = tg.x * p.slice, end = min(begin + p.slice, p.width);
  for (uint k = 0; k < kPerThread; k++) {
    const uint i = begin + k * threads + tid;
    const bool live = i < end;
    x[k] = live ? ordered(values[ulong(tg.y) * p.width + i]) : kNone;
    at[k] = live ? First ? i : from[ulong(tg.y) * p.width + i] : kNowhere;
  }
  for (uint n = 0; n < p.count; n++) {
    Candidate best = {kNone, kNowhere};
    for (uint k = 0; k < kPerThread; k++) {
      if (beats(x[k], at[k], best.value, best.index)) best = {x[k], at[k]};
    }
    best = largest_of_lanes(best);
    if (lane == 0) {
      s_value[sg] = best.value;
      s_index[sg] = best.index;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint g = 0; g < groups; g++) {
      if (beats(s_value[g], s_index[g], best.value, best.index)) best = {s_value[g], s_index[g]};
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint k = 0; k < kPerThread; k++) {
      if (at[k] == best.index) {
        x[k] = kNone;
        at[k] = kNowhere;
      }
    }
    if (tid == 0) {
      const ulong to = (ulong(tg.y) * slices + tg.x) * p.count + n;
      top[to] = best.value;
      index[to] = best.index;
    }
  }
}
KERNEL(256)
top_slices(device const float* logits [[buffer(0)]],
           device float* top [[buffer(1)]],
           device uint* index [[buffer(2)]],
           constant TopParams& p [[buffer(3)]],
           uint2 tg [[threadgroup_position_in_grid]],
           uint2 grid [[threadgroups_per_grid]],
           uint sg [[simdgroup_index_in_threadgroup]],
           uint groups [[simdgroups_per_threadgroup]],
           uint lane [[thread_index_in_simdgroup]],
           uint tid [[thread_index_in_threadgroup]]) {
  threadgroup float s_value[32];
  threadgroup uint s_index[32];
  largest<true>(logits, (device const uint*)logits, top, index, p, s_value, s_index, tg, grid.x, sg, groups, lane, tid);
}
KERNEL(256)
top_rows(device const float* values [[buffer(0)]],
         device const uint* from [[buffer(1)]],
         device float* top [[buffer(2)]],
         device uint* index [[buffer(3)]],
         constant TopParams& p [[buffer(4)]],
         uint2 tg [[threadgroup_position_in_grid]],
         uint2 grid [[threadgroups_per_grid]],
         uint sg [[simdgroup_index_in_threadgroup]],
         uint groups [[simdgroups_per_threadgroup]],
         uint lane [[thread_index_in_simdgroup]],
         uint tid [[thread_index_in_threadgroup]]) {
  threadgroup float s_value[32];
  threadgroup uint s_index[32];
  largest<false>(values, from, top, index, p, s_value, s_index, tg, grid.x, sg, groups, lane, tid);
}
