// Attention of chunks: `attend_mma`'s arithmetic, so that a row's bits are the same in either, for 64 columns at once. Eight simdgroups
// decode a step's K and V into threadgroup memory once; each multiplies it with 8 columns of its own, running through the steps of
// one state after the other and merging the four states in order, where they are written to: registers hold one state.
#include "exact.h"
#include "softmax.h"
#include "stream.h"

constant constexpr int kBlocks = 8;

// A step's operands as they lie in threadgroup memory: `kRead` steps j of a lane follow each other.
template <int D>
struct Steps {
  static constant constexpr int J = D / 8, kRead = J % 4 == 0 ? 4 : 2;
  static inline uint at(int u, int j, uint place) { return ((u * (J / kRead) + j / kRead) * 32 + place) * kRead; }
  // Steps j and j + 1 of tile u; where four lie together, both halves are read at once.
  static inline uint2 read(threadgroup const uint* operands, int u, int j, uint place) {
    if (kRead == 4) {
      const uint4 x = *(threadgroup const uint4*)(operands + at(u, j, place));
      return j % 4 == 0 ? uint2(x[0], x[1]) : uint2(x[2], x[3]);
    }
    return *(threadgroup const uint2*)(operands + at(u, j, place));
  }
};

// What one simdgroup decodes of a step: a tile of K or V, or half of one.
template <int D, int U>
struct Share {
  static constant constexpr int J = D / 8, kSharers = kBlocks / (2 * U);
  Words<D> words;
  bool value;
  int tile, part;
  inline void load(Stream<D, U> stream, Place l) {
    UNROLL for (int u = 0; u < U; u++) {
      if (u != tile) continue;
      if (value) {
        load_value<D>(words, stream.record_of(u), stream.slot_of(u), l.r, l.c, stream.end > stream.base + 8 * u ? stream.end - stream.base - 8 * u : 0u);
      } else {
        load_key<D>(words, stream.record_of(u), stream.slot_of(u) + l.r, l.c);
      }
    }
  }
  inline uint pair(int j, uint key_table, uint value_table, uint magic) const {
    return as_type<uint>(value ? value_pair<D>(words, j, value_table, magic) : key_pair<D>(words, j, key_table, magic));
  }
  // unit: of K's scores.
  inline void store(threadgroup uint* operands, threadgroup float* scales, float unit, uint key_table, uint value_table, uint magic, Place l) const {
    const uint place = l.r * 4 + l.c;
    UNROLL for (int j = 0; j < J; j += Steps<D>::kRead) {
      if (kSharers == 2 && (j >= J / 2) != (part == 1)) continue;
      threadgroup uint* to = operands + Steps<D>::at(tile, j, place);
      if (Steps<D>::kRead == 4) {
        uint4 x;
        UNROLL for (int i = 0; i < 4; i++) x[i] = pair(j + i, key_table, value_table, magic);
        *(threadgroup uint4*)to = x;
      } else {
        *(threadgroup uint2*)to = uint2(pair(j, key_table, value_table, magic), pair(j + 1, key_table, value_table, magic));
      }
    }
    if (l.c == 0 && part == 0) {
      const bool scaled = is_scaled(value ? kValueFormat : kKeyFormat);
      scales[tile * 8 + l.r] = value ? scaled ? float(words.scale) : 1.0f : scaled ? unit * float(words.scale) : unit;
    }
  }
};

// Adds a lane's elements value_dim(r, j) of the next state to those of the states before it, if any.
template <int D>
inline void add_dims(device float* row, thread const float* z, uint r, bool first, float f, float g) {
  constexpr int J = D / 8, full = D / 32 * 4;
  UNROLL for (int j = 0; j < full; j += 4) {
    device float4* to = (device float4*)(row + value_dim<D>(r, j));
    const float4 x = float4(z[j], z[j + 1], z[j + 2], z[j + 3]);
    *to = first ? x : fma(float4(g), x, f * *to);
  }
  if (full < J) {
    device float2* to = (device float2*)(row + value_dim<D>(r, full));
    const float2 x = float2(z[full % J], z[(full + 1) % J]);
    *to = first ? x : fma(float2(g), x, f * *to);
  }
}

// Bindings as `attend_mma`. Threadgroup: a (kv head, tile, partition).
template <int D, int U>
kernel void prefill(device const uint* queries [[buffer(0)]],
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
                    uint lane [[thread_index_in_simdgroup]]) {
  constexpr int J = D / 8;
  threadgroup half s_index[kBlocks * 64];
  threadgroup float s_scales[2 * U * 8];
  threadgroup uint4 s_keys[U * J * 8], s_values[U * J * 8];
  threadgroup const uint* keys = (threadgroup const uint*)s_keys;
  threadgroup const uint* values = (threadgroup const uint*)s_values;
  const uint head = tg.x, part = p.first + tg.z, start = part * kPartition, step = 8 * U;
  const Tile tile = load_tile(tiles, tg.y);
  if (!sees(tile, part)) return;
  const uint end = min(start + kPartition, tile.position + tile.rows);
  const Place l = find_place(s_index + sg * 64, lane);
  const uint place = l.r * 4 + l.c, index = (tg.y * p.kv_heads + head) * p.blocks + sg;
  const uint key_table = table_of(kKeyFormat, lane), value_table = table_of(kValueFormat, lane);
  const uint magic = 0x64006400u | p.kv_heads >> 31;
  const float unit = p.scale * unit_of(kKeyFormat);
  const Powers powers = powers_of(l);
  device const float* record = follow + (ulong(index) * p.parts + part) * p.record;
  Stream<D, U> stream;
  stream.cache = cache;
  stream.table = tables + tile.table;
  stream.kv_heads = p.kv_heads;
  stream.head = head;
  stream.end = end;
  Share<D, U> share;
  const uint unit_index = sg / (kBlocks / (2 * U));
  share.value = unit_index >= U;
  share.tile = int(unit_index % U);
  share.part = int(sg % (kBlocks / (2 * U)));
  Columns<D> x;
  x.load(queries + ulong(index) * (4 * D), l);
  x.sight = sight_of(tile, sg * 8 + 2 * l.c, p);
  float2 m = float2(kStart), sum = float2(0.0f);
  ulong at[2];
  UNROLL for (int i = 0; i < 2; i++) at[i] = (ulong((tile.row + x.sight.row[i]) * p.kv_heads + head) * p.group + x.sight.head[i]) * p.parts + part;

  stream.seek(start);
  share.load(stream, l);
  for (uint w = 0; w < kSimdgroups; w++) {
    x.clear();
    for (uint base = start + w * step; base < end; base += kSimdgroups * step) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
      share.store((threadgroup uint*)(share.value ? s_values : s_keys), s_scales + (share.value ? U * 8 : 0), unit, key_table, value_table, magic, l);
      threadgroup_barrier(mem_flags::mem_threadgroup);
      uint next = base + kSimdgroups * step;
      if (next >= end && w + 1 < kSimdgroups) next = start + (w + 1) * step;
      if (next < end) {
        stream.seek(next);
        share.load(stream, l);
      }
      simdgroup_float8x8 s[U];
      float ks[U], vs[U];
      UNROLL for (int u = 0; u < U; u++) {
        s[u] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        ks[u] = s_scales[u * 8 + l.r];
        vs[u] = s_scales[U * 8 + u * 8 + l.r];
      }
      UNROLL for (int j = 0; j < J; j += 2)
        UNROLL for (int u = 0; u < U; u += 2) {
          const uint2 a = Steps<D>::read(keys, u, j, place), c = Steps<D>::read(keys, u + 1, j, place);
          mma_2x2(s[u], s[u + 1], tile_of(as_type<half2>(a.x)), tile_of(as_type<half2>(c.x)), x.q[j], tile_of(as_type<half2>(a.y)), tile_of(as_type<half2>(c.y)), x.q[j + 1]);
        }
      x.template scale<U>(s, ks);
      if (kKeysCentred && kKeysExact) {
        missing_exact<U>(s, record, fast_tiles, fast_turns, p.groups, (base - start) / 8, l);
      } else if (kKeysCentred) {
        x.template missing<U>(s, record, fast_tiles + head * 512, fast_turns + head * kTurnPairs, (base - start) / 8, powers, l);
      }
      simdgroup_half8x8 weights[U];
      if (all_see(tile, base, step, p)) {
        x.template weigh<U, false>(s, vs, base + l.r, l, weights);
      } else {
        x.template weigh<U, true>(s, vs, base + l.r, l, weights);
      }
      UNROLL for (int j = 0; j < J; j += 2)
        UNROLL for (int u = 0; u < U; u += 2) {
          const uint2 a = Steps<D>::read(values, u, j, place), b = Steps<D>::read(values, u + 1, j, place);
          mma_2x2(x.acc[j], x.acc[j + 1], tile_of(as_type<half2>(a.x)), tile_of(as_type<half2>(a.y)), weights[u], tile_of(as_type<half2>(b.x)), tile_of(as_type<half2>(b.y)),
                  weights[u + 1]);
        }
    }
    // As `Merge`.
    const float2 back = x.back(), other = float2(row_sum(x.sum.x, l), row_sum(x.sum.y, l));
    const float2 top = float2(max(m.x, x.m.x), max(m.y, x.m.y));
    const float2 f = float2(fast::exp2(m.x - top.x), fast::exp2(m.y - top.y)), g = float2(fast::exp2(x.m.x - top.x), fast::exp2(x.m.y - top.y));
    UNROLL for (int i = 0; i < 2; i++) {
      if (x.sight.row[i] >= tile.rows) continue;
      float z[J];
      UNROLL for (int j = 0; j < J; j++) z[j] = elements(x.acc[j])[i] * back[i];
      add_dims<D>(part_o + at[i] * D, z, l.r, w == 0, f[i], g[i]);
    }
    sum = w == 0 ? other : float2(fma(g.x, other.x, f.x * sum.x), fma(g.y, other.y, f.y * sum.y));
    m = top;
  }

  UNROLL for (int i = 0; i < 2; i++) {
    if (l.r == 0 && x.sight.row[i] < tile.rows) part_ml[at[i]] = float2(m[i], sum[i]);
  }
}
#define PREFILL(D, U) template [[host_name("prefill_d" #D "_u" #U)]] [[kernel]] decltype(prefill<D, U>) prefill<D, U>;
#define PREFILL_2(D) PREFILL(D, 2)
#define PREFILL_4(D) PREFILL(D, 4)
FOR_CHUNK_HEAD_DIMS(PREFILL_2)
FOR_SMALL_HEAD_DIMS(PREFILL_4)
