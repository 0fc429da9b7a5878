// Queries as attention reads them, once a step and layer: rotated and laid out for 8x8 tiles, and, where keys are centred, what
// logits lack.
#include "columns.h"
#include "vectors.h"

struct QueryParams {
  uint kv_heads;
  uint group;         // query heads of a kv head
  uint blocks;        // blocks of 8 columns of a tile
  uint parts;         // partitions in `follow`
  uint pairs;         // RoPE pairs that turn
  uint still;         // followed pairs that one parabola a partition follows, first in `followed`
  uint followed;
  uint groups;        // of 8 fast pairs
  uint record;        // floats of a partition in `follow`
  uint span;          // partitions of a threadgroup
  uint low_parts;     // attend_vec reads queries to float's precision: what half loses of all words follows them
  float norm;         // 1 / sqrt(D)
  float scale;        // of logits, base 2
};

// The query head of a column; rows past the tile's end are empty.
inline bool column(uint n, uint group, Tile tile, thread uint& row, thread uint& head) {
  row = n / group;
  head = n % group;
  return row < tile.rows;
}

// 8 rotated queries as right operands: word (place, j) holds element key_dim(r / 2, j, r % 2) of columns 2c and 2c + 1.
template <int D, class T>
inline void lay_out(threadgroup float* s_q, device const T* q, device const uint* rotation, device uint* out, constant QueryParams& p, Tile tile, uint kv_head,
                    uint block, uint sg, uint lane) {
  for (uint n = sg; n < 8; n += kSimdgroups) {
    uint row, head;
    const bool live = column(block * 8 + n, p.group, tile, row, head);
    threadgroup float* z = s_q + n * D;
    device const T* x = q + ((ulong(tile.row + row) * p.kv_heads + kv_head) * p.group + head) * D;
    for (uint i = lane; i < D; i += 32) z[i] = live ? sanitize(load_float(x + i)) : 0.0f;
    simdgroup_barrier(mem_flags::mem_threadgroup);
    if (is_rotated(kKeyFormat)) rotate<D>(z, rotation, p.norm, lane);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint i = sg * 32 + lane; i < 4 * D; i += 32 * kSimdgroups) {
    const uint place = i / (D / 8), j = i % (D / 8), r = place / 4, c = place % 4, d = key_dim<D>(r / 2, j, r % 2);
    const float2 x = float2(s_q[2 * c * D + d], s_q[(2 * c + 1) * D + d]);
    const half2 high = half2(x);
    out[i] = as_type<uint>(high);
    if (p.low_parts) out[4 * D + i] = as_type<uint>(half2(x - float2(high)));
  }
}

// What 1 of cos and of sin at a partition's start gives to the parabola around its middle.
struct StillFit {
  float2 x, y, z;
};
inline StillFit still_fit_of(device const float* still_fit, uint i) {
  device const float2* from = (device const float2*)still_fit + i * 3;
  StillFit f;
  f.x = from[0];
  f.y = from[1];
  f.z = from[2];
  return f;
}
inline float3 still_pair(float3 sum, StillFit f, float2 t) {
  return float3(fma(f.x.x, t.x, fma(f.x.y, t.y, sum.x)), fma(f.y.x, t.x, fma(f.y.y, t.y, sum.y)), fma(f.z.x, t.x, fma(f.z.y, t.y, sum.z)));
}

// Partitions that a threadgroup follows at once where there are many: as many as leave room for other threadgroups beside it.
template <int D>
struct Span {
  static constant constexpr uint kParts = D <= 64 ? 4 : D <= 128 ? 2 : 1;
};

// What logits lack in P partitions from `part` on: amplitudes of the fast pairs at each one's start, and a parabola around the middle of
// each 32 tokens for all others, of each column; a polynomial where keys are followed exactly. 1 of cos or of sin at the start gives
// the parabolas `still_fit` and `slow_fit`, or the polynomials, which are in `slow_fit`. A query's products with the mean and each table's
// row are read once for all P. fma by name, so that a record's bits do not depend on P.
template <int D, uint P, class T>
inline void follow_partitions(threadgroup float* s_mem, device const T* q, device const float* means, device const float2* starts, device const uint* lists,
                              device const float* still_fit, device const float4* slow_fit, device float* out, constant QueryParams& p, Tile tile, uint kv_head,
                              uint block, uint part, uint tid) {
  threadgroup float2* s_turned = (threadgroup float2*)s_mem;  // [P][followed][8]
  threadgroup float* s_still = s_mem + P * 8 * D;             // [P][3][8]
  device const uint* fast = lists + p.followed + kv_head * 8 * p.groups;
  device const float* mean = means + kv_head * D;
  device const float2* start = starts + part * p.pairs;
  const uint n = tid % 8, s = tid / 8;
  uint row, head;
  const bool live = column(block * 8 + n, p.group, tile, row, head);
  device const T* x = q + ((ulong(tile.row + (live ? row : 0)) * p.kv_heads + kv_head) * p.group + head) * D;
  UNROLL_4 for (uint i = s; i < p.followed + 8 * p.groups; i += 16) {
    const uint pair = i < p.followed ? lists[i] : fast[i - p.followed];
    const bool turns = live && pair < p.pairs;
    float a = 0.0f, b = 0.0f;
    float2 t[P];
    UNROLL for (uint k = 0; k < P; k++) t[k] = float2(0.0f);
    if (turns) {
      UNROLL for (uint k = 0; k < P; k++) t[k] = start[k * p.pairs + pair];
      const uint2 e = pair_elements(pair, p.pairs);
      const float2 y = float2(sanitize(load_float(x + e.x)), sanitize(load_float(x + e.y))), mu = float2(mean[e.x], mean[e.y]);
      a = fma(y.x, mu.x, y.y * mu.y) * p.scale;
      b = fma(y.y, mu.x, -(y.x * mu.y)) * p.scale;
    }
    UNROLL for (uint k = 0; k < P; k++) {
      const float2 turned = float2(fma(a, t[k].x, b * t[k].y), fma(b, t[k].x, -(a * t[k].y)));
      if (i < p.followed) {
        s_turned[(k * (D / 2) + i) * 8 + n] = turned;
      } else {
        device float* amplitudes = out + k * p.record + ((i - p.followed) * 4 + n / 2) * 4 + n % 2;
        amplitudes[0] = turned.x;
        amplitudes[2] = turned.y;
      }
    }
  }
  constexpr uint kAhead = 4;  // asked for before the others' pairs are waited for
  StillFit ahead[kAhead];
  if (tid < P * 32) {
    UNROLL for (uint j = 0; j < kAhead; j++) {
      if (s % 4 + 4 * j < p.still) ahead[j] = still_fit_of(still_fit, s % 4 + 4 * j);
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (kKeysExact) {
    float terms[P][kTerms];
    UNROLL for (uint k = 0; k < P; k++)
      UNROLL for (uint i = 0; i < kTerms; i++) terms[k][i] = 0.0f;
    for (uint i = 0; i < p.followed; i++) {
      device const float4* f = slow_fit + (i * 16 + s) * (kTerms / 2);
      UNROLL for (uint j = 0; j < kTerms; j += 2) {
        const float4 a = f[j / 2];
        UNROLL for (uint k = 0; k < P; k++) {
          const float2 t = s_turned[(k * (D / 2) + i) * 8 + n];
          terms[k][j] = fma(a.x, t.x, fma(a.y, t.y, terms[k][j]));
          terms[k][j + 1] = fma(a.z, t.x, fma(a.w, t.y, terms[k][j + 1]));
        }
      }
    }
    UNROLL for (uint k = 0; k < P; k++)
      UNROLL for (uint i = 0; i < kTerms; i++) out[k * p.record + p.groups * kFastFloats + (s * kTerms + i) * 8 + n] = terms[k][i];
    return;
  }
  if (tid < P * 32) {  // the still pairs' parabola around the partition's middle: a simdgroup each
    const uint k = tid / 32;
    float3 sum = float3(0.0f);
    UNROLL for (uint j = 0; j < kAhead; j++) {
      if (s % 4 + 4 * j < p.still) sum = still_pair(sum, ahead[j], s_turned[(k * (D / 2) + s % 4 + 4 * j) * 8 + n]);
    }
    for (uint i = s % 4 + 4 * kAhead; i < p.still; i += 4) sum = still_pair(sum, still_fit_of(still_fit, i), s_turned[(k * (D / 2) + i) * 8 + n]);
    UNROLL for (uint m = 8; m < 32; m *= 2)
      sum += float3(simd_shuffle_xor(sum.x, ushort(m)), simd_shuffle_xor(sum.y, ushort(m)), simd_shuffle_xor(sum.z, ushort(m)));
    if (s % 4 == 0) {
      s_still[k * 24 + n] = sum.x;
      s_still[k * 24 + 8 + n] = sum.y;
      s_still[k * 24 + 16 + n] = sum.z;
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float3 sum[P];
  const float m = (float(s) + 0.5f) * float(kFollow) - 0.5f * float(kPartition);
  UNROLL for (uint k = 0; k < P; k++) {  // to around that of block s
    const float3 c = float3(s_still[k * 24 + n], s_still[k * 24 + 8 + n], s_still[k * 24 + 16 + n]);
    sum[k] = float3(fma(fma(c.z, m, c.y), m, c.x), fma(2.0f * c.z, m, c.y), c.z);
  }
  UNROLL_4 for (uint i = p.still; i < p.followed; i++) {
    device const float4* f = slow_fit + ((i - p.still) * 16 + s) * 2;
    const float4 a = f[0];
    const float2 b = *(device const float2*)(f + 1);
    UNROLL for (uint k = 0; k < P; k++) {
      const float2 t = s_turned[(k * (D / 2) + i) * 8 + n];
      sum[k].x = fma(a.x, t.x, fma(a.y, t.y, sum[k].x));
      sum[k].y = fma(a.z, t.x, fma(a.w, t.y, sum[k].y));
      sum[k].z = fma(b.x, t.x, fma(b.y, t.y, sum[k].z));
    }
  }
  UNROLL for (uint k = 0; k < P; k++) {
    device float* parabola = out + k * p.record + kFastFloats + s * 24 + n;
    parabola[0] = sum[k].x;
    parabola[8] = sum[k].y;
    parabola[16] = sum[k].z;
  }
}

// q: [rows][kv heads][group][D], after RoPE. lists: followed pairs, then groups of 8 fast ones of each kv head (past `pairs`: none). Threadgroup
// (kv head and block of columns, tile, 0) lays out, (.., 1 + i) follows in partitions from i `span` on.
template <int D, class T>
kernel void query(device const T* q [[buffer(0)]],
                  device const Tile* tiles [[buffer(1)]],
                  device const uint* rotation [[buffer(2)]],
                  device const float* means [[buffer(3)]],
                  device const float2* starts [[buffer(4)]],
                  device const uint* lists [[buffer(5)]],
                  device const float* still_fit [[buffer(6)]],
                  device const float4* slow_fit [[buffer(7)]],
                  device uint* queries [[buffer(8)]],
                  device float* follow [[buffer(9)]],
                  constant QueryParams& p [[buffer(10)]],
                  uint3 tg [[threadgroup_position_in_grid]],
                  uint sg [[simdgroup_index_in_threadgroup]],
                  uint lane [[thread_index_in_simdgroup]],
                  uint tid [[thread_index_in_threadgroup]]) {
  constexpr uint kSpan = Span<D>::kParts;
  threadgroup float s_mem[kSpan * (8 * D + 24)];
  const Tile tile = load_tile(tiles, tg.y);
  const uint kv_head = tg.x / p.blocks, block = tg.x % p.blocks, index = (tg.y * p.kv_heads + kv_head) * p.blocks + block;
  if (tg.z == 0) {
    lay_out<D, T>(s_mem, q, rotation, queries + ulong(index) * (p.low_parts ? 8 * D : 4 * D), p, tile, kv_head, block, sg, lane);
  } else {
    const uint from = (tg.z - 1) * p.span, to = min(from + p.span, p.parts);
    device float* out = follow + ulong(index) * p.parts * p.record;
    if (to - from == kSpan) {
      bool seen = false;
      for (uint part = from; part < to; part++) seen = seen || sees(tile, part);
      if (seen) follow_partitions<D, kSpan, T>(s_mem, q, means, starts, lists, still_fit, slow_fit, out + from * p.record, p, tile, kv_head, block, from, tid);
      return;
    }
    for (uint part = from; part < to; part++) {
      if (!sees(tile, part)) continue;
      follow_partitions<D, 1, T>(s_mem, q, means, starts, lists, still_fit, slow_fit, out + part * p.record, p, tile, kv_head, block, part, tid);
      if (part + 1 < to) threadgroup_barrier(mem_flags::mem_threadgroup);
    }
  }
}
#define QUERY(D, T, NAME) template [[host_name("query_d" #D "_" NAME)]] [[kernel]] decltype(query<D, T>) query<D, T>;
#define QUERY_ALL(D) QUERY(D, float, "f32") QUERY(D, half, "f16") QUERY(D, Bf16, "bf16")
FOR_HEAD_DIMS(QUERY_ALL)
