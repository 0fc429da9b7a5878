// Decode attention with matrix products (docs/kernels.md): one threadgroup a (kv head, tile, partition). A simdgroup
// takes every fourth iteration of 8 U tokens; the four states are merged in order, as `prefill` merges them.
#include "attend/mean_correction.h"
#include "attend/softmax.h"
#include "attend/stream.h"

// A lane's `powers_of`, read: where they are made nvcc has look-ups wait for loads (docs/kernels.md).
struct StoredPowers {
  threadgroup const uint2* at;
  INLINE uint2 of(uint tile) const { return at[tile / 2 * 32]; }
};

// A thread's part of what the logits of C column octets lack in a partition, on its way to threadgroup memory.
template <int U, int C>
struct FetchCorrections {
  static constant constexpr int kThreads = 32 * kSimdgroups, kIntervals = kPartition / kInterval;
  struct Memory {
    Corrections<U, C, C * kIntervals> corrections;
    uint2 powers[2 * 32];  // [two tiles of 32 tokens][place]
  };
  FetchShared<U, kThreads> shared;
  Fetch<float4, 32, kThreads> amplitudes[C];
  Fetch<uint2, kIntervals * kQuadratic / 2, kThreads> terms[C];
  INLINE void load_shared(device const uint4* operands, device const float2* angles, uint tid) {
    shared.load(operands, angles, tid);
  }
  // record: of the first octet, `stride` from the next one's.
  INLINE void load_own(device const float* record, ulong stride, uint tid) {
    UNROLL for (int b = 0; b < C; b++) {
      device const float* from = record + b * stride;
      amplitudes[b].load((device const float4*)from, tid);
      terms[b].load((device const uint2*)(from + kHighFloats), tid);
    }
  }
  INLINE void store(threadgroup Memory& to, uint tid, Place l) const {
    shared.store(to.corrections, tid);
    if (tid < 64) to.powers[tid / 32 * 32 + l.r * 4 + l.c] = powers_of(tid / 32 * 2, l);
    UNROLL for (int b = 0; b < C; b++) {
      amplitudes[b].store(to.corrections.amplitudes[b], tid);
      terms[b].store(to.corrections.terms + b * (kIntervals * kQuadratic / 2), tid);
    }
  }
};

// queries, corrections: of `query`. tables: block numbers. high_operands: [kv head][2 pairs of tiles][high, low
// parts][place] cos in both tiles, sin in both, of the high-frequency pairs at the tiles' tokens; high_angles: [kv
// head][64 multiples of 8 tokens, then 0 to 7 tokens][8] (cos, sin).
template <int D, int C, int U>
KERNEL(128)
attend_mma(device const uint* queries [[buffer(0)]],
           device const Tile* tiles [[buffer(1)]],
           device const uint* tables [[buffer(2)]],
           device const uchar* cache [[buffer(3)]],
           device const float* corrections [[buffer(4)]],
           device const uint* high_operands [[buffer(5)]],
           device const float2* high_angles [[buffer(6)]],
           device float* part_o [[buffer(7)]],
           device float2* part_ml [[buffer(8)]],
           constant AttendParams& p [[buffer(9)]],
           uint3 tg [[threadgroup_position_in_grid]],
           uint sg [[simdgroup_index_in_threadgroup]],
           uint lane [[thread_index_in_simdgroup]],
           uint tid [[thread_index_in_threadgroup]]) {
  constexpr int J = D / 8;
  constexpr uint kMerged = D <= 128 ? 8 : D == 256 ? 4 : 2;  // columns whose states fit threadgroup memory
  threadgroup half s_index[kSimdgroups * 64];
  threadgroup float4 s_acc[kSimdgroups * kMerged * Merge<D, kMerged>::kRow / 4];
  threadgroup float s_m[kSimdgroups * 8], s_l[kSimdgroups * 8];
  threadgroup uint s_to[C * 8];
  const uint head = tg.x, part = p.first + tg.z, start = part * kPartition, iteration = 8 * U;
  const Tile tile = load_tile(tiles, tg.y);
  // What does not depend on the tile is asked for before it is there; `slices.rs` launches few threadgroups in vain.
  const Place l = find_place(s_index + sg * 64, lane);
  const uint index = (tg.y * kKvHeads + head) * p.octets;
  const bool fitted = keys_fitted();
  typedef FetchCorrections<U, C> Fetched;
  Fetched fetched;
  if (fitted)
    fetched.load_shared((device const uint4*)(high_operands + head * 512), high_angles + head * kAnglesOfHead, tid);
  Columns<D> x[C];
  UNROLL for (int b = 0; b < C; b++) {
    x[b].clear();
    x[b].load(queries + ulong(index + b) * (4 * D), l);
  }
  if (!sees(tile, part)) return;
  const uint end = min(start + kPartition, tile.position + tile.rows), first = start + sg * iteration;
  Stream<D, U> stream;
  stream.open(cache, tables + tile.table, kKvHeads, head, end);
  if (first < end) stream.seek(first);  // whose answer what follows does not wait for
  if (tid < C * 8) s_to[tid] = state_of(tile, tid, head, part, p);
  // What logits lack lies in threadgroup memory until states are merged there.
  typedef typename Fetched::Memory InMemory;
  static_assert(sizeof(InMemory) <= sizeof(s_acc), "room for what logits lack");
  threadgroup InMemory& correction = *(threadgroup InMemory*)s_acc;
  device const float* record = corrections + (ulong(index) * p.partitions + part) * p.correction_stride;
  const ulong stride = ulong(p.partitions) * p.correction_stride;
  if (fitted) fetched.load_own(record, stride, tid);
  Words<D> k[U], v[U];
  if (first < end) stream.keys(k, l);
  const uint value_table = table_of(kValueFormat, lane);
  const uint magic = 0x64006400u | p.octets >> 31;  // in a register: and-or with two literals is two instructions
  const float unit = p.scale * unit_of(kKeyFormat);
  if (fitted) {
    fetched.store(correction, tid, l);
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  StoredPowers powers;
  powers.at = correction.powers + (l.r * 4 + l.c);
  float ks[U];
  receive<D, U>(k, ks, unit, l);
  if (first < end) stream.values(v, first + kSimdgroups * iteration, l);

  for (uint base = first; base < end; base += kSimdgroups * iteration) {
    simdgroup_float8x8 s[C][U];
    UNROLL for (int b = 0; b < C; b++) UNROLL for (int u = 0; u < U; u++) s[b][u] =
        make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    UNROLL for (int u = 0; u < U; u += 2) UNROLL for (int j = 0; j < J; j += 2) {
      const simdgroup_half8x8 a0 = tile_of(key_pair<D>(k[u], j, magic)), c0 = tile_of(key_pair<D>(k[u + 1], j, magic));
      const simdgroup_half8x8 a1 = tile_of(key_pair<D>(k[u], j + 1, magic)),
                              c1 = tile_of(key_pair<D>(k[u + 1], j + 1, magic));
      UNROLL for (int b = 0; b < C; b++) mma_2x2(s[b][u], s[b][u + 1], a0, c0, x[b].q[j], a1, c1, x[b].q[j + 1]);
    }
    const bool more = base + kSimdgroups * iteration < end;
    float vs[U];
    receive_scales<D, U>(v, vs);
    UNROLL for (int b = 0; b < C; b++) {
      x[b].template scale<U>(s[b], ks);
      if (fitted)
        add_corrections(s[b], correction.corrections, powers, b, b * Fetched::kIntervals + (base - start) / kInterval,
                        base - start, l);
      if (keys_exact())
        add_exact<U>(s[b], record + b * stride, high_operands, high_angles, p.pair_groups, (base - start) / 8, l);
      if (kKeysCentred && base == 0) add_first(s[b][0], first_numbers(record + b * stride, p.correction_stride), l);
    }
    if (more) stream.keys(k, l);
    simdgroup_half8x8 w[C][U];
    weigh_octets<U>(x, s, vs, tile, 0, base, p, l, w);
    // Tiles in the outer loop, so that what a trellis code needs beside its words is kept for two of them at a time.
    UNROLL for (int u = 0; u < U; u += 2) UNROLL for (int j = 0; j < J; j += 2) {
      if (j == 0) {
        spread<D>(v[u], true, l);
        spread<D>(v[u + 1], true, l);
      }
      const simdgroup_half8x8 a0 = tile_of(value_pair<D>(v[u], j, value_table, magic)),
                              c0 = tile_of(value_pair<D>(v[u], j + 1, value_table, magic));
      const simdgroup_half8x8 a1 = tile_of(value_pair<D>(v[u + 1], j, value_table, magic)),
                              c1 = tile_of(value_pair<D>(v[u + 1], j + 1, value_table, magic));
      UNROLL for (int b = 0; b < C; b++) mma_2x2(x[b].acc[j], x[b].acc[j + 1], a0, c0, w[b][u], a1, c1, w[b][u + 1]);
    }
    receive<D, U>(k, ks, unit, l);
    if (more) stream.values(v, base + 2 * kSimdgroups * iteration, l);
  }

  if (fitted) threadgroup_barrier(mem_flags::mem_threadgroup);
  Merge<D, kMerged> merge;
  merge.acc = (threadgroup float*)s_acc;
  merge.m = s_m;
  merge.l = s_l;
  merge.to = s_to;
  UNROLL for (int b = 0; b < C; b++) {
    const float2 sum = float2(row_sum(x[b].sum.x, l), row_sum(x[b].sum.y, l)), back = x[b].back();
    for (uint n0 = 0; n0 < 8; n0 += kMerged) {
      if (b > 0 || n0 > 0) threadgroup_barrier(mem_flags::mem_threadgroup);
      UNROLL for (uint i = 0; i < 2; i++) {
        const uint n = 2 * l.c + i - n0;
        if (n < kMerged) {
          float z[J];
          UNROLL for (int j = 0; j < J; j++) z[j] = elements(x[b].acc[j])[i] * back[i];
          store_dims<D>(merge.row(sg, n), z, l.r);
          if (l.r == 0) {
            s_m[sg * 8 + n] = x[b].m[i];
            s_l[sg * 8 + n] = sum[i];
          }
        }
      }
      merge.write(b * 8 + n0, part_o, part_ml, tid);
    }
  }
}
// U, the tiles of 8 tokens that a simdgroup has in flight: as many as registers allow.
#define MMA(D, C, U) \
  template           \
      [[host_name("attend_mma_d" #D "_c" #C "_u" #U)]] [[kernel]] decltype(attend_mma<D, C, U>) attend_mma<D, C, U>;
#define MMA_2(D) MMA(D, 1, 2) MMA(D, 2, 2)
#define MMA_4(D) MMA(D, 1, 4) MMA(D, 2, 4)
FOR_HEAD_DIMS(MMA_2)
FOR_SMALL_HEAD_DIMS(MMA_4)
