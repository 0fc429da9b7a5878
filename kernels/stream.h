// What both forms of decode attention share: reading the cache step by step, and merging the states of a partition's simdgroups.
#pragma once
#include "columns.h"
#include "decode.h"
#include "matrix.h"

// Reads of a step in one register set: next K is asked for once the scores are done, next V once the output is.
template <int D, int U>
struct Stream {
  device const uchar* cache;
  device const uint* table;
  uint kv_heads, head, end;  // end: of the positions to read
  ulong record[U];
  uint slot;
  inline void seek(uint base) {
    UNROLL for (int u = 0; u < U; u++) {
      const uint t = min(base + 8 * u, (end - 1) & ~7u);
      record[u] = (ulong(table[t >> kBlockShift]) * kv_heads + head) * Record<D>::bytes();
    }
    slot = base;
  }
  inline uint slot_of(int u) const { return min(slot + 8 * u, (end - 1) & ~7u) & ((1u << kBlockShift) - 1u); }
  inline void keys(thread Words<D>* k, Place l) {
    UNROLL for (int u = 0; u < U; u++) load_key<D>(k[u], cache + record[u], slot_of(u) + l.r, l.c);
  }
  inline void values(thread Words<D>* v, Place l) {
    UNROLL for (int u = 0; u < U; u++) load_value<D>(v[u], cache + record[u], slot_of(u), l.r, l.c, end > slot + 8 * u ? end - slot - 8 * u : 0u);
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
