// What the kernels of the cache share: function constants and the layout of a record.
//
// A record holds the tokens of one (block, kv head): K codes, V codes, K scales, V scales. Codes lie in planes of 16,
// 8, 5, 4, 2 or 1 bits an element, ordered as the lanes of an 8x8 tile read them, (r, c) being a lane's row and pair of
// columns:
//   K: a row a token; lane c has 2 elements for each j of D / 8, key_dim(c, j, 0 or 1)
//   V: a row a pair of tokens (2c, 2c + 1); lane r has element value_dim(r, j) of both
// The elements of a lane depend on the side's format: of a trellis code they are neighbours, since its values depend on
// the elements before.
// So a lane has two strings of codes, of the first of the two and of the second (`Plane`). A word holds 16 bits of
// each, the first's in its low half; codes of 5 bits, which are looked up one by one, are dense in words of either
// string. So a token owns whole bytes, and tokens are written side by side without read-modify-write. Lanes' words
// interleave in pieces of up to 16 bytes. What does not fill a half of a word (D = 64, 80, 96 in some planes) follows
// all words as one string of bits a token; where V's has a byte a lane, the bytes of a pair of tokens alternate, so
// that a lane's two are read at once. A vector's only scale lies beside that of the token 8 further on (`scale_at`).
#pragma once
#include "common/format_table.h"

constant uint kKeyFormat [[function_constant(0)]];
constant uint kValueFormat [[function_constant(1)]];
constant bool kKeysCentred [[function_constant(2)]];
constant uint kBlockShift [[function_constant(4)]];  // log2 of the tokens in a block
constant bool kWindowed [[function_constant(6)]];    // a sliding window or first tokens that stay visible
// Constants, since a division by a number that is not known takes some hundred cycles.
constant uint kKvHeads [[function_constant(9)]];
constant uint kGqaGroup [[function_constant(10)]];  // query heads of a kv head

enum Size : uint {
  kPartition = 512,  // tokens of a partition; partitions' states are merged in order
  kSimdgroups = 4,   // that share a partition
  kInterval = 32,    // tokens that share a quadratic
};

INLINE uint code_bits(uint f) { return main_bits(f) + (has_top_plane(f) ? 1 : 0); }
template <int D>
INLINE uint code_bytes(uint f) {
  return D * code_bits(f) / 8;
}
template <int D>
INLINE uint scale_bytes(uint f) {
  constexpr uint groups = (D + 31) / 32;
  return is_scaled(f) ? 2 : is_affine(f) ? 4 * groups : is_grouped(f) ? 2 * groups : 0;
}

// Where a record's planes start.
template <int D>
struct Record {
  static INLINE uint values() { return code_bytes<D>(kKeyFormat) << kBlockShift; }
  static INLINE uint key_scales() { return values() + (code_bytes<D>(kValueFormat) << kBlockShift); }
  static INLINE uint value_scales() { return key_scales() + (scale_bytes<D>(kKeyFormat) << kBlockShift); }
  static INLINE uint bytes() { return value_scales() + (scale_bytes<D>(kValueFormat) << kBlockShift); }
};
// Bytes of a block's main plane; the plane of top bits follows it.
template <int D>
INLINE uint main_plane(uint f) {
  return (D * main_bits(f) / 8) << kBlockShift;
}

// Chained codes of a trellis code in half a word.
INLINE uint half_word_codes(uint f) { return 16 / main_bits(f); }
// Elements of 32 share a scale, so those of j lie in group j / 4. D % 32 is 0 or 16. Of a trellis code a lane of K has
// 2 D / 8 elements that follow each other, of which a word holds the older ones in its high half, so that the codes of
// a word and of the one before it are a string of bits. Of V the elements of a half word follow each other, and behind
// them come those of the next lane.
template <int D>
INLINE uint key_dim(uint c, uint j, uint e) {
  if (is_trellis(kKeyFormat)) {
    const uint each = half_word_codes(kKeyFormat), first = j / each * each, count = min(each, D / 8 - first);
    return c * (D / 4) + first + j + (1 - e) * count;
  }
  return j < D / 32 * 4 ? j / 4 * 32 + e * 16 + c * 4 + j % 4 : D / 32 * 32 + c * 4 + e * 2 + j % 2;
}
template <int D>
INLINE uint value_dim(uint r, uint j) {
  if (is_trellis(kValueFormat)) {
    const uint each = half_word_codes(kValueFormat), first = j / each * each, count = min(each, D / 8 - first);
    return 8 * first + r * count + j - first;
  }
  return j < D / 32 * 4 ? j / 4 * 32 + r * 4 + j % 4 : D / 32 * 32 + r * 2 + j % 2;
}

// The code of a lane's D / 8 that lies at a place of its string of chained codes: the older are in the higher bits of
// each half word, or of what is left of one.
template <int D>
INLINE uint chained_at(uint f, uint place) {
  const uint each = half_word_codes(f), first = place / each * each;
  return first + min(each, D / 8 - first) - 1 - (place - first);
}
// Free bits lie as the codes do that one shift brings to the lowest bits of bytes: of each 16 codes, or of all if they
// are fewer, one half in the upper byte and one in the lower, of either 8 or D / 16 bits.
template <int D>
struct FreeBits {
  static constant constexpr uint kOfByte = D < 128 ? D / 16 : 8;
  // Codes of a byte of chained bits, and bits of a byte of free ones before what is left of the last word.
  static INLINE uint of_chained(uint f) { return 8 / main_bits(f); }
  static INLINE uint of_words(uint f) { return min(D / 8 / half_word_codes(f) * of_chained(f), 8u); }
  static INLINE uint code_at(uint f, uint place) {
    const uint each = half_word_codes(f), upper = place % 16 / kOfByte, bit = place % 16 % kOfByte, whole = of_words(f);
    if (bit >= whole) return D / 8 / each * each + (bit - whole) * 2 + upper;
    return place / 16 * 16 + bit / of_chained(f) * each + each - 1 - (upper * of_chained(f) + bit % of_chained(f));
  }
  // The other way round: where that of code j lies in half a word, once bytes are of 8 bits each.
  static INLINE uint bit_of(uint f, uint j) {
    const uint each = half_word_codes(f), first = j / each * each;
    if (D / 8 - first < each) return (j - first) % 2 * 8 + of_words(f) + (j - first) / 2;
    const uint place = each - 1 - j % each;
    return place / of_chained(f) * 8 + j % 16 / each * of_chained(f) + place % of_chained(f);
  }
};

// A lane's two strings of D / 8 codes of B bits are stored as kWords words of 32 bits for each string, then kShared
// words with 16 bits of either, then kRest bits that are left of each.
template <int D, int B>
struct Plane {
  static constant constexpr uint kBits = D / 8 * B;
  static constant constexpr uint kWords = B == 5 ? kBits / 32 : 0;
  static constant constexpr uint kShared = (kBits - 32 * kWords) / 16;
  static constant constexpr uint kRest = kBits % 16;
  static constant constexpr uint kAll = 2 * kWords + kShared;
};

// Where a token's only scale is: a lane reads those of two tiles at once.
INLINE uint scale_at(uint slot) { return slot / 16 * 16 + slot % 8 * 2 + slot / 8 % 2; }
// Byte of word w of a lane in a row of `words` words a lane.
INLINE uint word_offset(uint words, uint w, uint lane, uint lanes) {
  const uint piece = words % 4 == 0 ? 4 : words % 2 == 0 ? 2 : 1;
  return ((w / piece * lanes + lane) * piece + w % piece) * 4;
}

// Every head size, or the one that the library is compiled for; those whose state leaves registers for iterations of 32
// tokens; those of `prefill`, which keeps two states.
#ifdef HEAD_DIM
// A macro that makes a name of its argument must get the number, not the name HEAD_DIM.
#define APPLY(M, D) M(D)
#define FOR_HEAD_DIMS(M) APPLY(M, HEAD_DIM)
#if HEAD_DIM <= 128
#define FOR_SMALL_HEAD_DIMS(M) APPLY(M, HEAD_DIM)
#else
#define FOR_SMALL_HEAD_DIMS(M)
#endif
#if HEAD_DIM <= 256
#define FOR_CHUNK_HEAD_DIMS(M) APPLY(M, HEAD_DIM)
#else
#define FOR_CHUNK_HEAD_DIMS(M)
#endif
#else
#define FOR_HEAD_DIMS(M) M(64) M(80) M(96) M(128) M(256) M(512)
#define FOR_SMALL_HEAD_DIMS(M) M(64) M(80) M(96) M(128)
#define FOR_CHUNK_HEAD_DIMS(M) M(64) M(80) M(96) M(128) M(256)
#endif
