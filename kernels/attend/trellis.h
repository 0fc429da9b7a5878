// Values of trellis codes (crates/turboquant/src/trellis.rs), from a lane's words of chained codes.
//
// The words of K are one string of bits, the older codes in the higher bits, each word behind the one before it, the
// first behind the last one of the lane before. A word of V has a string in either half, one a token, each behind the
// same word of the lane before, and that of the first lane behind the last lane's word before. So what the codes before
// an element add to its point is one shift of all elements of a word. `Words::before` has what comes from other lanes.
#pragma once
#include "attend/matrix.h"
#include "common/bits.h"
#include "common/formats.h"

// Half words of chained codes of a lane's strings, and codes in a last one that is not full.
template <int D>
struct Chain {
  static INLINE int words(uint f) { return D / 8 / int(half_word_codes(f)); }
  static INLINE int rest(uint f) { return D / 8 % int(half_word_codes(f)); }
};

// All codes of a word moved down by n < 16 bits, below the lowest n bits of the word before.
INLINE uint behind(bool value, uint before, uint x, uint n) {
  if (!value) return shift_pair(before, x, n);
  return select_bits((0xffffu >> n) * 0x10001u, x >> n, before << (16 - n));
}
// The points without free bits of the four elements whose codes lie at bit `at` of a full word's bytes, a byte each.
// Where a point has 7 bits, the eighth may be anything.
INLINE uint points_of(uint f, bool value, uint before, uint x, uint at) {
  const uint level = x ^ behind(value, before, x, history_shift(f));
  if (main_bits(f) == 4)
    return at == 0 ? select_bits(0x0f0f0f0fu, x, level << 4) : select_bits(0x0f0f0f0fu, x >> 4, level);
  const uint own = at == 0 ? x : at == 2 && value ? x >> 2 : behind(value, before, x, at);
  return select_bits(0x1f1f1f1fu, own, at <= 5 ? level << (5 - at) : level >> (at - 5));
}
// A last word that is not full, whose codes are the lowest `count` of each half, with those before them above.
INLINE uint with_history(uint f, bool value, uint before, uint x, uint count) {
  const uint n = count * main_bits(f), all = 0xffffu << n & 0xffffu;
  if (value) return (x & ((1u << n) - 1u) * 0x10001u) | (before << n & all * 0x10001u);
  const uint older = x >> 16 | before << n;
  return ((x & ((1u << n) - 1u)) | (older << n & 0xffffu)) | older << 16;
}

// t ((t t + B)^2 + E), every step rounded to half, where t = point / 2^(bits - 1) - 1 is exact. points: or-ed into the
// mantissas of half2(1024). The factor C is `unit_of` the format.
INLINE half2 trellis_value(uint f, uint points, uint bits) {
  const uint factor = bits == 9 ? 0x1c001c00u : bits == 8 ? 0x20002000u : 0x24002400u;  // 2^-8, 2^-7, 2^-6
  const uint offset = bits == 9 ? 0xc500c500u : bits == 8 ? 0xc880c880u : 0xcc40cc40u;  // -5, -9, -17
  const half2 t = fma(as_type<half2>(points), as_type<half2>(factor), as_type<half2>(offset));
  const half2 inner = fma(t, t, as_type<half2>(trellis_inner(f)));
  return t * fma(inner, inner, as_type<half2>(trellis_outer(f)));
}
// The j-th two elements of a lane, without scales. x: chained codes; free_bits: those, in bytes of 8; befores: the
// words before that are not the lane's.
template <int D>
INLINE half2 trellis_pair(uint f,
                          bool value,
                          thread const uint* x,
                          thread const uint* free_bits,
                          thread const uint* befores,
                          int j,
                          uint magic) {
  const int each = half_word_codes(f), w = j / each;
  const uint k = main_bits(f), n = level_shift(f), bits = code_bits(f) + n,
             before = value   ? befores[w]
                      : w > 0 ? x[w - 1]
                              : befores[0];
  const uint free = has_top_plane(f) ? free_bits[j / 16] : 0, bit = FreeBits<D>::bit_of(f, j);
  if (w < Chain<D>::words(f)) {
    const uint at = (each - 1 - j % each) * k;
    const uint points = points_of(f, value, before, x[w], at % 8);
    if (bits == 9) {
      const uint above = (free >> bit % 8 & 0x01010101u) | (magic | magic >> 8);
      return trellis_value(f, pair_bytes(above, points, at >= 8), bits);
    }
    const uint whole = bits == 8 && has_top_plane(f) ? select_bits(0x7f7f7f7fu, points, free << (7 - bit % 8))
                       : bits == 7                   ? points & 0x7f7f7f7fu
                                                     : points;
    return trellis_value(f, bytes_below(magic, whole, at >= 8), bits);
  }
  const int count = Chain<D>::rest(f);
  const uint at = (count - 1 - j % each) * k, codes = with_history(f, value, before, x[w], count),
             level = codes ^ codes >> history_shift(f);
  const uint points = (level >> at & ((1u << k) - 1u) * 0x10001u) << n | (codes >> at & ((1u << n) - 1u) * 0x10001u);
  return trellis_value(f, points | (free >> bit & 0x10001u) << (bits - 1) | magic, bits);
}
// The words before a lane's own that other lanes have.
template <int D>
INLINE void find_before(uint f, bool value, thread const uint* x, thread uint* befores, Place l) {
  const int words = Chain<D>::words(f), rest = Chain<D>::rest(f);
  if (!value) {
    const uint last = rest > 0 ? with_history(f, value, x[words > 0 ? words - 1 : 0], x[words], rest) : x[words - 1];
    befores[0] = simd_shuffle(last, l.column_before);
    return;
  }
  uint last = 0;  // of the lane before, the word before the next one
  UNROLL for (int w = 0; w < words; w++) {
    const uint other = simd_shuffle(x[w], l.row_before);
    befores[w] = l.r == 0 ? last : other;
    last = other;
  }
  if (rest > 0) {
    // Twice, since the codes of a lane may be fewer than a history has.
    const uint other = simd_shuffle(x[words], l.row_before);
    const uint codes = with_history(f, value, l.r == 0 ? last : other, x[words], rest),
               whole = simd_shuffle(codes, l.row_before);
    befores[words] = l.r == 0 ? last : whole;
    last = whole;
  }
  if (l.r == 0) befores[0] = last;
}
