// What both kernels of decode attention share: reading the cache an iteration at a time, and merging the states of a
// partition's simdgroups.
#pragma once
#include "attend/columns.h"
#include "attend/decode.h"
#include "attend/matrix.h"

// Reads of an iteration in one register set: next K is asked for once the scores are done, next V once the output is.
// An iteration starts at a multiple of its tokens, so that a tile's place in its block is known to the compiler. Past
// the end the last block is read again.
template <int D, int U>
struct Stream {
  device const uchar* records;  // of the kv head, in block 0
  device const uint* table;
  uint stride, end;  // bytes from a block's record to the next one's; end of the positions to read
  uint block[(U + 1) / 2];
  uint base;
  INLINE void open(device const uchar* cache, device const uint* blocks, uint kv_heads, uint head, uint to) {
    records = cache + head * Record<D>::bytes();
    table = blocks;
    stride = kv_heads * Record<D>::bytes();
    end = to;
  }
  INLINE void seek(uint position) {
    base = position;
    UNROLL for (uint i = 0; i < max(8u * U >> kBlockShift, 1u); i++) block[i] =
        table[min((base >> kBlockShift) + i, (end - 1) >> kBlockShift)];
  }
  INLINE device const uchar* record_of(int u) const { return records + ulong(block[(8 * u) >> kBlockShift]) * stride; }
  // `base` is a multiple of 8 U, said so that two tiles' scales are seen to be one load.
  INLINE uint slot_of(int u) const {
    return ((8 * u) & ((1u << kBlockShift) - 1u)) +
           (8 * U < 1 << kBlockShift ? base & ((1u << kBlockShift) - 8u * U) : 0u);
  }
  INLINE void keys(thread Words<D>* k, Place l) {
    UNROLL for (int u = 0; u < U; u++) load_key<D>(k[u], record_of(u), slot_of(u), l.r, l.c);
  }
  // Loads V of the iteration that was sought, and seeks the one at `next`, if any.
  INLINE void values(thread Words<D>* v, uint next, Place l) {
    UNROLL for (int u = 0; u < U; u++)
        load_value<D>(v[u], record_of(u), slot_of(u), l.r, l.c, end > base + 8 * u ? end - base - 8 * u : 0u);
    if (next < end) seek(next);
  }
};

// Scales of an iteration's keys as floats, ks, and words that are not whole: keys that have either are waited for here,
// before more is asked for, which would be waited for too. Of keys that were not asked for nothing is used.
template <int D, int U>
INLINE void receive(thread Words<D>* k, thread float* ks, float unit, Place l) {
  UNROLL for (int u = 0; u < U; u++) {
    ks[u] = is_scaled(kKeyFormat) ? unit * k[u].scale(u % 2) : unit;
    spread<D>(k[u], false, l);
  }
}

// Scales of an iteration's V as floats: before the next K is asked for, as above.
template <int D, int U>
INLINE void receive_scales(thread const Words<D>* v, thread float* vs) {
  UNROLL for (int u = 0; u < U; u++) vs[u] = is_scaled(kValueFormat) ? v[u].scale(u % 2) : 1.0f;
}

// A lane's elements value_dim(r, j) of a vector.
template <int D>
INLINE void store_dims(threadgroup float* row, thread const float* z, uint r) {
  constexpr int J = D / 8, full = D / 32 * 4;
  UNROLL for (int j = 0; j < full; j += 4) * (threadgroup float4*)(row + value_dim<D>(r, j)) =
      float4(z[j], z[j + 1], z[j + 2], z[j + 3]);
  if (full < J) *(threadgroup float2*)(row + value_dim<D>(r, full)) = float2(z[full % J], z[(full + 1) % J]);
}

// The states of a partition's simdgroups in threadgroup memory. A column's row is padded, so that lanes that store it
// meet other banks.
template <int D, uint N>
struct Merge {
  static constant constexpr uint kRow = D + 4;
  threadgroup float* acc;  // [simdgroup][N columns][row]
  threadgroup float* m;    // [simdgroup][8 columns], as `l`
  threadgroup float* l;
  threadgroup const uint* to;  // [column of the tile] where its state goes
  INLINE threadgroup float* row(uint sg, uint n) const { return acc + (sg * N + n) * kRow; }

  // Merges N columns from `column` on, in order of simdgroups, and writes them out. Every thread finds the factors of
  // what it merges by itself, which is sooner than waiting for one that finds them for all.
  INLINE void write(uint column, device float* part_o, device float2* part_ml, uint tid) const {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = tid; i < N * (D / 4); i += 32 * kSimdgroups) {
      const uint n = i / (D / 4), d = i % (D / 4), at = to[column + n];
      if (at == kDead) continue;
      float top = m[n], sum = l[n];
      float4 a = ((threadgroup const float4*)row(0, n))[d];
      UNROLL for (uint w = 1; w < kSimdgroups; w++) {
        const float other = m[w * 8 + n], next = max(top, other), f = fast::exp2(top - next),
                    g = fast::exp2(other - next);
        sum = fma(g, l[w * 8 + n], f * sum);
        a = fma(float4(g), ((threadgroup const float4*)row(w, n))[d], f * a);
        top = next;
      }
      if (d == 0) part_ml[at] = float2(top, sum);
      ((device float4*)part_o)[ulong(at) * (D / 4) + d] = a;
    }
  }
};
