// Decode attention without matrix products, for single rows of at most 4 query heads a kv head: fewer operations where
// simdgroup_matrix runs on the ALUs. Lane (r, c) = (lane / 4, lane % 4) computes partial scores of token r for all
// heads over its quarter of the dims, keeps the score of head c, and holds D / 8 dims of 2 tokens of V for all heads.
#include "attend/mean_correction.h"
#include "attend/stream.h"

constant constexpr int kHeads = 4;

// The mean correction of a partition, in threadgroup memory until partial states are merged there: (cos, sin) of the 8
// high-frequency pairs at multiples of 8 tokens, quadratics, [32 tokens][1, v, v^2][column], and the high-frequency
// pairs' amplitudes.
struct CorrectionHeads {
  float4 angles[kHighAngles * 8 / 2];
  float4 quadratics[kPartition / kInterval * kQuadratic / 4];
  float4 amplitudes[32];  // [pair][columns 2c, 2c + 1]: A of both, then B
};
// A thread's part of it. from: angles of the kv head.
struct FetchHeads {
  static constant constexpr int kThreads = 32 * kSimdgroups;
  Fetch<float4, kHighAngles * 4, kThreads> angles;
  Fetch<float4, 32, kThreads> amplitudes;
  Fetch<float4, kPartition / kInterval * kQuadratic / 4, kThreads> quadratics;
  INLINE void load(device const float2* from, device const float* record, uint tid) {
    angles.load((device const float4*)from, tid);
    amplitudes.load((device const float4*)record, tid);
    quadratics.load((device const float4*)(record + kHighFloats), tid);
  }
  INLINE void store(threadgroup CorrectionHeads& to, uint tid) const {
    angles.store(to.angles, tid);
    amplitudes.store(to.amplitudes, tid);
    quadratics.store(to.quadratics, tid);
  }
};

// The high-frequency pairs at the first token of tile u of an iteration, for every lane: [u][head][8 pairs and padding
// against bank conflicts]. A lane turns pair r of head c; offset: tiles from the partition's start.
enum Turned : uint { kTurnedHead = 10, kTurnedTile = 4 * kTurnedHead };
template <int U>
INLINE void turn_pairs(
    threadgroup float2* turned, threadgroup const CorrectionHeads& correction, uint offset, uint r, uint c) {
  threadgroup const float* amplitudes = (threadgroup const float*)correction.amplitudes + (r * 4 + c / 2) * 4 + c % 2;
  const float a = amplitudes[0], b = amplitudes[2];
  UNROLL for (uint u = 0; u < U; u++) {
    const float2 by = ((threadgroup const float2*)correction.angles)[(offset + u) * 8 + r];
    turned[u * kTurnedTile + c * kTurnedHead + r] = float2(a * by.x + b * by.y, b * by.x - a * by.y);
  }
}
// The correction of the logit of token r of 8 tokens, for one head. turned: the pairs at its first token; at: (cos,
// sin) of pairs 2 i and 2 i + 1 at r tokens; v: the token's.
INLINE float correction_of(threadgroup const float2* turned, threadgroup const float4* at, float3 quadratic, float v) {
  float sum = fma(fma(quadratic.z, v, quadratic.y), v, quadratic.x);
  UNROLL for (uint i = 0; i < 4; i++) {
    const float4 x = ((threadgroup const float4*)turned)[i], f = at[i];
    sum = fma(x.x, f.x, fma(x.y, f.y, fma(x.z, f.z, fma(x.w, f.w, sum))));
  }
  return sum;
}

// The sums over lanes 4 r .. 4 r + 3 of what they hold for each head; lane c gets head c's.
INLINE float sum_of_head(float x0, float x1, float x2, float x3, uint c) {
  const float a = (c & 1 ? x1 : x0) + simd_shuffle_xor(c & 1 ? x0 : x1, 1);
  const float b = (c & 1 ? x3 : x2) + simd_shuffle_xor(c & 1 ? x2 : x3, 1);
  return (c & 2 ? b : a) + simd_shuffle_xor(c & 2 ? a : b, 2);
}

template <int D, int U>
KERNEL(128)
attend_vec(device const uint* queries [[buffer(0)]],
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
  constexpr int J = D / 8, G = kHeads;
  constexpr uint kMerged = D <= 256 ? 4 : 2;  // columns whose states fit threadgroup memory
  threadgroup float4 s_q[D];
  constexpr uint kStates = kSimdgroups * kMerged * Merge<D, kMerged>::kRow / 4,
                 kCorrected = sizeof(CorrectionHeads) / 16;
  threadgroup float4 s_acc[kStates > kCorrected ? kStates : kCorrected];
  threadgroup float s_m[kSimdgroups * 8], s_l[kSimdgroups * 8];
  threadgroup uint s_to[kHeads];
  threadgroup float4 s_turned[kSimdgroups * U * kTurnedTile / 2], s_at[8 * kTurnedHead / 2];
  const uint head = tg.x, part = p.first + tg.z, start = part * kPartition, iteration = 8 * U;
  const Tile tile = load_tile(tiles, tg.y);
  if (!sees(tile, part)) return;
  const uint end = min(start + kPartition, tile.position + 1), first = start + sg * iteration;
  const uint from = kWindowed && end > 0 && tile.position + 1 > p.window ? tile.position + 1 - p.window : 0u;
  Place l;
  l.r = lane / 4;
  l.c = lane % 4;
  l.m0 = 4;
  l.m1 = 8;
  l.m2 = 16;
  l.column_before = ushort((lane & 28u) | ((lane + 3) & 3u));
  l.row_before = ushort((lane + 28) % 32);
  Stream<D, U> stream;
  stream.open(cache, tables + tile.table, kKvHeads, head, end);
  if (first < end) stream.seek(first);  // whose answer what follows does not wait for
  if (tid < uint(kHeads)) s_to[tid] = state_of(tile, tid, head, part, p);
  Words<D> k[U], v[U];
  if (first < end) {
    stream.keys(k, l);
    stream.values(v, first + kSimdgroups * iteration, l);
  }
  const uint index = tg.y * kKvHeads + head;
  device const float* record = corrections + (ulong(index) * p.partitions + part) * p.correction_stride;
  threadgroup float2* turned = (threadgroup float2*)s_turned + sg * (U * kTurnedTile);
  device const float2* angles = high_angles + head * kAnglesOfHead;
  const bool fitted = keys_fitted();
  threadgroup float2* at = (threadgroup float2*)s_at;
  threadgroup CorrectionHeads& correction = *(threadgroup CorrectionHeads*)s_acc;
  FetchHeads fetched;
  if (fitted) {
    fetched.load(angles, record, tid);
    if (tid < 64) at[tid / 8 * kTurnedHead + tid % 8] = angles[kHighAngles * 8 + tid];
  }
  UNROLL for (uint i0 = 0; i0 < D; i0 += 32 * kSimdgroups) {  // element e of lane c's j-th pair lies at j 8 + e 4 + c
    const uint i = i0 + tid, j = i / 8, row = i % 4 * 2 + i / 4 % 2;
    if (i < D) {
      device const uint* q = queries + ulong(index) * (8 * D) + row * 4 * J + j;
      const float2 a = float2(as_type<half2>(q[0])) + float2(as_type<half2>(q[4 * D]));
      const float2 b = float2(as_type<half2>(q[J])) + float2(as_type<half2>(q[4 * D + J]));
      s_q[i] = float4(a.x, a.y, b.x, b.y);
    }
  }
  if (fitted) fetched.store(correction, tid);
  const uint value_table = table_of(kValueFormat, lane);
  const uint magic = 0x64006400u | p.octets >> 31;  // in a register: and-or with two literals is two instructions
  const float unit = p.scale * unit_of(kKeyFormat);
  float acc[G][J], m = kStart, sum = 0.0f;
  UNROLL for (int g = 0; g < G; g++) UNROLL for (int j = 0; j < J; j++) acc[g][j] = 0.0f;
  threadgroup_barrier(mem_flags::mem_threadgroup);

  float ks[U];
  receive<D, U>(k, ks, unit, l);

  for (uint base = first; base < end; base += kSimdgroups * iteration) {
    const uint offset = (base - start) / 8;
    if (fitted) simdgroup_barrier(mem_flags::mem_threadgroup);  // the iteration before has read `turned`
    float s[U][G];
    UNROLL for (int u = 0; u < U; u++) UNROLL for (int g = 0; g < G; g++) s[u][g] = 0.0f;
    UNROLL for (int j = 0; j < J; j++) {
      const float4 qa = s_q[j * 8 + l.c], qb = s_q[j * 8 + 4 + l.c];
      UNROLL for (int u = 0; u < U; u++) {
        const float2 x = key_floats<D>(k[u], j, magic);
        UNROLL for (int g = 0; g < G; g++) s[u][g] = fma(qb[g], x.y, fma(qa[g], x.x, s[u][g]));
      }
    }
    const bool more = base + kSimdgroups * iteration < end;
    float vs[U];
    receive_scales<D, U>(v, vs);
    if (more) stream.keys(k, l);
    float3 quadratic = float3(0.0f);
    if (fitted) {
      turn_pairs<U>(turned, correction, offset, l.r, l.c);
      simdgroup_barrier(mem_flags::mem_threadgroup);
      threadgroup const float* from = (threadgroup const float*)correction.quadratics + offset / 4 * kQuadratic + l.c;
      quadratic = float3(from[0], from[8], from[16]);
    }
    float e[U], top = m;
    UNROLL for (int u = 0; u < U; u++) {
      const uint t = base + 8 * u + l.r;
      float x = sum_of_head(s[u][0], s[u][1], s[u][2], s[u][3], l.c) * ks[u];
      if (keys_exact()) x += exact_correction(record, high_angles, p.pair_groups, offset + u, l.r, l.c);
      if (fitted) {
        x += correction_of(turned + u * kTurnedTile + l.c * kTurnedHead,
                           (threadgroup const float4*)(at + l.r * kTurnedHead), quadratic,
                           v_of(offset % 4 * 8 + 8 * u + l.r));
      }
      if (kKeysCentred && t == 0) x += first_numbers(record, p.correction_stride)[l.c];
      e[u] = t < end && (!kWindowed || t >= from) ? x : kNone;
      top = max(top, e[u]);
    }
    if (simd_any(top > m + kGrowth)) {
      top = row_max(top, l);
      top = top > m + kGrowth ? top : m;
      const float f = fast::exp2(m - top);
      m = top;
      sum *= f;
      UNROLL for (int g = 0; g < G; g++) {
        const float fg = simd_shuffle(f, ushort(g));
        UNROLL for (int j = 0; j < J; j++) acc[g][j] *= fg;
      }
    }
    UNROLL for (int u = 0; u < U; u++) {
      float w = fast::exp2(e[u] - m);
      sum += w;
      if (is_scaled(kValueFormat)) w = w > 0.0f ? w * vs[u] : 0.0f;  // a slot never written has any scale
      float w0[G], w1[G];
      UNROLL for (int g = 0; g < G; g++) {
        w0[g] = simd_shuffle(w, ushort(l.c * 8 + g));
        w1[g] = simd_shuffle(w, ushort(l.c * 8 + 4 + g));
      }
      spread<D>(v[u], true, l);
      UNROLL for (int j = 0; j < J; j++) {
        const float2 x = value_floats<D>(v[u], j, value_table, magic);
        UNROLL for (int g = 0; g < G; g++) acc[g][j] = fma(w1[g], x.y, fma(w0[g], x.x, acc[g][j]));
      }
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
  sum = row_sum(sum, l);
  float z[J];
  UNROLL for (int j = 0; j < J; j++) z[j] =
      sum_of_head(acc[0][j], acc[1][j], acc[2][j], acc[3][j], l.c) * unit_of(kValueFormat);
  for (uint n0 = 0; n0 < kHeads; n0 += kMerged) {
    if (n0 > 0) threadgroup_barrier(mem_flags::mem_threadgroup);
    if (l.c - n0 < kMerged) {
      store_dims<D>(merge.row(sg, l.c - n0), z, l.r);
      if (l.r == 0) {
        s_m[sg * 8 + l.c - n0] = m;
        s_l[sg * 8 + l.c - n0] = sum;
      }
    }
    merge.write(n0, part_o, part_ml, tid);
  }
}
#define VEC(D, U) \
  template [[host_name("attend_vec_d" #D "_u" #U)]] [[kernel]] decltype(attend_vec<D, U>) attend_vec<D, U>;
#define VEC_2(D) VEC(D, 2)
#define VEC_4(D) VEC(D, 4)
FOR_HEAD_DIMS(VEC_2)
FOR_SMALL_HEAD_DIMS(VEC_4)
