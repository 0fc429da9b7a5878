// Queries as attention reads them, once a step and layer: after RoPE, rotated and laid out for 8x8 matrices, and, where
// keys are centred, divided by the pair scales and beside them the mean correction of their logits.
#include "attend/mean_correction.h"
#include "common/vectors.h"

struct QueryParams {
  uint octets;             // column octets of a tile
  uint partitions;         // partitions in `corrections`
  uint pairs;              // RoPE pairs of a head
  uint approximated;       // how many times 8 pairs quadratics or polynomials correct
  uint pair_groups;        // groups of 8 high-frequency pairs
  uint correction_stride;  // floats of a partition in `corrections`
  uint partitions_each;    // partitions of a simdgroup: 1 or kTogether
  uint append_low_halves;  // for attend_vec, which takes no operands: what half loses of all words of queries follows
                           // them, and terms are floats
  float norm;              // 1 / sqrt(D)
  float scale;             // of logits, base 2
  float mean_scale;        // of logits, base 2, times RoPE's attention factor: what means are multiplied with
};

// The query head of a column; rows past the tile's end are empty.
INLINE bool column(uint n, Tile tile, thread uint& row, thread uint& head) {
  row = n / kGqaGroup;
  head = n % kGqaGroup;
  return row < tile.rows;
}

// 8 rotated queries as right operands: word (place, j) holds element key_dim(r / 2, j, r % 2) of columns 2c and 2c + 1.
template <int D>
INLINE void lay_out(threadgroup float* s_q,
                    device const float* q,
                    device const float2* angles,
                    device const uint* rotation,
                    device const float* constants,
                    device uint* out,
                    constant QueryParams& p,
                    Tile tile,
                    uint kv_head,
                    uint octet,
                    uint sg,
                    uint lane) {
  device const float* inverse = constants + kInverseScale * D;
  for (uint n = sg; n < 8; n += kSimdgroups) {
    uint row, head;
    const bool live = column(octet * 8 + n, tile, row, head);
    threadgroup float* z = s_q + n * D;
    device const float* x = q + ((ulong(tile.row + row) * kKvHeads + kv_head) * kGqaGroup + head) * D;
    device const float2* turn = angles + (tile.row + (live ? row : 0)) * p.pairs;
    for (uint i = lane; i < p.pairs; i += 32) {
      float2 turned = live ? apply_rope(float2(x[i], x[i + p.pairs]), turn[i]) : float2(0.0f);
      if (kKeysCentred) turned *= inverse[i];
      z[i] = sanitize(turned.x);
      z[i + p.pairs] = sanitize(turned.y);
    }
    for (uint i = 2 * p.pairs + lane; i < D; i += 32)
      z[i] = live ? sanitize(kKeysCentred ? x[i] * inverse[i] : x[i]) : 0.0f;
    simdgroup_barrier(mem_flags::mem_threadgroup);
    if (is_rotated(kKeyFormat)) rotate<D>(z, rotation, p.norm, lane);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint i = sg * 32 + lane; i < 4 * D; i += 32 * kSimdgroups) {
    const uint place = i / (D / 8), j = i % (D / 8), r = place / 4, c = place % 4, d = key_dim<D>(r / 2, j, r % 2);
    const float2 x = float2(s_q[2 * c * D + d], s_q[(2 * c + 1) * D + d]);
    const half2 high = half2(x);
    out[i] = as_type<uint>(high);
    if (p.append_low_halves) out[4 * D + i] = as_type<uint>(half2(x - float2(high)));
  }
}

// What the logit of position 0 lacks beyond the rest, of each column: the product of its query with the first
// difference.
template <int D>
INLINE void prepare_first(device const float* q,
                          device const float2* angles,
                          device const float* constants,
                          device float* to,
                          constant QueryParams& p,
                          Tile tile,
                          uint kv_head,
                          uint octet,
                          uint sg,
                          uint lane) {
  device const float* difference = constants + kFirstDifference * D;
  for (uint n = sg; n < 8; n += kSimdgroups) {
    uint row, head;
    const bool live = column(octet * 8 + n, tile, row, head);
    device const float* x = q + ((ulong(tile.row + (live ? row : 0)) * kKvHeads + kv_head) * kGqaGroup + head) * D;
    device const float2* turn = angles + (tile.row + (live ? row : 0)) * p.pairs;
    float sum = 0.0f;
    for (uint i = lane; i < p.pairs; i += 32) {
      const float2 turned = apply_rope(float2(x[i], x[i + p.pairs]), turn[i]);
      sum = fma(sanitize(turned.x), difference[i], fma(sanitize(turned.y), difference[i + p.pairs], sum));
    }
    for (uint i = 2 * p.pairs + lane; i < D; i += 32) sum = fma(sanitize(x[i]), difference[i], sum);
    sum = simd_sum(sum) * p.scale;
    if (lane == 0) to[n] = live ? sum : 0.0f;
  }
}

// Partitions that a simdgroup prepares together where there are many, so that it reads its tables once for all of them.
constant constexpr uint kTogether = 4;

// Products of 8 queries with the mean, which are the same for every partition: amplitudes of pairs, 8 at a time, first
// of the approximated ones. A pair past the last has none.
template <int D>
struct Products {
  static constant constexpr uint kGroups = D / 16 + 1;  // of D / 2 pairs of two kinds
  float4 amplitudes[kGroups * 32];                      // by place, as `turned` takes them
  uint pairs[kGroups * 8];
  static INLINE void make(threadgroup Products& to,
                          device const float* q,
                          device const float2* angles,
                          device const float* mean,
                          device const uint* lists,
                          constant QueryParams& p,
                          Tile tile,
                          uint kv_head,
                          uint octet,
                          uint tid) {
    device const uint* high = lists + 8 * p.approximated + kv_head * 8 * p.pair_groups;
    const uint n = tid % 8;
    uint row, head;
    const bool live = column(octet * 8 + n, tile, row, head);
    device const float* x = q + ((ulong(tile.row + (live ? row : 0)) * kKvHeads + kv_head) * kGqaGroup + head) * D;
    device const float2* turn = angles + (tile.row + (live ? row : 0)) * p.pairs;
    UNROLL_4 for (uint i = tid / 8; i < 8 * (p.approximated + p.pair_groups); i += 4 * kSimdgroups) {
      const uint pair = i < 8 * p.approximated ? lists[i] : high[i - 8 * p.approximated];
      float a = 0.0f, b = 0.0f;
      if (live && pair < p.pairs) {
        const uint other = pair + p.pairs;
        const float2 turned = apply_rope(float2(x[pair], x[other]), turn[pair]);
        const float2 y = float2(sanitize(turned.x), sanitize(turned.y)), mu = float2(mean[pair], mean[other]);
        a = fma(y.x, mu.x, y.y * mu.y) * p.mean_scale;
        b = fma(y.y, mu.x, -(y.x * mu.y)) * p.mean_scale;
      }
      threadgroup float* amplitudes = (threadgroup float*)to.amplitudes + (i * 4 + n / 2) * 4 + n % 2;
      amplitudes[0] = a;
      amplitudes[2] = b;
      if (n == 0) to.pairs[i] = pair < p.pairs ? pair : 0u;
    }
  }
};

// Computes the coefficients of the polynomials of P partitions: `fits`, what a unit cosine or sine amplitude
// contributes to each coefficient, times the pairs' amplitudes at the partition's start. Output rows are intervals of
// 32 tokens, and there is one 8x8 matrix for each of kEach coefficients: first those of intervals 0 to 7, then those of
// 8 to 15. This call makes N of these matrices from `from` on.
template <int D, uint P, int N, uint kEach>
INLINE void correction_terms(threadgroup const Products<D>& products,
                             device const float2* starts,
                             thread const uint* start,
                             device const uint4* fits,
                             thread const bool* live,
                             device float* out,
                             uint from,
                             constant QueryParams& p,
                             Place l) {
  const uint place = l.r * 4 + l.c;
  simdgroup_float8x8 y[P][N];
  UNROLL for (uint k = 0; k < P; k++) UNROLL for (int n = 0; n < N; n++) y[k][n] =
      make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  for (uint g = 0; g < p.approximated; g++) {
    const float4 a = products.amplitudes[g * 32 + place];
    const uint pair = products.pairs[g * 8 + l.r];
    PairOperands x[P];
    UNROLL for (uint k = 0; k < P; k++) x[k] = split(turned(a, starts[start[k] + pair]));
    device const uint4* tiles = fits + (g * 2 * kEach + from) * 32 + place;
    UNROLL for (int n = 0; n < N; n += 2) {
      const uint4 high = tiles[n * 32], low = tiles[n * 32 + 32];
      UNROLL for (uint k = 0; k < P; k++) add_pairs(y[k][n], y[k][n + 1], x[k], high, low);
    }
  }
  UNROLL for (uint k = 0; k < P; k++) {
    if (!live[k]) continue;
    device uint2* to =
        (device uint2*)(out + k * p.correction_stride + p.pair_groups * kHighFloats) + l.r * (4 * kEach) + l.c;
    UNROLL for (int n = 0; n < N; n++) {
      const float2 x = elements(y[k][n]);
      const half2 high = half2(x);
      to[((from + n) / kEach * 8 * kEach + (from + n) % kEach) * 4] =
          kKeysExact || p.append_low_halves ? as_type<uint2>(x)
                                            : uint2(as_type<uint>(high), as_type<uint>(half2(x - float2(high))));
    }
  }
}
// Prepares the mean correction of partitions `first` to `first` + P for each column: the amplitudes of the
// high-frequency pairs at each partition's start, and the terms of the polynomials of all others. Bits do not depend on
// P.
template <int D, uint P>
INLINE void prepare_partitions(threadgroup const Products<D>& products,
                               device const float2* starts,
                               device const uint4* fits,
                               device float* out,
                               constant QueryParams& p,
                               Tile tile,
                               uint first,
                               Place l) {
  if (!sees(tile, first, first + P)) return;
  bool live[P];
  uint start[P];
  UNROLL for (uint k = 0; k < P; k++) {
    live[k] = first + k < p.partitions && sees(tile, first + k);
    start[k] = min(first + k, p.partitions - 1) * p.pairs;
  }
  out += first * p.correction_stride;
  for (uint g = 0; g < p.pair_groups; g++) {
    const float4 a = products.amplitudes[(p.approximated + g) * 32 + l.r * 4 + l.c];
    const uint pair = products.pairs[(p.approximated + g) * 8 + l.r];
    UNROLL for (uint k = 0; k < P; k++) {
      if (live[k])
        ((device float4*)(out + k * p.correction_stride))[g * 32 + l.r * 4 + l.c] = turned(a, starts[start[k] + pair]);
    }
  }
  if (kKeysExact) {
    for (uint from = 0; from < 2 * kTerms; from += 4)
      correction_terms<D, P, 4, kTerms>(products, starts, start, fits, live, out, from, p, l);
  } else {
    correction_terms<D, P, 2 * int(kFewTerms), kFewTerms>(products, starts, start, fits, live, out, 0, p, l);
  }
}

// q: [rows][kv heads][group][D], before RoPE. key_constants: [kv heads][KeyConstant][D]. angles: [rows][pairs] (cos,
// sin), times RoPE's attention factor. lists:
// groups of 8 approximated pairs, then of 8 high-frequency ones of each kv head (past `pairs`: none). fits:
// [approximated group][pair of tiles][high, low parts][place] left operands, of cos in both tiles, of sin in both: see
// `correction_terms`. Threadgroup (kv head and column octet, tile, 0) lays out, (.., 1 + i) prepares `partitions_each`
// partitions a simdgroup.
template <int D>
KERNEL(128)
query(device const float* q [[buffer(0)]],
      device const Tile* tiles [[buffer(1)]],
      device const uint* rotation [[buffer(2)]],
      device const float* key_constants [[buffer(3)]],
      device const float2* starts [[buffer(4)]],
      device const uint* lists [[buffer(5)]],
      device const uint4* fits [[buffer(6)]],
      device const float2* angles [[buffer(7)]],
      device uint* queries [[buffer(8)]],
      device float* corrections [[buffer(9)]],
      constant QueryParams& p [[buffer(10)]],
      uint3 tg [[threadgroup_position_in_grid]],
      uint sg [[simdgroup_index_in_threadgroup]],
      uint lane [[thread_index_in_simdgroup]],
      uint tid [[thread_index_in_threadgroup]]) {
  constexpr uint kProducts = sizeof(Products<D>) / 16, kQueries = 2 * D;
  threadgroup float4 s_mem[kProducts > kQueries ? kProducts : kQueries];
  threadgroup half s_index[kSimdgroups * 64];
  const Tile tile = load_tile(tiles, tg.y);
  const uint kv_head = tg.x % kKvHeads, octet = tg.x / kKvHeads, index = (tg.y * kKvHeads + kv_head) * p.octets + octet;
  device const float* constants = key_constants + kv_head * (kKeyConstants * D);
  if (tg.z == 0) {
    lay_out<D>((threadgroup float*)s_mem, q, angles, rotation, constants,
               queries + ulong(index) * (p.append_low_halves ? 8 * D : 4 * D), p, tile, kv_head, octet, sg, lane);
    return;
  }
  const uint of_all = kSimdgroups * p.partitions_each, from = (tg.z - 1) * of_all;
  if (!sees(tile, from, from + of_all)) return;
  threadgroup Products<D>& products = *(threadgroup Products<D>*)s_mem;
  Products<D>::make(products, q, angles, constants + kSubtracted * D, lists, p, tile, kv_head, octet, tid);
  const Place l = find_place(s_index + sg * 64, lane);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const uint first = from + sg * p.partitions_each;
  device float* out = corrections + ulong(index) * p.partitions * p.correction_stride;
  if (from == 0)
    prepare_first<D>(q, angles, constants, out + p.correction_stride - kFirstFloats, p, tile, kv_head, octet, sg, lane);
  if (p.partitions_each == kTogether) {
    prepare_partitions<D, kTogether>(products, starts, fits, out, p, tile, first, l);
  } else {
    prepare_partitions<D, 1>(products, starts, fits, out, p, tile, first, l);
  }
}
#define QUERY(D) template [[host_name("query_d" #D)]] [[kernel]] decltype(query<D>) query<D>;
FOR_HEAD_DIMS(QUERY)
