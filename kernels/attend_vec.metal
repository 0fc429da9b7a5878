// Decode attention without matrix products, for single rows of at most 4 query heads a kv head: fewer operations where simdgroup_matrix
// runs on the ALUs. Lane (r, c) = (lane / 4, lane % 4) computes partial scores of token r for all heads over its quarter of the dims,
// keeps the score of head c, and holds D / 8 dims of 2 tokens of V for all heads.
#include "exact.h"
#include "stream.h"

constant constexpr int kHeads = 4;

// Of the fast pairs: lane (pair r, head c) holds A and B at the first token of a step.
struct Following {
  float a, b;
};
inline Following following(device const float* record, uint r, uint c) {
  Following x;
  device const float* from = record + (r * 4 + c / 2) * 4 + c % 2;
  x.a = from[0];
  x.b = from[2];
  return x;
}

// What the logit of token 8 u + r of a step lacks, for head c. `turns`: of the pairs at multiples of 8 tokens from the partition's start,
// then at 0 to 7 tokens.
inline float lacking(Following x, device const float* record, device const float2* turns, uint offset, uint r, uint c) {
  const float2 t = turns[offset * 8 + r];
  const float a = x.a * t.x + x.b * t.y, b = x.b * t.x - x.a * t.y;
  device const float* parabola = record + kFastFloats + offset / 4 * 24 + c;
  const float u = float(offset % 4 * 8 + r) - 15.5f;
  float sum = fma(fma(parabola[16], u, parabola[8]), u, parabola[0]);
  UNROLL for (uint i = 0; i < 4; i++) {
    const float4 f = ((device const float4*)(turns + kTurns * 8))[r * 4 + i];  // (cos, sin) of pairs 2 i and 2 i + 1 at r tokens
    sum = fma(simd_shuffle(a, ushort(8 * i + c)), f.x, fma(simd_shuffle(b, ushort(8 * i + c)), f.y, sum));
    sum = fma(simd_shuffle(a, ushort(8 * i + 4 + c)), f.z, fma(simd_shuffle(b, ushort(8 * i + 4 + c)), f.w, sum));
  }
  return sum;
}

template <int D, int U>
kernel void attend_vec(device const uint* queries [[buffer(0)]],
                       device const Tile* tiles [[buffer(1)]],
                       device const uint* tables [[buffer(2)]],
                       device const uchar* cache [[buffer(3)]],
                       device const float* follow [[buffer(4)]],
                       device const uint* fast_tiles [[buffer(5)]],
                       device const float2* fast_turns [[buffer(6)]],
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
  threadgroup float s_acc[kSimdgroups * kMerged * D], s_m[kSimdgroups * 8], s_l[kSimdgroups * 8];
  const uint head = tg.x, part = p.first + tg.z, start = part * kPartition, step = 8 * U;
  const Tile tile = load_tile(tiles, tg.y);
  if (!sees(tile, part)) return;
  const uint end = min(start + kPartition, tile.position + 1), first = start + sg * step;
  const uint from = kWindowed && end > 0 && tile.position + 1 > p.window ? tile.position + 1 - p.window : 0u;
  Place l;
  l.r = lane / 4;
  l.c = lane % 4;
  l.m0 = 4;
  l.m1 = 8;
  l.m2 = 16;
  Stream<D, U> stream;
  stream.cache = cache;
  stream.table = tables + tile.table;
  stream.kv_heads = p.kv_heads;
  stream.head = head;
  stream.end = end;
  Words<D> k[U], v[U];
  if (first < end) {
    stream.seek(first);
    stream.keys(k, l);
    stream.values(v, l);
    if (first + kSimdgroups * step < end) stream.seek(first + kSimdgroups * step);
  }
  const uint index = tg.y * p.kv_heads + head;
  for (uint i = tid; i < D; i += 32 * kSimdgroups) {  // element e of lane c's pair at step j lies at j 8 + e 4 + c
    const uint j = i / 8, row = i % 4 * 2 + i / 4 % 2;
    device const uint* q = queries + ulong(index) * (8 * D) + row * 4 * J + j;
    const float2 a = float2(as_type<half2>(q[0])) + float2(as_type<half2>(q[4 * D]));
    const float2 b = float2(as_type<half2>(q[J])) + float2(as_type<half2>(q[4 * D + J]));
    s_q[i] = float4(a.x, a.y, b.x, b.y);
  }
  device const float* record = follow + (ulong(index) * p.parts + part) * p.record;
  Following amplitudes;
  if (kKeysCentred && !kKeysExact) amplitudes = following(record, l.r, l.c);
  const uint key_table = table_of(kKeyFormat, lane), value_table = table_of(kValueFormat, lane);
  const uint magic = 0x64006400u | p.kv_heads >> 31;  // in a register: and-or with two literals is two instructions
  const float unit = p.scale * unit_of(kKeyFormat);
  float acc[G][J], m = kStart, sum = 0.0f;
  UNROLL for (int g = 0; g < G; g++)
    UNROLL for (int j = 0; j < J; j++) acc[g][j] = 0.0f;
  threadgroup_barrier(mem_flags::mem_threadgroup);

  for (uint base = first; base < end; base += kSimdgroups * step) {
    float s[U][G];
    UNROLL for (int u = 0; u < U; u++)
      UNROLL for (int g = 0; g < G; g++) s[u][g] = 0.0f;
    UNROLL for (int j = 0; j < J; j++) {
      const float4 qa = s_q[j * 8 + l.c], qb = s_q[j * 8 + 4 + l.c];
      UNROLL for (int u = 0; u < U; u++) {
        const float2 x = key_floats<D>(k[u], j, key_table, magic);
        UNROLL for (int g = 0; g < G; g++) s[u][g] = fma(qb[g], x.y, fma(qa[g], x.x, s[u][g]));
      }
    }
    const bool more = base + kSimdgroups * step < end;
    half ks[U];
    UNROLL for (int u = 0; u < U; u++) ks[u] = k[u].scale;
    if (more) stream.keys(k, l);
    float e[U], top = m;
    UNROLL for (int u = 0; u < U; u++) {  // sum over the 4 lanes of a token; lane c keeps head c
      const uint c = l.c, t = base + 8 * u + l.r;
      const float a = (c & 1 ? s[u][1] : s[u][0]) + simd_shuffle_xor(c & 1 ? s[u][0] : s[u][1], 1);
      const float b = (c & 1 ? s[u][3] : s[u][2]) + simd_shuffle_xor(c & 1 ? s[u][2] : s[u][3], 1);
      float x = ((c & 2 ? b : a) + simd_shuffle_xor(c & 2 ? a : b, 2)) * (is_scaled(kKeyFormat) ? unit * float(ks[u]) : unit);
      if (kKeysCentred && kKeysExact) x += lacking_exact(record, fast_turns, p.groups, (base - start) / 8 + u, l.r, c);
      if (kKeysCentred && !kKeysExact) x += lacking(amplitudes, record, fast_turns + head * kTurnPairs, (base - start) / 8 + u, l.r, c);
      e[u] = t < end && (!kWindowed || t >= from || t < tile.sinks) ? x : kNone;
      top = max(top, e[u]);
    }
    if (simd_any(top > m)) {
      top = row_max(top, l);
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
      if (is_scaled(kValueFormat)) w *= float(v[u].scale);
      float w0[G], w1[G];
      UNROLL for (int g = 0; g < G; g++) {
        w0[g] = simd_shuffle(w, ushort(l.c * 8 + g));
        w1[g] = simd_shuffle(w, ushort(l.c * 8 + 4 + g));
      }
      UNROLL for (int j = 0; j < J; j++) {
        const float2 x = value_floats<D>(v[u], j, value_table, magic);
        UNROLL for (int g = 0; g < G; g++) acc[g][j] = fma(w1[g], x.y, fma(w0[g], x.x, acc[g][j]));
      }
    }
    if (more) {
      stream.values(v, l);
      if (base + 2 * kSimdgroups * step < end) stream.seek(base + 2 * kSimdgroups * step);
    }
  }

  sum = row_sum(sum, l);
  for (uint n0 = 0; n0 < kHeads; n0 += kMerged) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    UNROLL for (uint g = 0; g < kHeads; g++) {
      if (g - n0 >= kMerged) continue;
      UNROLL for (int j = 0; j < J; j++) {
        float a = acc[g][j] * unit_of(kValueFormat);
        a += simd_shuffle_xor(a, 1);
        a += simd_shuffle_xor(a, 2);
        if (l.c == 0) s_acc[(sg * kMerged + g - n0) * D + value_dim<D>(l.r, j)] = a;
      }
    }
    if (l.r == 0 && l.c - n0 < kMerged) {
      s_m[sg * 8 + l.c - n0] = m;
      s_l[sg * 8 + l.c - n0] = sum;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    merge_out<D>(s_acc, s_m, s_l, kMerged, n0, part_o, part_ml, p, tile, head, part, tid);
  }
}
#define VEC(D, U) template [[host_name("attend_vec_d" #D "_u" #U)]] [[kernel]] decltype(attend_vec<D, U>) attend_vec<D, U>;
#define VEC_2(D) VEC(D, 2)
#define VEC_4(D) VEC(D, 4)
FOR_HEAD_DIMS(VEC_2)
FOR_SMALL_HEAD_DIMS(VEC_4)
