// The mean correction: keys are stored minus their mean, and this adds q . RoPE(mean) back to each logit.
//
// Coded keys have 8 high-frequency pairs that are corrected exactly, turned from the partition's start; all their other
// pairs are corrected by one quadratic for each interval of 32 tokens. Keys stored as floats have a smaller error of
// their own than a quadratic, so all of their pairs are corrected exactly, to some 2^-22: those of high frequency in
// pair groups of 8, the others together by a polynomial of degree 7 over each interval.
//
// The key at position 0 is stored minus a mean of its own: its logit gets the same as others would there, and beside
// that one number, q . RoPE(first mean - mean).
//
// A partition's corrections are, in this order: for each pair group (coded keys have one) the amplitudes of its 8
// pairs; for each interval its terms; the numbers for position 0, in the first partition. `offset` counts 8 tokens from
// the partition's start to the first of U 8-token groups; `v` counts 16 tokens from the middle of an interval.
#pragma once
#include "attend/columns.h"
#include "attend/matrix.h"

// 8 pairs turned to another token, as right operands. Halves would be off by 2.4e-4 of the amplitudes, so both operands
// of a product are split in high and low parts.
struct PairOperands {
  simdgroup_half8x8 cos_high, cos_low, sin_high, sin_low;
};
// a: A of pair r in columns 2c and 2c + 1, then B; t: (cos, sin) of the pair.
INLINE float4 turned(float4 a, float2 t) {
  return float4(fma(a.x, t.x, a.z * t.y), fma(a.y, t.x, a.w * t.y), fma(a.z, t.x, -(a.x * t.y)),
                fma(a.w, t.x, -(a.y * t.y)));
}
INLINE PairOperands split(float4 x) {
  const half2 c = half2(float2(x.x, x.y)), d = half2(float2(x.z, x.w));
  PairOperands to;
  to.cos_high = tile_of(c);
  to.cos_low = tile_of(half2(float2(x.x, x.y) - float2(c)));
  to.sin_high = tile_of(d);
  to.sin_low = tile_of(half2(float2(x.z, x.w) - float2(d)));
  return to;
}
// Adds the pairs' products with two tiles of left operands. high, low: of cos in both tiles, of sin in both.
INLINE void add_pairs(
    thread simdgroup_float8x8& s0, thread simdgroup_float8x8& s1, thread const PairOperands& x, uint4 high, uint4 low) {
  const simdgroup_half8x8 c0 = tile_of(as_type<half2>(high.x)), c1 = tile_of(as_type<half2>(high.y));
  const simdgroup_half8x8 d0 = tile_of(as_type<half2>(high.z)), d1 = tile_of(as_type<half2>(high.w));
  mma_2x2(s0, s1, c0, c1, x.cos_high, d0, d1, x.sin_high);
  mma_2x2(s0, s1, c0, c1, x.cos_low, d0, d1, x.sin_low);
  mma_2x2(s0, s1, tile_of(as_type<half2>(low.x)), tile_of(as_type<half2>(low.y)), x.cos_high,
          tile_of(as_type<half2>(low.z)), tile_of(as_type<half2>(low.w)), x.sin_high);
}
// Adds what a group of 8 high-frequency pairs gives to the logits of U tiles. a: a lane's amplitudes; t: (cos, sin) of
// its pair at the first tile; tiles: left operands, a lane's first.
template <int U, class Tiles>
INLINE void add_high_frequency(thread simdgroup_float8x8* s, float4 a, float2 t, Tiles tiles) {
  const PairOperands x = split(turned(a, t));
  UNROLL for (int u = 0; u < U; u += 2) add_pairs(s[u], s[u + 1], x, tiles[u * 32], tiles[u * 32 + 32]);
}

// What the logits of A column octets lack, and T times 32 tokens of an octet, in threadgroup memory: an iteration would
// wait for what it reads of device memory.
template <int U, int A, int T>
struct Corrections {
  uint4 tiles[U * 32];              // left operands of the high-frequency pairs
  float2 angles[kPartition / U];    // [iteration][pair]
  float4 amplitudes[A][32];         // by place
  uint2 terms[T * kQuadratic / 2];  // [1, v, v^2][pair of columns] high and low parts
};
// The quadratic's left operand, columns 1, 1, v, v, v^2, v^2, 0, 0, exact in half: a lane's two in tiles `tile` and
// `tile` + 1 of 32 tokens.
INLINE uint2 powers_of(uint tile, Place l) {
  uint2 x;
  UNROLL for (uint i = 0; i < 2; i++) {
    const float v = v_of(8 * (tile + i) + l.r);
    x[i] = as_type<uint>(half2(half(l.c == 0 ? 1.0f : l.c == 1 ? v : l.c == 2 ? v * v : 0.0f)));
  }
  return x;
}
// A thread's elements, of N threads, of an array on its way to threadgroup memory: what is fetched together is asked
// for before any is stored. Of an array in rows of 8, one row in `every` may be taken.
template <class T, int Count, int N>
struct Fetch {
  static constant constexpr int kOwn = (Count + N - 1) / N;
  T own[kOwn];
  INLINE void load(device const T* from, uint tid, uint every = 1) {
    UNROLL for (int i = 0; i < kOwn; i++) {
      const uint at = tid + i * N;
      if (at < Count) own[i] = from[at / 8 * every * 8 + at % 8];
    }
  }
  INLINE void store(threadgroup T* to, uint tid) const {
    UNROLL for (int i = 0; i < kOwn; i++) {
      if (tid + i * N < Count) to[tid + i * N] = own[i];
    }
  }
};
// What all columns share. operands, from: of the kv head.
template <int U, int N>
struct FetchShared {
  Fetch<uint4, U * 32, N> tiles;
  Fetch<float2, kPartition / U, N> angles;
  INLINE void load(device const uint4* operands, device const float2* from, uint tid) {
    tiles.load(operands, tid);
    angles.load(from, tid, U);
  }
  template <int A, int T>
  INLINE void store(threadgroup Corrections<U, A, T>& to, uint tid) const {
    tiles.store(to.tiles, tid);
    angles.store(to.angles, tid);
  }
};

// Adds what the logits of U tiles lack, `tokens` from the partition's start. powers: gives `powers_of`; a, t: which
// amplitudes and terms.
template <int U, class Powers, int A, int T>
INLINE void add_corrections(thread simdgroup_float8x8* s,
                            threadgroup const Corrections<U, A, T>& from,
                            Powers powers,
                            uint a,
                            uint t,
                            uint tokens,
                            Place l) {
  const uint place = l.r * 4 + l.c;
  add_high_frequency<U>(s, from.amplitudes[a][place], from.angles[tokens / U + l.r],
                        (threadgroup const uint4*)from.tiles + place);
  // Rows are high and low parts in turn; 6 and 7 meet zeros, whatever they hold.
  const uint row = min(l.r, 5u);
  const simdgroup_half8x8 quadratic =
      tile_of(as_type<half2>(((threadgroup const uint*)from.terms)[t * kQuadratic + row / 2 * 8 + l.c * 2 + row % 2]));
  UNROLL for (int u = 0; u < U; u += 2) {
    const uint2 x = powers.of(U == 4 ? u : tokens / 8 % 4);
    mma_2x1(s[u], s[u + 1], tile_of(as_type<half2>(x.x)), tile_of(as_type<half2>(x.y)), quadratic);
  }
}

// Adds the polynomial.
template <int U>
INLINE void add_polynomial(thread simdgroup_float8x8* s, float2 y, uint offset, Place l) {
  const half2 high = half2(y);
  const simdgroup_half8x8 of_high = tile_of(high), of_low = tile_of(half2(y - float2(high)));
  UNROLL for (int u = 0; u < U; u += 2) {
    simdgroup_half8x8 powers[2], rests[2];
    UNROLL for (int i = 0; i < 2; i++) {  // columns 2c and 2c + 1: v^2c and v^(2c + 1)
      const float v = v_of(offset % 4 * 8 + l.r + 8 * (u + i)), w = v * v;
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

// Adds all that the logits of exactly corrected keys lack. operands, angles: of each group.
template <int U>
INLINE void add_exact(thread simdgroup_float8x8* s,
                      device const float* record,
                      device const uint* operands,
                      device const float2* angles,
                      uint groups,
                      uint offset,
                      Place l) {
  for (uint g = 0; g < groups; g++) {
    const float4 a = ((device const float4*)(record + g * kHighFloats))[l.r * 4 + l.c];
    add_high_frequency<U>(s, a, angles[g * kAnglesOfHead + offset * 8 + l.r],
                          (device const uint4*)(operands + g * 512) + l.r * 4 + l.c);
  }
  const float2 y = ((device const float2*)(record + groups * kHighFloats + (offset / 4 * kTerms + l.r) * 8))[l.c];
  add_polynomial<U>(s, y, offset, l);
}

// The numbers for position 0, of 8 columns. record: of the first partition.
INLINE device const float* first_numbers(device const float* record, uint stride) {
  return record + stride - kFirstFloats;
}
// Adds them to the logits of a sequence's first 8 tokens.
INLINE void add_first(thread simdgroup_float8x8& s, device const float* numbers, Place l) {
  const float2 x = ((device const float2*)numbers)[l.c];
  thread float2& e = elements(s);
  if (l.r == 0) e = float2(e.x + x.x, e.y + x.y);
}

// What an exactly corrected logit lacks, of one token, r of its tile, and head c, by plain arithmetic: lane (r, c)
// turns pair r of each group.
INLINE float exact_correction(
    device const float* record, device const float2* angles, uint groups, uint offset, uint r, uint c) {
  device const float* terms = record + groups * kHighFloats + offset / 4 * kTerms * 8 + c;
  const float v = v_of(offset % 4 * 8 + r);
  float sum = terms[7 * 8];
  UNROLL for (uint k = 7; k > 0; k--) sum = fma(sum, v, terms[(k - 1) * 8]);
  for (uint g = 0; g < groups; g++) {
    device const float* from = record + g * kHighFloats + (r * 4 + c / 2) * 4 + c % 2;
    device const float2* angle = angles + g * kAnglesOfHead;
    const float2 t = angle[offset * 8 + r];
    const float a = from[0] * t.x + from[2] * t.y, b = from[2] * t.x - from[0] * t.y;
    UNROLL for (uint i = 0; i < 8; i++) {
      const float2 f = angle[kHighAngles * 8 + r * 8 + i];
      sum = fma(simd_shuffle(a, ushort(4 * i + c)), f.x, fma(simd_shuffle(b, ushort(4 * i + c)), f.y, sum));
    }
  }
  return sum;
}
