// How products read MLX's types, in blocks as crates/matmul/src/quant/mlx.rs packs them: scales, biases, then the codes
// of each 32 elements in planes of 8, 4, 2 or 1 bits, the widest of the lowest bits. Byte j of word i of a plane of w
// bits has those of elements 4 i + j, 4 (i + w) + j and so on. See weights.h for what a type has.
#pragma once
#include "products/weights.h"

// A lane's words of a group's planes. Its elements are 4c .. and, four bits above these, 16 + 4c ..; codes of 8 bits
// have a word for each half.
template <uint BITS>
struct PlaneWords {
  enum : uint { kWide = BITS >= 8 ? 8 : BITS >= 4 ? 4 : 2, kNarrow = BITS - kWide };  // bits of the planes
  uint wide[2], narrow;
};
template <uint BITS>
INLINE PlaneWords<BITS> plane_words(device const uint* from, uint c) {
  constexpr uint wide = PlaneWords<BITS>::kWide, narrow = PlaneWords<BITS>::kNarrow, step = narrow == 2 ? 2 : 1;
  return {{from[c % wide] >> wide * (c / wide), BITS == 8 ? from[4 + c] : 0u},
          narrow > 0 ? from[wide + c % step] >> step * (c / step) : 0u};
}
// The codes of half h of a group, a byte each.
template <uint BITS>
INLINE uint plane_codes(thread const PlaneWords<BITS>& words, uint h) {
  constexpr uint wide = PlaneWords<BITS>::kWide, narrow = PlaneWords<BITS>::kNarrow;
  if (BITS == 8) return words.wide[h];
  const uint low = words.wide[0] >> 4 * h & 0x01010101u * ((1u << wide) - 1u);
  return low | (words.narrow >> 4 * h & 0x01010101u * ((1u << narrow) - 1u)) << wide % 8;
}

// s, b, codes of BITS bits of GROUP elements: s q + b. s and b are bf16 where WIDE is set, else f16.
template <uint BITS, uint GROUP, bool WIDE>
struct Affine {
  enum : uint { kOwn = 4 + GROUP * BITS / 8, kStepsOfGroup = GROUP / 32 };
  enum : uint { kLen = 128, kBytes = 128 / GROUP * kOwn, kSteps = 4, kGroups = 1, kScales = 1 };
  static constant constexpr bool kSplit = true, kMins = true;
  struct Block {};
  struct Step {
    PlaneWords<BITS> words;
    float s, b;
  };
  static INLINE Block block(device const uchar*, uint, float) { return {}; }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    device const uint* group = (device const uint*)(p + i / kStepsOfGroup * kOwn);
    const uint head = group[0];
    const half2 halves = as_type<half2>(head);
    return {plane_words<BITS>(group + 1 + i % kStepsOfGroup * BITS, c),
            WIDE ? as_type<float>(head << 16) : float(halves.x),
            WIDE ? as_type<float>(head & 0xffff0000u) : float(halves.y)};
  }
  static INLINE Codes codes(thread const Block&, thread const Step& s, uint, uint) {
    Codes to;
    UNROLL for (uint h = 0; h < 2; h++) four_codes(plane_codes<BITS>(s.words, h), 0.0h, to.a[2 * h], to.a[2 * h + 1]);
    return to;
  }
  static INLINE float scale(thread const Block&, thread const Step& s, uint, uint, uint) { return s.s; }
  static INLINE float min(thread const Block&, thread const Step& s, uint, uint, uint) { return -s.b; }
};
#define AFFINE_TYPES(BITS)                                  \
  typedef Affine<BITS, 32, false> AFFINE##BITS##_G32_F16;   \
  typedef Affine<BITS, 32, true> AFFINE##BITS##_G32_BF16;   \
  typedef Affine<BITS, 64, false> AFFINE##BITS##_G64_F16;   \
  typedef Affine<BITS, 64, true> AFFINE##BITS##_G64_BF16;   \
  typedef Affine<BITS, 128, false> AFFINE##BITS##_G128_F16; \
  typedef Affine<BITS, 128, true> AFFINE##BITS##_G128_BF16;
AFFINE_TYPES(2)
AFFINE_TYPES(3)
AFFINE_TYPES(4)
AFFINE_TYPES(5)
AFFINE_TYPES(6)
AFFINE_TYPES(8)

// Two scales e of FP8 (E4M3), 32 nibbles, the first 16 elements' in the low ones: e / 2 times the values of MXFP4.
struct NVFP4 {
  enum : uint { kOwn = 18 };  // bytes of 32 elements
  enum : uint { kLen = 128, kBytes = 4 * kOwn, kSteps = 4, kGroups = 1, kScales = 2 };
  static constant constexpr bool kSplit = true, kMins = false;
  struct Block {};
  struct Step {
    uint w, scales;
  };
  static INLINE Block block(device const uchar*, uint, float) { return {}; }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    device const uchar* q = p + kOwn * i;
    return {word_at(q + 2 + 4 * c), uint(*(device const ushort*)q)};
  }
  static INLINE Codes codes(thread const Block&, thread const Step& s, uint, uint) { return nibble_values(s.w, 1); }
  // The bits of e, moved to where halves have exponent and fraction, are 2^8 times less.
  static INLINE float scale(thread const Block&, thread const Step& s, uint, uint, uint h) {
    const uint e = s.scales >> 8 * h;
    return 128.0f * float(as_type<half2>((e & 0x7fu) << 7 | (e & 0x80u) << 8).x);
  }
  static INLINE float min(thread const Block&, thread const Step&, uint, uint, uint) { return 0.0f; }
};

// KERNELS(name, type) for the types of codes of BITS bits.
#define AFFINE_KERNELS(KERNELS, BITS)                          \
  KERNELS("affine" #BITS "_g32_f16", AFFINE##BITS##_G32_F16)   \
  KERNELS("affine" #BITS "_g32_bf16", AFFINE##BITS##_G32_BF16) \
  KERNELS("affine" #BITS "_g64_f16", AFFINE##BITS##_G64_F16)   \
  KERNELS("affine" #BITS "_g64_bf16", AFFINE##BITS##_G64_BF16) \
  KERNELS("affine" #BITS "_g128_f16", AFFINE##BITS##_G128_F16) \
  KERNELS("affine" #BITS "_g128_bf16", AFFINE##BITS##_G128_BF16)
