// Merges the partitions of each item, a row's query head, and unrotates the result once.
#include "attend/columns.h"
#include "common/vectors.h"

struct ReduceParams {
  uint items;                   // query heads of all rows
  uint partitions;              // of each item, for which the partial states have room
  uint window;                  // a row sees at most so many positions, itself included
  uint one_simdgroup_per_item;  // whether a simdgroup merges an item alone, or all of a threadgroup one
  float norm;                   // 1 / sqrt(D)
};

// The partitions of an item are added in this many sums, each in order: sum w takes partitions w, w + 8, and so on. One
// simdgroup makes all of them, or eight simdgroups make one each; the bits are the same.
constant constexpr uint kReducers = 8;

template <int D>
struct Reduction {
  // A lane has E elements, in pieces of kPiece side by side.
  static constant constexpr uint E = (D + 31) / 32, kPiece = D % 128 == 0 ? 4 : D % 64 == 0 ? 2 : 1;
  static INLINE uint dim(uint e, uint lane) { return (e / kPiece * 32 + lane) * kPiece + e % kPiece; }
  uint parts, first;
  device const float2* ml;
  device const float* o;
  float top;

  INLINE bool sees(uint to) const { return in_window(to, first); }
  INLINE void open(device const float* part_o,
                   device const float2* part_ml,
                   device const uint* positions,
                   constant ReduceParams& p,
                   uint item,
                   uint lane) {
    const uint end = positions[item / (kKvHeads * kGqaGroup)] + 1;
    parts = (end + kPartition - 1) / kPartition;
    first = kWindowed && end > p.window ? end - p.window : 0u;
    ml = part_ml + ulong(item) * p.partitions;
    o = part_o + ulong(item) * p.partitions * D;
    top = kStart;
    UNROLL_4 for (uint i = lane; i < parts; i += 32) top = max(top, sees(i + 1) ? ml[i].x : top);
    top = simd_max(top);
  }
  // The partial state of one partition: `ml` is its largest logit and its sum of weights, `o` a lane's share of its
  // weighted values. For a partition that is not there, or that the row does not see, the last one's are loaded, and
  // count nothing.
  struct Part {
    float2 ml;
    float o[E];
  };
  INLINE void load(thread Part& part, uint i, uint lane) const {
    const bool live = i < parts && sees(i + 1);
    const uint at = live ? i : parts - 1;
    const float2 x = ml[at];
    part.ml = float2(live ? x.x : kNone, x.y);
    device const float* from = o + ulong(at) * D;
    UNROLL for (uint e = 0; e < E; e += kPiece) {
      if (kPiece == 4) {
        const float4 y = ((device const float4*)from)[e / 4 * 32 + lane];
        UNROLL for (uint k = 0; k < 4; k++) part.o[e + k] = y[k];
      } else if (kPiece == 2) {
        const float2 y = ((device const float2*)from)[lane];
        part.o[0] = y.x;
        part.o[1] = y.y;
      } else {
        part.o[e] = dim(e, lane) < D ? from[dim(e, lane)] : 0.0f;
      }
    }
  }
  INLINE void add(thread float* x, thread float& l, thread const Part& part) const {
    const float f = fast::exp2(part.ml.x - top);
    l = fma(f, part.ml.y, l);
    UNROLL for (uint e = 0; e < E; e++) x[e] = fma(f, part.o[e], x[e]);
  }
  INLINE void put(threadgroup float* to, thread const float* x, uint lane) const {
    UNROLL for (uint e = 0; e < E; e++) {
      if (dim(e, lane) < D) to[dim(e, lane)] = x[e];
    }
  }
  // x: the sum of all sums, in threadgroup memory.
  INLINE void close(threadgroup float* x,
                    float l,
                    device const uint* rotation,
                    device float* out,
                    constant ReduceParams& p,
                    uint item,
                    uint lane) const {
    const float inverse = l > 0.0f ? 1.0f / l : 0.0f;
    for (uint i = lane; i < D; i += 32) x[i] *= inverse;
    simdgroup_barrier(mem_flags::mem_threadgroup);
    if (is_rotated(kValueFormat)) unrotate<D>(x, rotation, p.norm, lane);
    for (uint i = lane; i < D; i += 32) out[ulong(item) * D + i] = x[i];
  }
};

// a + b. By fma with a 1 that the compiler does not know (n is below 2^31), since fast math may order additions
// otherwise in one place than in another.
INLINE float in_order(float a, float b, uint n) { return fma(as_type<float>(0x3f800000u | n >> 31), b, a); }

template <int D>
KERNEL(256)
reduce(device const float* part_o [[buffer(0)]],
       device const float2* part_ml [[buffer(1)]],
       device const uint* positions [[buffer(2)]],
       device const uint* rotation [[buffer(3)]],
       device float* out [[buffer(4)]],
       constant ReduceParams& p [[buffer(5)]],
       uint tg [[threadgroup_position_in_grid]],
       uint sg [[simdgroup_index_in_threadgroup]],
       uint lane [[thread_index_in_simdgroup]]) {
  constexpr uint E = Reduction<D>::E;
  threadgroup float s_x[kReducers * D], s_l[kReducers];
  const bool alone = D <= 128 && p.one_simdgroup_per_item;  // of larger heads registers do not hold all sums
  const uint item = alone ? tg * kReducers + sg : tg;
  if (item >= p.items) return;
  Reduction<D> reduction;
  reduction.open(part_o, part_ml, positions, p, item, lane);
  typedef typename Reduction<D>::Part Part;
  if (alone) {
    float x[kReducers][E], l[kReducers];
    UNROLL for (uint w = 0; w < kReducers; w++) {
      l[w] = 0.0f;
      UNROLL for (uint e = 0; e < E; e++) x[w][e] = 0.0f;
    }
    for (uint i = 0; i < reduction.parts; i += kReducers) {
      if (!reduction.sees(i + kReducers)) continue;
      Part part[kReducers];
      UNROLL for (uint w = 0; w < kReducers; w++) reduction.load(part[w], i + w, lane);
      UNROLL for (uint w = 0; w < kReducers; w++) reduction.add(x[w], l[w], part[w]);
    }
    UNROLL for (uint w = 1; w < kReducers; w++) {
      l[0] = in_order(l[0], l[w], p.items);
      UNROLL for (uint e = 0; e < E; e++) x[0][e] = in_order(x[0][e], x[w][e], p.items);
    }
    reduction.put(s_x + sg * D, x[0], lane);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    reduction.close(s_x + sg * D, l[0], rotation, out, p, item, lane);
    return;
  }
  float x[E], l = 0.0f;
  UNROLL for (uint e = 0; e < E; e++) x[e] = 0.0f;
  constexpr uint kAhead = D > 256 ? 2 : 8;  // asked for at once
  for (uint i = sg; i < reduction.parts; i += kAhead * kReducers) {
    if (!reduction.sees(i + kAhead * kReducers)) continue;
    Part part[kAhead];
    UNROLL for (uint k = 0; k < kAhead; k++) reduction.load(part[k], i + k * kReducers, lane);
    UNROLL for (uint k = 0; k < kAhead; k++) reduction.add(x, l, part[k]);
  }
  reduction.put(s_x + sg * D, x, lane);
  if (lane == 0) s_l[sg] = l;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (sg != 0) return;
  for (uint w = 1; w < kReducers; w++) l = in_order(l, s_l[w], p.items);
  for (uint i = lane; i < D; i += 32) {
    for (uint w = 1; w < kReducers; w++) s_x[i] = in_order(s_x[i], s_x[w * D + i], p.items);
  }
  reduction.close(s_x, l, rotation, out, p, item, lane);
}
#define REDUCE(D) template [[host_name("reduce_d" #D)]] [[kernel]] decltype(reduce<D>) reduce<D>;
FOR_HEAD_DIMS(REDUCE)
