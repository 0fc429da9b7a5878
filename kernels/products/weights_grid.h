// How products read IQ2 and IQ3. An index names an entry of a grid, which has 4 or 8 magnitudes; signs are stored
// apart. A block has a factor d, the type's fields, and 8 groups of 32 elements. A group has one scale of four bits, or
// one for each 16 elements. An element is +- d (2 scale + 1) m / 8 in IQ2, / 4 in IQ3_XXS, undivided in IQ3_S, where m
// is its magnitude. See weights.h for what a type has.
#pragma once
#include "products/grids.h"
#include "products/weights.h"

INLINE uint half_word_at(device const uchar* p) { return *(device const ushort*)p; }

// Four magnitudes of IQ2, a byte each, from levels of two bits each: levels 0, 1 and 2 stand for 8, 25 and 43.
INLINE uint magnitudes_of_iq2(uint levels) {
  const uint pairs = (levels | levels << 12) & 0x000f000fu, l = (pairs | pairs << 6) & 0x03030303u;
  return 0x08080808u + l + (l << 4) + (l >> 1 & 0x01010101u);
}
// Four levels of three bits, a byte each.
INLINE uint levels_of_iq3(uint levels) {
  const uint pairs = (levels | levels << 10) & 0x003f003fu;
  return (pairs | pairs << 5) & 0x07070707u;
}
// Eight signs, those of elements i and i + 2 at bits i and i + 16.
INLINE uint paired_signs(uint signs) { return signs | signs << 14; }
// Four magnitudes, the first of element i, as the operands of two products, with their signs.
INLINE void four_signed(uint magnitudes, uint paired, uint i, thread half2& even, thread half2& odd) {
  four_codes(magnitudes, 0.0h, even, odd);
  even = as_type<half2>(as_type<uint>(even) ^ (paired << (15 - i) & 0x80008000u));
  odd = as_type<half2>(as_type<uint>(odd) ^ (paired << (14 - i) & 0x80008000u));
}
// Eight signs, of which seven are stored. The eighth makes the number of bits that are set even.
INLINE uint with_parity_sign(uint bits) { return bits | (popcount(bits) & 1u) << 7; }

// The 8 neighbouring elements that a lane has of a group come from two entries of IQ3, of 4 magnitudes each, or one of
// IQ2, of 8. `rest` has their signs in its low bits and, from bit 8 on, the group's scale (XXS) or the ninth bits of
// its indices (IQ3_S).
struct GridStep {
  uint indices;  // 16 bits for each of two groups
  uint rest;     // as many
};
INLINE uint of_group(uint bits, uint g) { return g == 0 ? bits & 0xffffu : bits >> 16; }

// For each group 8 indices of a byte; then for each a word with four times 7 signs, and a scale.
struct IQ3_XXS {
  enum : uint { kLen = 256, kBytes = 98, kSteps = 4, kGroups = 2, kScales = 1 };
  static constant constexpr bool kSplit = false, kMins = false;
  struct Block {
    float d;
  };
  typedef GridStep Step;
  static INLINE Block block(device const uchar* p, uint, float) { return {0.25f * half_at(p)}; }
  static INLINE uint rest(uint word, uint c) { return (word >> 7 * c & 127u) | word >> 28 << 8; }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    device const uchar *q = p + 2 + 16 * i + 2 * c, *words = p + 66 + 8 * i;
    return {half_word_at(q) | half_word_at(q + 8) << 16, rest(word_at(words), c) | rest(word_at(words + 4), c) << 16};
  }
  static INLINE Codes codes(thread const Block&, thread const Step& s, uint, uint g) {
    const uint indices = of_group(s.indices, g), signs = paired_signs(with_parity_sign(of_group(s.rest, g) & 127u));
    Codes to;
    UNROLL for (uint e = 0; e < 2; e++) {
      const uint l = levels_of_iq3(kGridIq3Xxs[indices >> 8 * e & 255u]);
      // 4 + 8 l, but 62 for the last.
      const uint m = 0x04040404u + (l << 3) + ((l & l >> 1 & l >> 2 & 0x01010101u) << 1);
      four_signed(m, signs, 4 * e, to.a[2 * e], to.a[2 * e + 1]);
    }
    return to;
  }
  static INLINE float scale(thread const Block& b, thread const Step& s, uint, uint g, uint) {
    return b.d * float(2 * (of_group(s.rest, g) >> 8) + 1);
  }
  static INLINE float min(thread const Block&, thread const Step&, uint, uint, uint) { return 0.0f; }
};

// For each group 8 low bytes of indices, then for each a byte of their ninth bits, then 4 bytes of signs, then scales.
struct IQ3_S {
  enum : uint { kLen = 256, kBytes = 110, kSteps = 4, kGroups = 2, kScales = 1 };
  static constant constexpr bool kSplit = false, kMins = false;
  struct Block {
    float d;
    uint scales;
  };
  typedef GridStep Step;
  static INLINE Block block(device const uchar* p, uint, float) { return {half_at(p), word_at(p + 106)}; }
  // The signs, and above them the ninth bits of the lane's two indices.
  static INLINE uint rest(uint signs, uint ninth, uint c) { return signs | (ninth >> 2 * c & 3u) << 8; }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    device const uchar *q = p + 2 + 16 * i + 2 * c, *ninth = p + 66 + 2 * i, *signs = p + 74 + 8 * i + c;
    return {half_word_at(q) | half_word_at(q + 8) << 16, rest(signs[0], ninth[0], c) | rest(signs[4], ninth[1], c)
                                                                                           << 16};
  }
  static INLINE Codes codes(thread const Block&, thread const Step& s, uint, uint g) {
    const uint indices = of_group(s.indices, g), rest = of_group(s.rest, g), signs = paired_signs(rest & 255u);
    Codes to;
    UNROLL for (uint e = 0; e < 2; e++) {
      const uint index = (indices >> 8 * e & 255u) | (rest >> (8 + e) & 1u) << 8;
      const uint m = (levels_of_iq3(kGridIq3S[index]) << 1) + 0x01010101u;
      four_signed(m, signs, 4 * e, to.a[2 * e], to.a[2 * e + 1]);
    }
    return to;
  }
  static INLINE float scale(thread const Block& b, thread const Step&, uint i, uint g, uint) {
    return b.d * float(2 * (b.scales >> 4 * (2 * i + g) & 15u) + 1);
  }
  static INLINE float min(thread const Block&, thread const Step&, uint, uint, uint) { return 0.0f; }
};

// For each group 4 indices of a byte, and a word with four times 7 signs and a scale.
struct IQ2_XXS {
  enum : uint { kLen = 256, kBytes = 66, kSteps = 4, kGroups = 2, kScales = 1 };
  static constant constexpr bool kSplit = false, kMins = false;
  struct Block {
    float d;
  };
  typedef GridStep Step;
  static INLINE Block block(device const uchar* p, uint, float) { return {0.125f * half_at(p)}; }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    device const uchar* q = p + 2 + 16 * i;
    return {uint(q[c]) | uint(q[8 + c]) << 16, IQ3_XXS::rest(word_at(q + 4), c) | IQ3_XXS::rest(word_at(q + 12), c)
                                                                                      << 16};
  }
  static INLINE Codes codes(thread const Block&, thread const Step& s, uint, uint g) {
    const uint entry = kGridIq2Xxs[of_group(s.indices, g)];
    const uint signs = paired_signs(with_parity_sign(of_group(s.rest, g) & 127u));
    Codes to;
    UNROLL for (uint e = 0; e < 2; e++) {
      four_signed(magnitudes_of_iq2(entry >> 8 * e & 255u), signs, 4 * e, to.a[2 * e], to.a[2 * e + 1]);
    }
    return to;
  }
  static INLINE float scale(thread const Block& b, thread const Step& s, uint, uint g, uint) {
    return b.d * float(2 * (of_group(s.rest, g) >> 8) + 1);
  }
  static INLINE float min(thread const Block&, thread const Step&, uint, uint, uint) { return 0.0f; }
};

// IQ2_XS (NINE) has 16 bits for each 8 elements: an index of 9 bits with 7 signs above. IQ2_S has the low byte of each
// index, then a byte of signs for each 8 elements, then for each group a byte with the upper two bits of its four
// indices. Both end with the scales, two a group. A lane has half of one entry in the first 16 elements of a group and
// half of one in the last 16.
template <bool NINE>
struct GridHalves {
  enum : uint { kLen = 256, kBytes = NINE ? 74 : 82, kSteps = 4, kGroups = 2, kScales = 2 };
  static constant constexpr bool kSplit = true, kMins = false;
  struct Block {
    float d;
    uint scales[2];
  };
  struct Step {
    uint levels, signs;  // 16 bits for each of two groups: 4 levels or signs of its first half, then of the other
  };
  static INLINE Block block(device const uchar* p, uint, float) {
    return {0.125f * half_at(p), {word_at(p + kBytes - 8), word_at(p + kBytes - 4)}};
  }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    Step to = {0, 0};
    const uint odd = c % 2;
    UNROLL for (uint g = 0; g < 2; g++) {
      UNROLL for (uint h = 0; h < 2; h++) {
        const uint at = 8 * i + 4 * g + 2 * h + c / 2;
        uint entry, signs;
        if (NINE) {
          const uint word = half_word_at(p + 2 + 2 * at);
          entry = kGridIq2Xs[word & 511u];
          signs = with_parity_sign(word >> 9);
        } else {
          entry = kGridIq2S[p[2 + at] | (uint(p[66 + 2 * i + g]) >> (4 * h + c / 2 * 2) & 3u) << 8];
          signs = p[34 + at];
        }
        to.levels |= (entry >> 8 * odd & 255u) << (16 * g + 8 * h);
        to.signs |= (signs >> 4 * odd & 15u) << (16 * g + 4 * h);
      }
    }
    return to;
  }
  static INLINE Codes codes(thread const Block&, thread const Step& s, uint, uint g) {
    const uint levels = of_group(s.levels, g), signs = paired_signs(of_group(s.signs, g));
    Codes to;
    UNROLL for (uint h = 0; h < 2; h++) {
      four_signed(magnitudes_of_iq2(levels >> 8 * h & 255u), signs, 4 * h, to.a[2 * h], to.a[2 * h + 1]);
    }
    return to;
  }
  static INLINE float scale(thread const Block& b, thread const Step&, uint i, uint g, uint h) {
    const uint scale = b.scales[i / 2] >> (16 * (i % 2) + 8 * g + 4 * h) & 15u;
    return b.d * float(2 * scale + 1);
  }
  static INLINE float min(thread const Block&, thread const Step&, uint, uint, uint) { return 0.0f; }
};
typedef GridHalves<true> IQ2_XS;
typedef GridHalves<false> IQ2_S;
