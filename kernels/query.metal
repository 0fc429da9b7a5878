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

// What a partition's logits lack: amplitudes of the fast pairs at its start, and a parabola around the middle of each 32 tokens for
// all others, of each column; a polynomial where keys are followed exactly. 1 of cos or of sin at the start gives the parabolas
// `still_fit` and `slow_fit`, or the polynomials, which are in `slow_fit`.
template <int D, class T>
inline void follow_partition(threadgroup float* s_mem, device const T* q, device const float* means, device const float2* starts, device const uint* lists,
                             device const float* still_fit, device const float4* slow_fit, device float* out, constant QueryParams& p, Tile tile, uint kv_head,
                             uint block, uint part, uint tid) {
  threadgroup float2* s_turned = (threadgroup float2*)s_mem;  // [followed][8]
  threadgroup float* s_still = s_mem + 16 * (D / 2);          // [3][16][8]
  device const uint* fast = lists + p.followed + kv_head * 8 * p.groups;
  device const float* mean = means + kv_head * D;
  device const float2* start = starts + part * p.pairs;
  const uint n = tid % 8, s = tid / 8;
  uint row, head;
  const bool live = column(block * 8 + n, p.group, tile, row, head);
  device const T* x = q + ((ulong(tile.row + (live ? row : 0)) * p.kv_heads + kv_head) * p.group + head) * D;
  UNROLL_4 for (uint i = s; i < p.followed + 8 * p.groups; i += 16) {
    const uint pair = i < p.followed ? lists[i] : fast[i - p.followed];
    float2 turned = float2(0.0f);
    if (live && pair < p.pairs) {
      const uint2 e = pair_elements(pair, p.pairs);
      const float2 y = float2(sanitize(load_float(x + e.x)), sanitize(load_float(x + e.y))), mu = float2(mean[e.x], mean[e.y]), t = start[pair];
      const float a = (y.x * mu.x + y.y * mu.y) * p.scale, b = (y.y * mu.x - y.x * mu.y) * p.scale;
      turned = float2(a * t.x + b * t.y, b * t.x - a * t.y);
    }
    if (i < p.followed) {
      s_turned[i * 8 + n] = turned;
    } else {
      device float* amplitudes = out + ((i - p.followed) * 4 + n / 2) * 4 + n % 2;
      amplitudes[0] = turned.x;
      amplitudes[2] = turned.y;
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (kKeysExact) {
    float terms[kTerms];
    UNROLL for (uint k = 0; k < kTerms; k++) terms[k] = 0.0f;
    for (uint i = 0; i < p.followed; i++) {
      device const float4* f = slow_fit + (i * 16 + s) * (kTerms / 2);
      const float2 t = s_turned[i * 8 + n];
      UNROLL for (uint k = 0; k < kTerms; k += 2) {
        const float4 a = f[k / 2];
        terms[k] = fma(a.x, t.x, fma(a.y, t.y, terms[k]));
        terms[k + 1] = fma(a.z, t.x, fma(a.w, t.y, terms[k + 1]));
      }
    }
    UNROLL for (uint k = 0; k < kTerms; k++) out[p.groups * kFastFloats + (s * kTerms + k) * 8 + n] = terms[k];
    return;
  }
  float3 k = float3(0.0f);
  UNROLL_4 for (uint i = s; i < p.still; i += 16) {
    device const float* f = still_fit + i * 6;
    const float2 t = s_turned[i * 8 + n];
    k.x = fma(f[0], t.x, fma(f[1], t.y, k.x));
    k.y = fma(f[2], t.x, fma(f[3], t.y, k.y));
    k.z = fma(f[4], t.x, fma(f[5], t.y, k.z));
  }
  s_still[s * 8 + n] = k.x;
  s_still[128 + s * 8 + n] = k.y;
  s_still[256 + s * 8 + n] = k.z;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  k = float3(0.0f);
  UNROLL for (uint i = 0; i < 16; i++) k += float3(s_still[i * 8 + n], s_still[128 + i * 8 + n], s_still[256 + i * 8 + n]);
  // From around the partition's middle to around that of block s.
  const float m = (float(s) + 0.5f) * float(kFollow) - 0.5f * float(kPartition);
  k = float3(fma(fma(k.z, m, k.y), m, k.x), fma(2.0f * k.z, m, k.y), k.z);
  UNROLL_4 for (uint i = p.still; i < p.followed; i++) {
    device const float4* f = slow_fit + ((i - p.still) * 16 + s) * 2;
    const float4 a = f[0], b = f[1];
    const float2 t = s_turned[i * 8 + n];
    k.x = fma(a.x, t.x, fma(a.y, t.y, k.x));
    k.y = fma(a.z, t.x, fma(a.w, t.y, k.y));
    k.z = fma(b.x, t.x, fma(b.y, t.y, k.z));
  }
  device float* parabola = out + kFastFloats + s * 24 + n;
  parabola[0] = k.x;
  parabola[8] = k.y;
  parabola[16] = k.z;
}

// q: [rows][kv heads][group][D], after RoPE. lists: followed pairs, then groups of 8 fast ones of each kv head (past `pairs`: none). Threadgroup
// (kv head and block of columns, tile, 0) lays out, (.., 1 + partition) follows.
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
  threadgroup float s_mem[8 * D + 384];
  const Tile tile = load_tile(tiles, tg.y);
  const uint kv_head = tg.x / p.blocks, block = tg.x % p.blocks, index = (tg.y * p.kv_heads + kv_head) * p.blocks + block;
  if (tg.z == 0) {
    lay_out<D, T>(s_mem, q, rotation, queries + ulong(index) * (p.low_parts ? 8 * D : 4 * D), p, tile, kv_head, block, sg, lane);
  } else {
    const uint part = tg.z - 1;
    if (!sees(tile, part)) return;
    device float* out = follow + (ulong(index) * p.parts + part) * p.record;
    follow_partition<D, T>(s_mem, q, means, starts, lists, still_fit, slow_fit, out, p, tile, kv_head, block, part, tid);
  }
}
#define QUERY(D, T, NAME) template [[host_name("query_d" #D "_" NAME)]] [[kernel]] decltype(query<D, T>) query<D, T>;
#define QUERY_ALL(D) QUERY(D, float, "f32") QUERY(D, half, "f16") QUERY(D, Bf16, "bf16")
FOR_HEAD_DIMS(QUERY_ALL)
