// How products read weights: ggml's quantisation blocks and 16-bit floats, as they lie in files.
//
// A product goes down k in groups of 32 elements. Of a group of one row, a lane of an 8x8 matrix with columns 2c and
// 2c + 1 has 8 elements as left operands of four products, `a[j]`. Their places in the group depend on the type:
//   kSplit false: a[j] has elements 8c + {0, 2}, {1, 3}, {4, 6}, {5, 7}, so that a lane's bytes are neighbours
//   kSplit true:  a[j] has elements 4c + {0, 2}, {1, 3}, 16 + 4c + {0, 2}, {1, 3}, so that a[0], a[1] are of the first
//                 16 elements and a[2], a[3] of the others, which may have another scale
// Codes stay integers, which are exact in half; scales and minima are applied to sums.
//
// A type W has
//   kLen, kBytes     elements and bytes of its block, which for types of smaller blocks, and floats, are 128 elements
//   kSteps, kGroups  a block is read in kSteps steps of kGroups groups; a row may end after any step
//   kScales          scales of a group: 1, or 2 of 16 elements each, or 0 for floats
//   kMins            whether there are minima, as many as scales
//   Block, Step      what a lane reads of a row's block, and of step i of the block
//   codes(.., i, g)  the operands of group g of step i
//   scale(.., h)     what sums of products with codes of half h of the group are multiplied by; h is 0 for one scale
//   min(.., h)       what the sum of x over the half, or the group, is multiplied by and subtracted
#pragma once
#include "common/matrices.h"
#include "common/bits.h"

// Words at any even address.
INLINE uint word_at(device const uchar* p) {
  device const ushort* q = (device const ushort*)p;
  return uint(q[0]) | uint(q[1]) << 16;
}
INLINE float half_at(device const uchar* p) { return float(*(device const half*)p); }

constant constexpr uint kMagic = 0x64006400u;  // two halves of 1024: bits or-ed in below count ones
// The codes in the bits of `mask`, which are among bits 0 to 9 of the halves of a word, less `offset`, and with other
// bits of such codes set. All is exact, 1024 + code below 2048.
INLINE half2 code_pair(uint bits, uint mask, half offset, uint others = 0) {
  return as_type<half2>(select_bits(mask, bits, kMagic) | others) - half2(1024.0h + offset);
}
// Four codes of a byte each, less `offset`, as the operands of two products.
INLINE void four_codes(uint bytes, half offset, thread half2& even, thread half2& odd) {
  even = code_pair(bytes, 0x00ff00ffu, offset);
  odd = code_pair(bytes >> 8, 0x00ff00ffu, offset);
}
// A lane's operands of a group of one row.
struct Codes {
  half2 a[4];
};
// The low bit of each byte from bits 0 to 3.
INLINE uint spread(uint bits) { return (bits | bits << 7 | bits << 14 | bits << 21) & 0x01010101u; }

// d, 32 signed bytes: d q.
struct Q8_0 {
  enum : uint { kLen = 128, kBytes = 4 * 34, kSteps = 4, kGroups = 1, kScales = 1 };
  static constant constexpr bool kSplit = false, kMins = false;
  struct Block {};
  struct Step {
    uint w[2];
    float d;
  };
  static INLINE Block block(device const uchar*, uint, float) { return {}; }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    device const uchar* q = p + 34 * i;
    return {{word_at(q + 2 + 8 * c), word_at(q + 6 + 8 * c)}, half_at(q)};
  }
  static INLINE Codes codes(thread const Block&, thread const Step& s, uint, uint) {
    Codes to;
    four_codes(s.w[0] ^ 0x80808080u, 128.0h, to.a[0], to.a[1]);
    four_codes(s.w[1] ^ 0x80808080u, 128.0h, to.a[2], to.a[3]);
    return to;
  }
  static INLINE float scale(thread const Block&, thread const Step& s, uint, uint, uint) { return s.d; }
  static INLINE float min(thread const Block&, thread const Step&, uint, uint, uint) { return 0.0f; }
};

// d, with MIN m, with FIFTH a word of fifth bits, 32 nibbles, the first 16 elements' in the low ones: d q + m, or
// d (q - 8), or d (q - 16) where codes have a fifth bit.
template <bool FIFTH, bool MIN>
struct Nibbles {
  enum : uint { kOwn = 18 + (FIFTH ? 4 : 0) + (MIN ? 2 : 0) };  // bytes of 32 elements
  enum : uint { kLen = 128, kBytes = 4 * kOwn, kSteps = 4, kGroups = 1, kScales = 1 };
  static constant constexpr bool kSplit = true, kMins = MIN;
  struct Block {};
  struct Step {
    uint w, fifth;  // fifth bits of the lane's elements: bits 0 to 3 and 16 to 19
    float d, m;
  };
  static INLINE Block block(device const uchar*, uint, float) { return {}; }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    device const uchar* q = p + kOwn * i;
    return {word_at(q + (kOwn - 16) + 4 * c), FIFTH ? word_at(q + (kOwn - 20)) >> 4 * c : 0u, half_at(q),
            MIN ? half_at(q + 2) : 0.0f};
  }
  static INLINE Codes codes(thread const Block&, thread const Step& s, uint, uint) {
    Codes to;
    const half offset = MIN ? 0.0h : FIFTH ? 16.0h : 8.0h;
    UNROLL for (uint h = 0; h < 2; h++) {
      uint bytes = s.w >> 4 * h & 0x0f0f0f0fu;
      if (FIFTH) bytes |= spread(s.fifth >> 16 * h & 15u) << 4;
      four_codes(bytes, offset, to.a[2 * h], to.a[2 * h + 1]);
    }
    return to;
  }
  static INLINE float scale(thread const Block&, thread const Step& s, uint, uint, uint) { return s.d; }
  static INLINE float min(thread const Block&, thread const Step& s, uint, uint, uint) { return -s.m; }
};
typedef Nibbles<false, false> Q4_0;
typedef Nibbles<false, true> Q4_1;
typedef Nibbles<true, false> Q5_0;
typedef Nibbles<true, true> Q5_1;

// d, dmin, 8 scales and minima of 6 bits, with FIFTH 32 bytes of fifth bits, 128 bytes of nibbles, of which 32 hold
// two groups, the first in the low nibbles. Bit g of a byte of fifth bits is group g's. d scale q - dmin min.
template <bool FIFTH>
struct NibbleGroups {
  enum : uint { kLen = 256, kBytes = FIFTH ? 176 : 144, kSteps = 4, kGroups = 2, kScales = 1 };
  static constant constexpr bool kSplit = false, kMins = true;
  struct Block {
    float d[2], dmin;
    half2 scales[2][2], mins[2][2];  // [g][i / 2] of group 2 i + g, step i % 2 of the two
    uint2 fifth;
  };
  struct Step {
    uint2 w;
  };
  static INLINE Block block(device const uchar* p, uint c, float) {
    const uint4 h = *(device const uint4*)p;
    const half2 d = as_type<half2>(h.x);
    const uint low = 0x0f0f0f0fu, high = 0x30303030u, first = 0x3f3f3f3fu;
    Block to;
    // High nibbles stay where they are: their codes are 16 times as large, and their scale is a sixteenth.
    to.d[0] = float(d.x);
    to.d[1] = 0.0625f * to.d[0];
    to.dmin = float(d.y);
    four_codes(h.y & first, 0.0h, to.scales[0][0], to.scales[1][0]);
    four_codes((h.w & low) | (h.y >> 2 & high), 0.0h, to.scales[0][1], to.scales[1][1]);
    four_codes(h.z & first, 0.0h, to.mins[0][0], to.mins[1][0]);
    four_codes((h.w >> 4 & low) | (h.z >> 2 & high), 0.0h, to.mins[0][1], to.mins[1][1]);
    to.fifth = FIFTH ? *(device const uint2*)(p + 16 + 8 * c) : uint2(0);
    return to;
  }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    return {*(device const uint2*)(p + (kBytes - 128) + 32 * i + 8 * c)};
  }
  static INLINE Codes codes(thread const Block& b, thread const Step& s, uint i, uint g) {
    Codes to;
    const uint mask = g == 0 ? 0x000f000fu : 0x00f000f0u;
    UNROLL for (uint e = 0; e < 2; e++) {
      UNROLL for (uint odd = 0; odd < 2; odd++) {
        const uint fifth = FIFTH ? (b.fifth[e] >> (8 * odd + 2 * i + g) & 0x00010001u) << (4 + 4 * g) : 0u;
        to.a[2 * e + odd] = code_pair(s.w[e] >> 8 * odd, mask, 0.0h, fifth);
      }
    }
    return to;
  }
  static INLINE float of_step(half2 first, half2 second, uint i) {
    const half2 two = i < 2 ? first : second;
    return float(i % 2 == 0 ? two.x : two.y);
  }
  static INLINE float scale(thread const Block& b, thread const Step&, uint i, uint g, uint) {
    return b.d[g] * of_step(b.scales[g][0], b.scales[g][1], i);
  }
  static INLINE float min(thread const Block& b, thread const Step&, uint i, uint g, uint) {
    return b.dmin * of_step(b.mins[g][0], b.mins[g][1], i);
  }
};
typedef NibbleGroups<false> Q4_K;
typedef NibbleGroups<true> Q5_K;

// The other types of 256 elements have two steps of 128, of four groups, each with two scales.
//
// 128 bytes of nibbles, 64 of the two bits above, 16 signed scales, d: d scale (q - 32). A step has 64 bytes of
// nibbles, groups 0 and 1 in the low ones, 2 and 3 in the high ones, and 32 bytes with two bits of each group.
struct Q6_K {
  enum : uint { kLen = 256, kBytes = 210, kSteps = 2, kGroups = 4, kScales = 2 };
  static constant constexpr bool kSplit = true, kMins = false;
  struct Block {
    float d;
  };
  struct Step {
    uint low[2][2], high[2], scales[2];
  };
  static INLINE Block block(device const uchar* p, uint, float) { return {half_at(p + 208)}; }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    device const uchar *low = p + 64 * i + 4 * c, *high = p + 128 + 32 * i + 4 * c, *scales = p + 192 + 8 * i;
    return {{{word_at(low), word_at(low + 16)}, {word_at(low + 32), word_at(low + 48)}},
            {word_at(high), word_at(high + 16)},
            {word_at(scales), word_at(scales + 4)}};
  }
  static INLINE Codes codes(thread const Block&, thread const Step& s, uint, uint g) {
    Codes to;
    UNROLL for (uint h = 0; h < 2; h++) {
      const uint low = s.low[g % 2][h] >> (g < 2 ? 0 : 4) & 0x0f0f0f0fu, high = s.high[h] >> 2 * g & 0x03030303u;
      four_codes(low | high << 4, 32.0h, to.a[2 * h], to.a[2 * h + 1]);
    }
    return to;
  }
  static INLINE float scale(thread const Block& b, thread const Step& s, uint, uint g, uint h) {
    const uint at_top = s.scales[g / 2] << (24 - 16 * (g % 2) - 8 * h);
    return b.d * float(as_type<int>(at_top) >> 24);
  }
  static INLINE float min(thread const Block&, thread const Step&, uint, uint, uint) { return 0.0f; }
};

// 16 bytes of scales, with the minimum in the high nibble, 64 bytes of codes, d, dmin: d scale q - dmin min. A step has
// 32 bytes of codes with two bits of each group.
struct Q2_K {
  enum : uint { kLen = 256, kBytes = 84, kSteps = 2, kGroups = 4, kScales = 2 };
  static constant constexpr bool kSplit = true, kMins = true;
  struct Block {
    float d, dmin;
  };
  struct Step {
    uint w[2], scales[2];
  };
  static INLINE Block block(device const uchar* p, uint, float) { return {half_at(p + 80), half_at(p + 82)}; }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    device const uchar *w = p + 16 + 32 * i + 4 * c, *scales = p + 8 * i;
    return {{word_at(w), word_at(w + 16)}, {word_at(scales), word_at(scales + 4)}};
  }
  static INLINE Codes codes(thread const Block&, thread const Step& s, uint, uint g) {
    Codes to;
    UNROLL for (uint h = 0; h < 2; h++) {
      four_codes(s.w[h] >> 2 * g & 0x03030303u, 0.0h, to.a[2 * h], to.a[2 * h + 1]);
    }
    return to;
  }
  static INLINE float scale(thread const Block& b, thread const Step& s, uint, uint g, uint h) {
    return b.d * float(s.scales[g / 2] >> (16 * (g % 2) + 8 * h) & 15u);
  }
  static INLINE float min(thread const Block& b, thread const Step& s, uint, uint g, uint h) {
    return b.dmin * float(s.scales[g / 2] >> (16 * (g % 2) + 8 * h + 4) & 15u);
  }
};

// 32 bytes of third bits, 64 of codes, 12 of scales, d: d (scale - 32) (q - 4). Bit 4 i + g of a byte of third bits is
// that of group g of step i; codes lie as in Q2_K. The scales of step 0 have their low four bits in the low nibbles of
// 8 bytes, those of step 1 in the high ones; the last 4 bytes have the two bits above.
struct Q3_K {
  enum : uint { kLen = 256, kBytes = 110, kSteps = 2, kGroups = 4, kScales = 2 };
  static constant constexpr bool kSplit = true, kMins = false;
  struct Block {
    float d;
    uint third[2], scales[3];
  };
  struct Step {
    uint w[2];
  };
  static INLINE Block block(device const uchar* p, uint c, float) {
    return {half_at(p + 108),
            {word_at(p + 4 * c), word_at(p + 16 + 4 * c)},
            {word_at(p + 96), word_at(p + 100), word_at(p + 104)}};
  }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    device const uchar* w = p + 32 + 32 * i + 4 * c;
    return {{word_at(w), word_at(w + 16)}};
  }
  static INLINE Codes codes(thread const Block& b, thread const Step& s, uint i, uint g) {
    Codes to;
    UNROLL for (uint h = 0; h < 2; h++) {
      const uint low = s.w[h] >> 2 * g & 0x03030303u, third = b.third[h] >> (4 * i + g) & 0x01010101u;
      four_codes(low | third << 2, 4.0h, to.a[2 * h], to.a[2 * h + 1]);
    }
    return to;
  }
  static INLINE float scale(thread const Block& b, thread const Step&, uint i, uint g, uint h) {
    const uint byte = 16 * (g % 2) + 8 * h;
    const uint low = b.scales[g / 2] >> (byte + 4 * i) & 15u, high = b.scales[2] >> (byte + 4 * i + 2 * (g / 2)) & 3u;
    return b.d * float(int(low | high << 4) - 32);
  }
  static INLINE float min(thread const Block&, thread const Step&, uint, uint, uint) { return 0.0f; }
};

// 64 bytes of codes, of which a step has 32 with two bits of each group, d: d (q - 1).
struct TQ2_0 {
  enum : uint { kLen = 256, kBytes = 66, kSteps = 2, kGroups = 4, kScales = 1 };
  static constant constexpr bool kSplit = false, kMins = false;
  struct Block {
    float d;
  };
  struct Step {
    uint w[2];
  };
  static INLINE Block block(device const uchar* p, uint, float) { return {half_at(p + 64)}; }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    device const uchar* w = p + 32 * i + 8 * c;
    return {{word_at(w), word_at(w + 4)}};
  }
  static INLINE Codes codes(thread const Block&, thread const Step& s, uint, uint g) {
    Codes to;
    UNROLL for (uint e = 0; e < 2; e++) {
      four_codes(s.w[e] >> 2 * g & 0x03030303u, 1.0h, to.a[2 * e], to.a[2 * e + 1]);
    }
    return to;
  }
  static INLINE float scale(thread const Block& b, thread const Step&, uint, uint, uint) { return b.d; }
  static INLINE float min(thread const Block&, thread const Step&, uint, uint, uint) { return 0.0f; }
};

// 48 bytes of five codes and 4 of four, d: d (q - 1). A byte is a fraction of 256, whose digits to the base 3 are its
// codes. The first digits of 32 bytes are group 0's, the second ones group 1's, and so on; those of 16 bytes are the
// halves of groups 5, 6 and 7, whose second half has those of the last 4 bytes.
struct TQ1_0 {
  enum : uint { kLen = 256, kBytes = 54, kSteps = 2, kGroups = 4, kScales = 1 };
  static constant constexpr bool kSplit = true, kMins = false;
  struct Block {
    float d;
    uint w[4], c;  // of 16 bytes each a lane's four; the last 4 bytes
  };
  struct Step {};
  static INLINE Block block(device const uchar* p, uint c, float) {
    device const uchar* w = p + 4 * c;
    return {half_at(p + 52), {word_at(w), word_at(w + 16), word_at(w + 32), word_at(p + 48)}, c};
  }
  static INLINE Step step(device const uchar*, uint, uint) { return {}; }
  // Digit n of the four bytes of w, the first is 0.
  static INLINE uint digits(uint w, uint n) {
    const uint power = n == 0 ? 1 : n == 1 ? 3 : n == 2 ? 9 : n == 3 ? 27 : 81;
    const uint even = (w & 0x00ff00ffu) * power & 0x00ff00ffu, odd = (w >> 8 & 0x00ff00ffu) * power & 0x00ff00ffu;
    return (even * 3 >> 8 & 0x00030003u) | (odd * 3 & 0x03000300u);
  }
  static INLINE Codes codes(thread const Block& b, thread const Step&, uint i, uint g) {
    const uint group = 4 * i + g;
    Codes to;
    UNROLL for (uint h = 0; h < 2; h++) {
      const bool last = group == 7 && h == 1;
      const uint w = group < 5 ? b.w[h] : last ? b.w[3] : b.w[2];
      const uint n = group < 5 ? group : last ? b.c : 2 * (group - 5) + h;
      four_codes(digits(w, n), 1.0h, to.a[2 * h], to.a[2 * h + 1]);
    }
    return to;
  }
  static INLINE float scale(thread const Block& b, thread const Step&, uint, uint, uint) { return b.d; }
  static INLINE float min(thread const Block&, thread const Step&, uint, uint, uint) { return 0.0f; }
};

// What nibbles stand for, as the bits of halves: -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89
// and 113 for IQ4_NL and IQ4_XS; 0, 1, 2, 3, 4, 6, 8, 12 and their negatives, twice the values of FP4 (E2M1), for
// MXFP4.
constant ushort kNibbleValues[2][16] = {{0xd7f0, 0xd680, 0xd530, 0xd410, 0xd220, 0xd060, 0xcd80, 0xc900, 0x3c00, 0x4a80,
                                         0x4e40, 0x50c0, 0x52a0, 0x5450, 0x5590, 0x5710},
                                        {0x0000, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4600, 0x4800, 0x4a00, 0x0000, 0xbc00,
                                         0xc000, 0xc200, 0xc400, 0xc600, 0xc800, 0xca00}};
// The values of a word's nibbles: those of the low ones and then of the high ones, as operands of products.
INLINE Codes nibble_values(uint w, uint which) {
  Codes to;
  UNROLL for (uint h = 0; h < 2; h++) {
    UNROLL for (uint odd = 0; odd < 2; odd++) {
      const uint at = w >> (4 * h + 8 * odd);
      const uint low = kNibbleValues[which][at & 15u], high = kNibbleValues[which][at >> 16 & 15u];
      to.a[2 * h + odd] = as_type<half2>(low | high << 16);
    }
  }
  return to;
}
// Words at any address.
INLINE uint word_of_bytes(device const uchar* p) {
  return p[0] | uint(p[1]) << 8 | uint(p[2]) << 16 | uint(p[3]) << 24;
}

// d or, with FP4, a byte e for the scale 2^(e - 128); 32 nibbles, the first 16 elements' in the low ones.
template <bool FP4>
struct NamedNibbles {
  enum : uint { kOwn = FP4 ? 17 : 18 };  // bytes of 32 elements
  enum : uint { kLen = 128, kBytes = 4 * kOwn, kSteps = 4, kGroups = 1, kScales = 1 };
  static constant constexpr bool kSplit = true, kMins = false;
  struct Block {};
  struct Step {
    uint w;
    float d;
  };
  static INLINE Block block(device const uchar*, uint, float) { return {}; }
  // The two least powers are below the normal numbers, which a GPU may take for 0.
  static INLINE float power(uint e) { return as_type<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23); }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    device const uchar* q = p + kOwn * i;
    return {FP4 ? word_of_bytes(q + 1 + 4 * c) : word_at(q + 2 + 4 * c), FP4 ? power(q[0]) : half_at(q)};
  }
  static INLINE Codes codes(thread const Block&, thread const Step& s, uint, uint) {
    return nibble_values(s.w, FP4 ? 1 : 0);
  }
  static INLINE float scale(thread const Block&, thread const Step& s, uint, uint, uint) { return s.d; }
  static INLINE float min(thread const Block&, thread const Step&, uint, uint, uint) { return 0.0f; }
};
typedef NamedNibbles<false> IQ4_NL;
typedef NamedNibbles<true> MXFP4;

// d, 2 bytes and 4 of scales, 128 of nibbles, 16 a group, whose first 16 elements have the low ones: d (scale - 32) v.
// The 4 bytes have the low four bits of the groups' scales, the 2 those above.
struct IQ4_XS {
  enum : uint { kLen = 256, kBytes = 136, kSteps = 4, kGroups = 2, kScales = 1 };
  static constant constexpr bool kSplit = true, kMins = false;
  struct Block {
    float d;
    uint high, low;
  };
  struct Step {
    uint w[2];
  };
  static INLINE Block block(device const uchar* p, uint, float) {
    const uint2 h = *(device const uint2*)p;
    return {float(as_type<half2>(h.x).x), h.x >> 16, h.y};
  }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    device const uint* w = (device const uint*)(p + 8 + 32 * i + 4 * c);
    return {{w[0], w[4]}};
  }
  static INLINE Codes codes(thread const Block&, thread const Step& s, uint, uint g) {
    return nibble_values(s.w[g], 0);
  }
  static INLINE float scale(thread const Block& b, thread const Step&, uint i, uint g, uint) {
    const uint group = 2 * i + g;
    return b.d * float(int((b.low >> 4 * group & 15u) | (b.high >> 2 * group & 3u) << 4) - 32);
  }
  static INLINE float min(thread const Block&, thread const Step&, uint, uint, uint) { return 0.0f; }
};

// 16-bit floats, WIDE ones bf16; rows are padded to whole groups. bf16 is multiplied by `unit`, a power of two that
// brings the largest weight to where half has room above and below it.
template <bool WIDE>
struct Floats {
  enum : uint { kLen = 128, kBytes = 256, kSteps = 4, kGroups = 1, kScales = 0 };
  static constant constexpr bool kSplit = false, kMins = false;
  struct Block {
    float unit;
  };
  struct Step {
    uint4 w;
  };
  static INLINE Block block(device const uchar*, uint, float unit) { return {unit}; }
  static INLINE Step step(device const uchar* p, uint i, uint c) {
    return {*(device const uint4*)(p + 64 * i + 16 * c)};
  }
  // The low halves of two words, or the high ones.
  static INLINE half2 pair(thread const Block& b, uint first, uint second, bool high) {
    if (WIDE) {
      const uint x = high ? first & 0xffff0000u : first << 16, y = high ? second & 0xffff0000u : second << 16;
      return half2(half(as_type<float>(x) * b.unit), half(as_type<float>(y) * b.unit));
    }
    return as_type<half2>(high ? first >> 16 | (second & 0xffff0000u) : (first & 0xffffu) | second << 16);
  }
  static INLINE Codes codes(thread const Block& b, thread const Step& s, uint, uint) {
    Codes to;
    to.a[0] = pair(b, s.w.x, s.w.y, false);
    to.a[1] = pair(b, s.w.x, s.w.y, true);
    to.a[2] = pair(b, s.w.z, s.w.w, false);
    to.a[3] = pair(b, s.w.z, s.w.w, true);
    return to;
  }
  static INLINE float scale(thread const Block&, thread const Step&, uint, uint, uint) { return 1.0f; }
  static INLINE float min(thread const Block&, thread const Step&, uint, uint, uint) { return 0.0f; }
};
typedef Floats<false> F16;
typedef Floats<true> BF16;
