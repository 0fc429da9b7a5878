// What the logits of centred keys lack. Keys of codes: 8 fast pairs, turned from the partition's start, and a parabola for each 32 tokens of
// all others. Keys stored as floats, whose own error is smaller than a parabola's: followed exactly, to f32. All pairs are taken out
// of them; faster ones go in groups of 8, slower ones together are a polynomial of degree 7 over each 32 tokens.
//
// record: `groups` times the amplitudes of 8 pairs, then [block of 32] the terms of its parabola, or polynomial, of 8 columns. offset: of
// the first of U tiles from the partition's start, in 8 tokens.
#pragma once
#include "columns.h"
#include "matrix.h"

// Adds what a group of 8 fast pairs gives to the logits of U tiles. a: a lane's amplitudes; t: (cos, sin) of its pair at the first tile;
// tiles: left operands, a lane's first. Halves would be off by 2.4e-4 of the amplitudes, so both operands are split in high and low parts.
template <int U, class Tiles>
inline void add_fast(thread simdgroup_float8x8* s, float4 a, float2 t, Tiles tiles) {
  const float2 of_cos = float2(a.x * t.x + a.z * t.y, a.y * t.x + a.w * t.y), of_sin = float2(a.z * t.x - a.x * t.y, a.w * t.x - a.y * t.y);
  const half2 c = half2(of_cos), d = half2(of_sin);
  const simdgroup_half8x8 cos_high = tile_of(c), cos_low = tile_of(half2(of_cos - float2(c)));
  const simdgroup_half8x8 sin_high = tile_of(d), sin_low = tile_of(half2(of_sin - float2(d)));
  UNROLL for (int u = 0; u < U; u += 2) {
    const uint4 f = tiles[u * 32], g = tiles[u * 32 + 32];
    const simdgroup_half8x8 c0 = tile_of(as_type<half2>(f.x)), c1 = tile_of(as_type<half2>(f.y));
    const simdgroup_half8x8 s0 = tile_of(as_type<half2>(f.z)), s1 = tile_of(as_type<half2>(f.w));
    mma_2x2(s[u], s[u + 1], c0, c1, cos_high, s0, s1, sin_high);
    mma_2x2(s[u], s[u + 1], c0, c1, cos_low, s0, s1, sin_low);
    mma_2x2(s[u], s[u + 1], tile_of(as_type<half2>(g.x)), tile_of(as_type<half2>(g.y)), cos_high, tile_of(as_type<half2>(g.z)), tile_of(as_type<half2>(g.w)),
            sin_high);
  }
}

// A lane's two columns of the parabola's right operand. terms: [1, u, u^2][pair of columns]; row r has term r % 3, rows above 5 none.
template <class Terms>
inline float2 parabola_at(Terms terms, Place l) {
  float2 y = float2(0.0f);
  if (l.r < 6) y = terms[l.r % 3 * 4 + l.c];
  return y;
}

// A lane's two columns of the terms that the other pairs have in these 32 tokens.
inline float2 terms_at(device const float* record, uint groups, uint offset, Place l) {
  if (kKeysExact) return ((device const float2*)(record + groups * kFastFloats + (offset / 4 * kTerms + l.r) * 8))[l.c];
  return parabola_at((device const float2*)(record + kFastFloats + offset / 4 * 24), l);
}

// The parabola's left operand: columns 1, u, u^2, 1, u, u^2, 0, 0 for u from the middle of 32 tokens, exact in half. A lane's pair of
// columns is a u^2 + b u + c, each a word of two halves that are 0 or 1.
struct Powers {
  uint a, b, c;
  float u;  // of the lane's row in a step's first tile
  // Of tile i of the step.
  inline half2 at(int i) const {
    const half2 x = half2(half(u + float(8 * i)));
    return fma(fma(as_type<half2>(a), x, as_type<half2>(b)), x, as_type<half2>(c));
  }
};
inline Powers powers_of(Place l) {
  constexpr uint left = 0x3c00u, right = 0x3c000000u;
  Powers p;
  p.a = l.c == 1 ? left : l.c == 2 ? right : 0u;
  p.b = l.c == 0 ? right : l.c == 2 ? left : 0u;
  p.c = l.c == 0 ? left : l.c == 1 ? right : 0u;
  p.u = float(l.r) - 15.5f;
  return p;
}

// Adds the parabola. y: terms_at; rows 0 to 2 of its operand are high parts, 3 to 5 low parts. powers: what `Powers::at` gives.
template <int U, class Left>
inline void add_parabola(thread simdgroup_float8x8* s, float2 y, Left powers, Place l) {
  const half2 high = half2(y);
  const simdgroup_half8x8 parabola = tile_of(l.r < 3 ? high : half2(y - float2(high)));
  UNROLL for (int u = 0; u < U; u += 2) mma_2x1(s[u], s[u + 1], tile_of(powers.at(u)), tile_of(powers.at(u + 1)), parabola);
}

// Adds the polynomial, in v: 16 tokens from the middle of the 32.
template <int U>
inline void add_polynomial(thread simdgroup_float8x8* s, float2 y, uint offset, Place l) {
  const half2 high = half2(y);
  const simdgroup_half8x8 of_high = tile_of(high), of_low = tile_of(half2(y - float2(high)));
  UNROLL for (int u = 0; u < U; u += 2) {
    simdgroup_half8x8 powers[2], rests[2];
    UNROLL for (int i = 0; i < 2; i++) {  // columns 2c and 2c + 1: v^2c and v^(2c + 1)
      const float v = (float(offset % 4 * 8 + l.r + 8 * (u + i)) - 15.5f) * 0.0625f, w = v * v;
      const float even = l.c == 0 ? 1.0f : l.c == 1 ? w : l.c == 2 ? w * w : w * w * w;
      const float2 x = float2(even, even * v);
      const half2 h = half2(x);
      powers[i] = tile_of(h);
      rests[i] = tile_of(half2(x - float2(h)));
    }
    mma_2x2(s[u], s[u + 1], powers[0], powers[1], of_high, rests[0], rests[1], of_high);
    mma_2x1(s[u], s[u + 1], powers[0], powers[1], of_low);
  }
}

// Adds all that the logits of U tiles lack. fast, turns: of the kv head, or of each group.
template <int U>
inline void add_missing(thread simdgroup_float8x8* s, device const float* record, device const uint* fast, device const float2* turns, uint groups, uint offset,
                        Powers powers, Place l) {
  const float2 y = terms_at(record, groups, offset, l);
  const uint place = l.r * 4 + l.c;
  for (uint g = 0; g < (kKeysExact ? groups : 1u); g++) {
    const float4 a = ((device const float4*)(record + g * kFastFloats))[place];
    add_fast<U>(s, a, turns[g * kTurnPairs + offset * 8 + l.r], (device const uint4*)(fast + g * 512) + place);
  }
  if (kKeysExact) {
    add_polynomial<U>(s, y, offset, l);
  } else {
    powers.u += float(offset % 4 * 8);
    add_parabola<U>(s, y, powers, l);
  }
}

// What an exactly followed logit lacks, of one token, r of its tile, and head c, by plain arithmetic: lane (r, c) turns pair r of each group.
inline float lacking_exact(device const float* record, device const float2* turns, uint groups, uint offset, uint r, uint c) {
  device const float* terms = record + groups * kFastFloats + offset / 4 * kTerms * 8 + c;
  const float v = (float(offset % 4 * 8 + r) - 15.5f) * 0.0625f;
  float sum = terms[7 * 8];
  UNROLL for (uint k = 7; k > 0; k--) sum = fma(sum, v, terms[(k - 1) * 8]);
  for (uint g = 0; g < groups; g++) {
    device const float* from = record + g * kFastFloats + (r * 4 + c / 2) * 4 + c % 2;
    device const float2* turn = turns + g * kTurnPairs;
    const float2 t = turn[offset * 8 + r];
    const float a = from[0] * t.x + from[2] * t.y, b = from[2] * t.x - from[0] * t.y;
    UNROLL for (uint i = 0; i < 8; i++) {
      const float2 f = turn[kTurns * 8 + r * 8 + i];
      sum = fma(simd_shuffle(a, ushort(4 * i + c)), f.x, fma(simd_shuffle(b, ushort(4 * i + c)), f.y, sum));
    }
  }
  return sum;
}
