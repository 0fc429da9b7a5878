// What both forms of decode attention share: reading the cache step by step, and merging the states of a partition's simdgroups.
#pragma once
#include "columns.h"
#include "decode.h"
#include "matrix.h"

// Reads of a step in one register set: next K is asked for once the scores are done, next V once the output is.
// A step starts at a multiple of its tokens, so that a tile's place in its block is known to the compiler. Past the end the last
// block is read again.
template <int D, int U>
struct Stream {
  device const uchar* cache;
  device const uint* table;
  uint kv_heads, head, end;  // end: of the positions to read
  uint record[(U + 1) / 2];
  uint base;
  inline void seek(uint position) {
    base = position;
    UNROLL for (uint i = 0; i < max(8u * U >> kBlockShift, 1u); i++) record[i] = table[min((base >> kBlockShift) + i, (end - 1) >> kBlockShift)] * kv_heads + head;
  }
  inline device const uchar* record_of(int u) const { return cache + ulong(record[(8 * u) >> kBlockShift]) * Record<D>::bytes(); }
  inline uint slot_of(int u) const { return ((8 * u) & ((1u << kBlockShift) - 1u)) + (8 * U < 1 << kBlockShift ? base & ((1u << kBlockShift) - 1u) : 0u); }
  inline void keys(thread Words<D>* k, Place l) {
    UNROLL for (int u = 0; u < U; u++) load_key<D>(k[u], record_of(u), slot_of(u) + l.r, l.c);
  }
  inline void values(thread Words<D>* v, Place l) {
    UNROLL for (int u = 0; u < U; u++) load_value<D>(v[u], record_of(u), slot_of(u), l.r, l.c, end > base + 8 * u ? end - base - 8 * u : 0u);
  }
};

// Merges the states of the simdgroups' columns in order and writes them out.
template <int D>
inline void merge_out(threadgroup const float* s_acc, threadgroup const float* s_m, threadgroup const float* s_l, uint columns, uint column, device float* part_o,
                      device float2* part_ml, constant AttendParams& p, Tile tile, uint head, uint part, uint tid) {
  for (uint i = tid; i < columns * D; i += 32 * kSimdgroups) {
    const uint n = i / D, d = i % D, row = (column + n) / p.group;
    if (row >= tile.rows) continue;
    float m = s_m[n], l = s_l[n], a = s_acc[i];
    for (uint w = 1; w < kSimdgroups; w++) {
      const float other = s_m[w * 8 + n], top = max(m, other), f = fast::exp2(m - top), g = fast::exp2(other - top);
      a = fma(g, s_acc[w * columns * D + i], f * a);
      l = fma(g, s_l[w * 8 + n], f * l);
      m = top;
    }
    const ulong at = (ulong((tile.row + row) * p.kv_heads + head) * p.group + (column + n) % p.group) * p.parts + part;
    part_o[at * D + d] = a;
    if (d == 0) part_ml[at] = float2(m, l);
  }
}
