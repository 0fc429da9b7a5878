// Attention of chunks: `attend_mma`'s arithmetic, so that a row's bits are the same in either, for 64 or 128 columns at
// once. Eight simdgroups decode the K and V of an iteration into threadgroup memory once; each multiplies it with one
// or two column octets of its own, running through the iterations of one state after the other and merging the four
// states in order, where they are written to: registers hold one state.
#include "attend/mean_correction.h"
#include "attend/softmax.h"

constant constexpr int kChunkSimdgroups = 8;
// Column octets of a simdgroup: as many as registers hold, since each reads an iteration's operands once for all of
// them.
template <int D>
struct Octets {
  static constant constexpr int kCount = D <= 64 ? 2 : 1;
};

// An iteration's operands as they lie in threadgroup memory, `place` being a lane's: two words of it follow each other,
// those of two tiles of K, those of two iterations of V, as products take them.
template <int D>
struct Operands {
  static constant constexpr int J = D / 8;
  static INLINE uint of_key(uint u, int j, uint place) { return ((u / 2 * J + j) * 32 + place) * 2 + u % 2; }
  static INLINE uint of_value(uint u, int j, uint place) { return ((u * (J / 2) + j / 2) * 32 + place) * 2; }
  static INLINE uint2 read(threadgroup const uint* operands, uint at) {
    return *(threadgroup const uint2*)(operands + at);
  }
};

// What one simdgroup decodes of an iteration: a tile of K or V, or half of one.
template <int D, int U>
struct Share {
  static constant constexpr int J = D / 8, kSharers = kChunkSimdgroups / (2 * U);
  Words<D> words;
  bool value;
  uint tile, part;
  Reader by;
  INLINE void assign(uint sg, Place l) {
    const uint index = sg / kSharers;
    value = index >= U;
    tile = index % U;
    part = sg % kSharers;
    by = value ? value_reader(l.r, l.c) : key_reader(l.r, l.c);
  }
  // Loads the iteration at `base`. Past the end the last block is read again.
  INLINE void load(
      device const uchar* cache, device const uint* table, uint kv_heads, uint head, uint base, uint end, Place l) {
    const uint position = base + 8 * tile, slot = position & ((1u << kBlockShift) - 1u);
    device const uchar* record =
        cache + ulong(table[min(position, end - 1) >> kBlockShift] * kv_heads + head) * Record<D>::bytes();
    if (kKeyFormat == kValueFormat && is_scaled(kKeyFormat)) {  // alike but for addresses
      load_codes<D>(words, kKeyFormat, record + (value ? Record<D>::values() : 0u), slot, by);
      words.scales = load_scales(record + (value ? Record<D>::value_scales() : Record<D>::key_scales()), slot, l.r);
    } else if (value) {
      load_value<D>(words, record, slot, l.r, l.c, end > position ? end - position : 0u);
    } else {
      load_key<D>(words, record, slot, l.r, l.c);
    }
  }
  // Once a load. unit: of K's scores.
  INLINE void store(
      threadgroup uint* operands, threadgroup float* scales, float unit, uint value_table, uint magic, Place l) {
    const uint place = l.r * 4 + l.c;
    if (value) {
      spread<D>(words, true, l);
      UNROLL for (int j = 0; j < J; j += 2) {
        if (kSharers == 2 && (j >= J / 2) != (part == 1)) continue;
        const half2 x = value_pair<D>(words, j, value_table, magic),
                    y = value_pair<D>(words, j + 1, value_table, magic);
        *(threadgroup uint2*)(operands + Operands<D>::of_value(tile, j, place)) =
            uint2(as_type<uint>(x), as_type<uint>(y));
      }
      if (l.c == 0 && part == 0) scales[l.r * U + tile] = is_scaled(kValueFormat) ? words.scale(tile % 2) : 1.0f;
    } else {
      spread<D>(words, false, l);
      UNROLL for (int j = 0; j < J; j++) {
        if (kSharers == 2 && (j >= J / 2) != (part == 1)) continue;
        operands[Operands<D>::of_key(tile, j, place)] = as_type<uint>(key_pair<D>(words, j, magic));
      }
      if (l.c == 0 && part == 0) scales[l.r * U + tile] = is_scaled(kKeyFormat) ? unit * words.scale(tile % 2) : unit;
    }
  }
};

// A lane's `powers_of`, made each time: reads of threadgroup memory are what limits `prefill`.
struct MadePowers {
  Place l;
  INLINE uint2 of(uint tile) const { return powers_of(tile, l); }
};

// The mean correction of coded keys. (That of keys stored as floats is read from device memory.)
template <int U, int C>
struct Correction {
  static constant constexpr uint kEach = kQuadratic / 2;  // lanes that read an octet's terms of an iteration
  typedef Corrections<U, kChunkSimdgroups * C, kChunkSimdgroups * C> Memory;
  threadgroup Memory* memory;  // amplitudes and an iteration's terms of every simdgroup's octets
  device const uint2* from;    // a lane's share of `terms`, of the partition's first 32 tokens
  uint2 next;                  // and of the next iteration

  // operands, by: of the kv head; record: of the first octet, `stride` from the next. All simdgroups fill what they
  // share.
  INLINE void start(device const uint4* fast,
                    device const float2* by,
                    device const float* record,
                    ulong stride,
                    bool live,
                    uint sg,
                    uint lane,
                    Place l) {
    const uint place = l.r * 4 + l.c;
    from = (device const uint2*)(record + lane / kEach * stride + kHighFloats) + lane % kEach;
    load(0, lane);
    FetchShared<U, kChunkSimdgroups * 32> shared;
    shared.load(fast, by, sg * 32 + lane);
    shared.store(*memory, sg * 32 + lane);
    if (live) {
      UNROLL for (int b = 0; b < C; b++) memory->amplitudes[sg * C + b][place] =
          ((device const float4*)(record + b * stride))[place];
    }
  }
  // Loads the terms of the iteration `offset` tokens from the partition's start.
  INLINE void load(uint offset, uint lane) {
    if (lane < C * kEach) next = from[offset / kInterval * kEach];
  }
  INLINE void store(uint sg, uint lane) const {
    if (lane < C * kEach) memory->terms[sg * C * kEach + lane] = next;
  }
  // To the logits of octet b.
  INLINE void add(thread simdgroup_float8x8* s, uint sg, int b, uint offset, Place l) const {
    MadePowers powers;
    powers.l = l;
    add_corrections(s, *memory, powers, sg * C + b, sg * C + b, offset, l);
  }
};

// One variable, so that all of it is reached from one address.
template <int D, int U>
struct Shared {
  static constant constexpr int kOctets = kChunkSimdgroups * Octets<D>::kCount;
  uint4 operands[2 * U * D];   // of K, then of V
  float4 merged[kOctets * 4];  // of two columns: maxima and sums of weights so far
  uint2 to[kOctets * 4];       // where their states go
  float scales[2 * U * 8];
  half index[kChunkSimdgroups * 64];
  ushort lanes[kChunkSimdgroups * 32];  // by place
};

// Adds elements value_dim(r, j) of the next state to those of the states before it, if any.
template <int D>
INLINE void add_dims(device float* row, thread const float* z, uint r, bool first, float f, float g) {
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
KERNEL(256)
prefill(device const uint* queries [[buffer(0)]],
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
        uint lane [[thread_index_in_simdgroup]]) {
  constexpr int J = D / 8, C = Octets<D>::kCount;
  // Arrays, since a struct in threadgroup memory would need a constructor of its own.
  threadgroup uint4 s_shared[sizeof(Shared<D, U>) / 16], s_corrections[sizeof(typename Correction<U, C>::Memory) / 16];
  threadgroup Shared<D, U>& shared = *(threadgroup Shared<D, U>*)s_shared;
  threadgroup uint* operands = (threadgroup uint*)shared.operands;
  threadgroup const uint* keys = operands;
  threadgroup const uint* values = operands + U * J * 32;
  const uint head = tg.x, part = p.first + tg.z, start = part * kPartition, iteration = 8 * U;
  const Tile tile = load_tile(tiles, tg.y);
  if (!sees(tile, part)) return;
  const uint end = min(start + kPartition, tile.position + tile.rows);
  const Place l = find_place(shared.index + sg * 64, lane);
  // Whose elements a lane writes: those at place (lane % 8, lane / 8), so that 8 lanes write 128 bytes of a column.
  shared.lanes[sg * 32 + l.r * 4 + l.c] = ushort(lane);
  simdgroup_barrier(mem_flags::mem_threadgroup);
  const ushort writes = shared.lanes[sg * 32 + lane % 8 * 4 + lane / 8];
  const uint place = l.r * 4 + l.c, octet = sg * C, index = (tg.y * kKvHeads + head) * p.octets + octet;
  const uint value_table = table_of(kValueFormat, lane);
  const uint magic = 0x64006400u | p.octets >> 31;
  const float unit = p.scale * unit_of(kKeyFormat);
  const ulong stride = ulong(p.partitions) * p.correction_stride;
  device const float* record = corrections + index * stride + part * p.correction_stride;
  device const uint* table = tables + tile.table;
  Share<D, U> share;
  share.assign(sg, l);
  const bool live = octet * 8 < tile.rows * kGqaGroup;  // else the simdgroup decodes for the others
  Columns<D> x[C];
  share.load(cache, table, kKvHeads, head, start, end, l);
  const bool fitted = keys_fitted();
  Correction<U, C> correction;
  if (fitted) {
    correction.memory = (threadgroup typename Correction<U, C>::Memory*)s_corrections;
    correction.start((device const uint4*)(high_operands + head * 512), high_angles + head * kAnglesOfHead, record,
                     stride, live, sg, lane, l);
  }
  UNROLL for (int b = 0; b < C; b++) {
    x[b].load(queries + ulong(index + b) * (4 * D), l);
    const uint column = (octet + b) * 8 + 2 * l.c;
    if (l.r == 0)
      shared.to[column / 2] = uint2(state_of(tile, column, head, part, p), state_of(tile, column + 1, head, part, p));
  }
  for (uint w = 0; w < kSimdgroups; w++) {
    UNROLL for (int b = 0; b < C; b++) x[b].clear();
    for (uint base = start + w * iteration; base < end; base += kSimdgroups * iteration) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
      share.store(operands + (share.value ? U * J * 32 : 0), shared.scales + (share.value ? U * 8 : 0), unit,
                  value_table, magic, l);
      if (fitted) correction.store(sg, lane);
      threadgroup_barrier(mem_flags::mem_threadgroup);
      uint next = base + kSimdgroups * iteration;
      if (next >= end && w + 1 < kSimdgroups) next = start + (w + 1) * iteration;
      if (next < end) {
        share.load(cache, table, kKvHeads, head, next, end, l);
        if (fitted) correction.load(next - start, lane);
      }
      if (!live) continue;
      simdgroup_float8x8 s[C][U];
      UNROLL for (int u = 0; u < U; u++) UNROLL for (int b = 0; b < C; b++) s[b][u] =
          make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
      UNROLL for (int j = 0; j < J; j += 2) UNROLL for (int u = 0; u < U; u += 2) {
        const uint2 a = Operands<D>::read(keys, Operands<D>::of_key(u, j, place)),
                    c = Operands<D>::read(keys, Operands<D>::of_key(u, j + 1, place));
        UNROLL for (int b = 0; b < C; b++) {
          mma_2x2(s[b][u], s[b][u + 1], tile_of(as_type<half2>(a.x)), tile_of(as_type<half2>(a.y)), x[b].q[j],
                  tile_of(as_type<half2>(c.x)), tile_of(as_type<half2>(c.y)), x[b].q[j + 1]);
        }
      }
      float scales[U];  // read where they are used: registers are short
      UNROLL for (int u = 0; u < U; u++) scales[u] = shared.scales[l.r * U + u];
      UNROLL for (int b = 0; b < C; b++) {
        x[b].template scale<U>(s[b], scales);
        if (fitted) correction.add(s[b], sg, b, base - start, l);
        if (keys_exact())
          add_exact<U>(s[b], record + b * stride, high_operands, high_angles, p.pair_groups, (base - start) / 8, l);
        if (kKeysCentred && base == 0) add_first(s[b][0], first_numbers(record + b * stride, p.correction_stride), l);
      }
      UNROLL for (int u = 0; u < U; u++) scales[u] = shared.scales[U * 8 + l.r * U + u];
      simdgroup_half8x8 weights[C][U];
      weigh_octets<U>(x, s, scales, tile, octet, base, p, l, weights);
      UNROLL for (int j = 0; j < J; j += 2) UNROLL for (int u = 0; u < U; u += 2) {
        const uint2 a = Operands<D>::read(values, Operands<D>::of_value(u, j, place)),
                    c = Operands<D>::read(values, Operands<D>::of_value(u + 1, j, place));
        UNROLL for (int b = 0; b < C; b++) {
          mma_2x2(x[b].acc[j], x[b].acc[j + 1], tile_of(as_type<half2>(a.x)), tile_of(as_type<half2>(a.y)),
                  weights[b][u], tile_of(as_type<half2>(c.x)), tile_of(as_type<half2>(c.y)), weights[b][u + 1]);
        }
      }
    }
    // As `Merge`.
    UNROLL for (int b = 0; b < C; b++) {
      const uint pair = (octet + b) * 4 + l.c;
      const float4 old = w == 0 ? float4(kStart, kStart, 0.0f, 0.0f) : shared.merged[pair];
      const float2 back = x[b].back(), other = float2(row_sum(x[b].sum.x, l), row_sum(x[b].sum.y, l));
      const float2 top = float2(max(old.x, x[b].m.x), max(old.y, x[b].m.y));
      const float2 f = float2(fast::exp2(old.x - top.x), fast::exp2(old.y - top.y)),
                   g = float2(fast::exp2(x[b].m.x - top.x), fast::exp2(x[b].m.y - top.y));
      const float2 sum = w == 0 ? other : float2(fma(g.x, other.x, f.x * old.z), fma(g.y, other.y, f.y * old.w));
      simdgroup_barrier(mem_flags::mem_threadgroup);
      if (l.r == 0) shared.merged[pair] = float4(top.x, top.y, sum.x, sum.y);
      simdgroup_barrier(mem_flags::mem_threadgroup);
      const uint2 to = shared.to[pair], to_write = shared.to[(octet + b) * 4 + lane / 8];
      if (l.r == 0 && w + 1 == kSimdgroups) {
        UNROLL for (int i = 0; i < 2; i++) {
          if (to[i] != kDead) part_ml[to[i]] = float2(top[i], sum[i]);
        }
      }
      UNROLL for (int i = 0; i < 2; i++) {
        float z[J];
        UNROLL for (int j = 0; j < J; j++) z[j] = simd_shuffle(elements(x[b].acc[j])[i] * back[i], writes);
        const float before = simd_shuffle(f[i], writes), after = simd_shuffle(g[i], writes);
        if (to_write[i] != kDead) add_dims<D>(part_o + ulong(to_write[i]) * D, z, lane % 8, w == 0, before, after);
      }
    }
  }
}
#define PREFILL(D, U) template [[host_name("prefill_d" #D "_u" #U)]] [[kernel]] decltype(prefill<D, U>) prefill<D, U>;
#define PREFILL_2(D) PREFILL(D, 2)
#define PREFILL_4(D) PREFILL(D, 4)
FOR_CHUNK_HEAD_DIMS(PREFILL_2)
FOR_SMALL_HEAD_DIMS(PREFILL_4)
