// From words of a record to pairs of numbers. All inside is branch-free once the format is a constant.
#pragma once
#include "attend/matrix.h"
#include "attend/trellis.h"

// Tables are kept times a factor that lets half round them least (rms 8e-5, 4e-5 and 1e-5 of the values).
constant constexpr float kFactor5 = 1.955225f;
constant constexpr float kFactor4 = 1.260175f;
constant constexpr float kFactor3 = 1.8588f;
// Multiplies what decode_pair gives: polynomials are kept without their leading factor.
INLINE float unit_of(uint f) {
  if (is_trellis(f)) return trellis_unit(f);
  const uint book = book_of(f);
  if (book == kBookLloyd2) return 0.050663413f;
  if (book == kBookLloyd5) return 1.0f / kFactor5;
  if (book == kBookLloyd4) return 1.0f / kFactor4;
  return book == kBookLloyd3 ? 1.0f / kFactor3 : 1.0f;
}

// A lane's share of a table that decode_pair reads by simd_shuffle: two halves, in lane i those of code i (Lloyd-32) or
// i % 16. So bits above a code's need not be cleared.
INLINE uint table_of(uint f, uint lane) {
  const uint book = book_of(f);
  float2 v = float2(0.0f);
  if (book == kBookLloyd5)
    v = float2((lane & 16 ? -kMagnitudesLloyd5[lane % 16] : kMagnitudesLloyd5[lane % 16]) * kFactor5);
  if (book == kBookLloyd4)
    v = float2((lane & 8 ? -kMagnitudesLloyd4[lane % 8] : kMagnitudesLloyd4[lane % 8]) * kFactor4);
  if (book == kBookLloyd3) v = float2(kMagnitudesLloyd3[lane % 4], kMagnitudesLloyd3[lane / 4 % 4]) * kFactor3;
  return as_type<uint>(half2(v));
}

#ifndef MSL_CUDA  // the CUDA shim has its own, one instruction each
INLINE uint look_up(uint table, uint i) { return simd_shuffle(table, ushort(i & 31u)); }
#endif

// V q2_0, codes ascending: t = code - 1.5, and t (t t + 17.625), every step rounded to half. A code is or-ed into the
// mantissa of half2(1024) (`magic`); its window starts where 1024 plus the code's middle needs no bit more than half
// has. The values are within 3e-4 of the codebook's.
INLINE half2 cubic2(uint x, int i, uint magic) {
  const uint y = i < 4 ? x << 1 : x >> 7;
  half2 t;
  if (i % 4 == 0)
    t = fma(as_type<half2>((y & 0x00060006u) | magic), as_type<half2>(0x38003800u),
            as_type<half2>(0xe003e003u));  // 2^-1, -513.5
  if (i % 4 == 1)
    t = fma(as_type<half2>((y & 0x00180018u) | magic), as_type<half2>(0x30003000u),
            as_type<half2>(0xd80cd80cu));  // 2^-3, -129.5
  if (i % 4 == 2)
    t = fma(as_type<half2>((y & 0x00600060u) | magic), as_type<half2>(0x28002800u),
            as_type<half2>(0xd030d030u));  // 2^-5, -33.5
  if (i % 4 == 3)
    t = fma(as_type<half2>((y & 0x01800180u) | magic), as_type<half2>(0x20002000u),
            as_type<half2>(0xc8c0c8c0u));             // 2^-7, -9.5
  return t * fma(t, t, as_type<half2>(0x4c684c68u));  // 17.625
}
INLINE half2 signed8(uint x, int i, uint magic) {
  return as_type<half2>(((i ? x >> 8 : x) & 0x00ff00ffu) ^ (magic + 0x00800080u)) - as_type<half2>(0x64806480u);
}
// Turns two unsigned codes, one in the lowest bits of each half of a word, into two halves: each code is or-ed into the
// mantissa of 1024 (`magic`), and 1024 is subtracted.
INLINE half2 unsigned_codes(uint codes, uint magic) {
  return as_type<half2>(codes | magic) - as_type<half2>(0x64006400u);
}
INLINE half2 flip(uint value, uint signs) { return as_type<half2>(value ^ (signs & 0x80008000u)); }

// Code j of string e of a plane of 5 bits, and bits above it. The strings' last words, which are not whole, follow both
// strings.
template <int D>
INLINE uint code5(thread const uint* x, int e, int j) {
  constexpr int W = Plane<D, 5>::kWords;
  const int w = 5 * j / 32, at = 5 * j % 32;
  const uint low = x[w < W ? e * W + w : 2 * W + e];
  return at <= 27 ? low >> at : low >> at | x[w + 1 < W ? e * W + w + 1 : 2 * W + e] << (32 - at);
}

// The j-th two elements of a lane, without scales, but of trellis codes. x: main plane, y: plane of top bits, table:
// table_of.
template <int D>
INLINE half2 decode_pair(uint f, thread const uint* x, thread const uint* y, int j, uint table, uint magic) {
  if (f == kF16) return as_type<half2>(x[j]);
  if (f == kBf16) return half2(float2(as_type<float>(x[j] << 16), as_type<float>(x[j] & 0xffff0000u)));
  if (is_int8(f)) return signed8(x[j / 2], j % 2, magic);
  const uint book = book_of(f);
  if (book == kBookLloyd2) return cubic2(x[j / 8], j % 8, magic);
  if (f == kAffine8) return unsigned_codes((j % 2 ? x[j / 2] >> 8 : x[j / 2]) & 0x00ff00ffu, magic);
  if (f == kAffine4) return unsigned_codes(x[j / 4] >> (j % 4 * 4) & 0x000f000fu, magic);
  if (f == kAffine5)
    return unsigned_codes((x[j / 4] >> (j % 4 * 4) & 0x000f000fu) | (y[j / 16] >> j % 16 & 0x00010001u) << 4, magic);
  if (book == kBookLloyd3) {
    const uint z = x[j / 8];
    return flip(look_up(table, select_bits(3, z >> (j % 8 * 2), z >> (j % 8 * 2 + 14))), y[j / 16] << (15 - j % 16));
  }
  // Put together by an addition, since operations on bits are many already.
  const bool five = book == kBookLloyd5;
  const uint z = x[j / 4] >> (j % 4 * 4), first = five ? code5<D>(x, 0, j) : z,
             second = five ? code5<D>(x, 1, j) : z >> 16;
  return as_type<half2>(look_up(table & 0xffffu, first)) + as_type<half2>(look_up(table & 0xffff0000u, second));
}

// ---- reading ----
// n (at most 24) bits of a token's string of bits.
INLINE uint load_bits(device const uchar* row, uint bit, uint n) {
  device const uchar* p = row + bit / 8;
  const uint last = bit % 8 + n - 1;
  uint x = p[0];
  if (last >= 8) x |= uint(p[1]) << 8;
  if (last >= 16) x |= uint(p[2]) << 16;
  if (last >= 24) x |= uint(p[3]) << 24;
  return x >> (bit % 8) & ((1u << n) - 1u);
}
// Whose words a lane reads of a plane: K, those of its row, a token, as lane c of 4; V, those of its pair of columns,
// two tokens, as lane r of 8.
struct Reader {
  uint row, own, lanes;
};
INLINE Reader key_reader(uint r, uint c) { return {r, c, 4}; }
INLINE Reader value_reader(uint r, uint c) { return {2 * c, r, 8}; }
// A lane's W words of the 8 tokens from `slot` on, in pieces of up to 16 bytes, each `lanes` from the one before. What
// differs by lane is added to an address first, as an index, and constants last, so that loads of a record share one.
template <int W>
INLINE void load_words(thread uint* out, device const uchar* words, uint slot, Reader by) {
  constexpr int P = W % 4 == 0 ? 4 : W % 2 == 0 ? 2 : 1;
  constexpr uint each = W * 4 / P;  // a token's pieces
  const uint own = by.row * each + by.own, first = slot * each;
  UNROLL for (int i = 0; i < W / P; i++) {
    if (P == 4) {
      const uint4 x = ((device const uint4*)words + own)[first + i * by.lanes];
      UNROLL for (int k = 0; k < 4; k++) out[i * P + k] = x[k];
    } else if (P == 2) {
      const uint2 x = ((device const uint2*)words + own)[first + i * by.lanes];
      out[i * P] = x.x;
      out[i * P + 1] = x.y;
    } else {
      out[i] = ((device const uint*)words + own)[first + i * by.lanes];
    }
  }
}
// A lane's words of a plane of B bits.
template <int D, int B>
INLINE void load_plane(thread uint* out, device const uchar* plane, uint slot, Reader by) {
  typedef Plane<D, B> Layout;
  constexpr uint rest = Layout::kRest;
  device const uchar* shared = plane + ((32 * Layout::kWords) << kBlockShift);
  load_words<2 * Layout::kWords>(out, plane, slot, by);
  load_words<Layout::kShared>(out + 2 * Layout::kWords, shared, slot, by);
  device const uchar* after = shared + ((16 * Layout::kShared) << kBlockShift);
  if (rest == 8) {
    out[Layout::kAll] = ((device const ushort*)after + (by.row * 4 + by.own))[slot * 4];
  } else if (rest > 0) {
    device const uchar* row = after + (slot + by.row) * rest;
    const uint x = by.lanes == 4
                       ? load_bits(row, by.own * 2 * rest, 2 * rest)
                       : load_bits(row, by.own * rest, rest) | load_bits(row + rest, by.own * rest, rest) << rest;
    out[Layout::kAll] = (x & ((1u << rest) - 1u)) | x >> rest << 16;
  }
}

template <int D>
struct Words {  // what a lane holds of 8 tokens
  static constant constexpr int kMain = D / 8, kTop = (D / 8 + 15) / 16, kGroups = (D + 31) / 32;
  uint x[kMain], y[kTop];
  uint before[(kMain + 3) / 4];  // of a trellis code, the words before that other lanes have
  half2 group[kGroups];          // K: scale and minimum; V: scales of both tokens
  uint scales;                   // of the lane's row, in the even tile of two and in the odd one
  INLINE float scale(uint odd) const { return float(as_type<half2>(scales)[odd]); }
};

// The last words of a plane as decode_pair wants them: what was loaded as two bytes to halves of a word, and of 5 bits
// to each string what is its own. Once a load, and apart from it, so that nothing waits for what has just been asked
// for.
template <int D, int B>
INLINE void spread_plane(thread uint* words) {
  typedef Plane<D, B> Layout;
  constexpr uint rest = Layout::kRest;
  if (B != 5 && rest == 8) words[Layout::kAll] = two_bytes(words[Layout::kAll]);
  if (B == 5 && (rest > 0 || Layout::kShared > 0)) {
    thread uint* last = words + 2 * Layout::kWords;
    const uint x = last[0];
    if (Layout::kShared == 0) {  // two bytes; above a code bits may be anything
      last[1] = x >> 8;
    } else if (rest > 0) {
      last[0] = (x & 0xffffu) | last[1] << 16;
      last[1] = x >> 16 | (last[1] & 0xffff0000u);
    } else {
      last[1] = x >> 16;
    }
  }
}
// Does this for all planes of a side, and fetches what a trellis code needs of other lanes.
template <int D>
INLINE void spread(thread Words<D>& w, bool value, Place l) {
  const uint f = value ? kValueFormat : kKeyFormat;
  if (main_bits(f) == 5) spread_plane<D, 5>(w.x);
  if (main_bits(f) == 4) spread_plane<D, 4>(w.x);
  if (main_bits(f) == 2) spread_plane<D, 2>(w.x);
  if (has_top_plane(f)) spread_plane<D, 1>(w.y);
  if (is_trellis(f) && has_top_plane(f) && D < 128) {  // free bits to bytes of their own
    constexpr uint n = FreeBits<D>::kOfByte, byte = ((1u << n) - 1u) * 0x10001u;
    w.y[0] = (w.y[0] & byte) | (w.y[0] & byte << n) << (8 - n);
  }
  if (is_trellis(f)) find_before<D>(f, value, w.x, w.before, l);
}

// Codes of format f, in planes from `codes` on.
template <int D>
INLINE void load_codes(thread Words<D>& w, uint f, device const uchar* codes, uint slot, Reader by) {
  const uint bits = main_bits(f);
  if (bits == 16) load_plane<D, 16>(w.x, codes, slot, by);
  if (bits == 8) load_plane<D, 8>(w.x, codes, slot, by);
  if (bits == 5) load_plane<D, 5>(w.x, codes, slot, by);
  if (bits == 4) load_plane<D, 4>(w.x, codes, slot, by);
  if (bits == 2) load_plane<D, 2>(w.x, codes, slot, by);
  if (has_top_plane(f)) load_plane<D, 1>(w.y, codes + main_plane<D>(f), slot, by);
}
// The scales of row r of two 8-token groups in one load.
INLINE uint load_scales(device const uchar* scales, uint slot, uint r) {
  return ((device const uint*)scales + r)[slot / 16 * 8];
}
// r, c: the lane's place; `slot` is the first of 8 tokens.
template <int D>
INLINE void load_key(thread Words<D>& w, device const uchar* record, uint slot, uint r, uint c) {
  load_codes<D>(w, kKeyFormat, record, slot, key_reader(r, c));
  device const uchar* scales = record + Record<D>::key_scales();
  if (is_scaled(kKeyFormat)) w.scales = load_scales(scales, slot, r);
  if (is_grouped(kKeyFormat)) {
    UNROLL for (int i = 0; i < Words<D>::kGroups; i++) w.group[i] =
        ((device const half2*)scales + r * Words<D>::kGroups)[slot * Words<D>::kGroups + i];
  }
}
// As `load_key`. `live`: how many of the 8 are written. The others decode to 0, or to numbers with a scale that may be
// none.
template <int D>
INLINE void load_value(thread Words<D>& w, device const uchar* record, uint slot, uint r, uint c, uint live) {
  load_codes<D>(w, kValueFormat, record + Record<D>::values(), slot, value_reader(r, c));
  device const uchar* scales = record + Record<D>::value_scales();
  if (is_scaled(kValueFormat)) w.scales = load_scales(scales, slot, r);
  if (is_grouped(kValueFormat)) {
    UNROLL for (int i = 0; i < Words<D>::kGroups; i++) {
      device const half* of_pair = (device const half*)scales + c * (2 * Words<D>::kGroups);
      const half a = of_pair[slot * Words<D>::kGroups + i], b = of_pair[(slot + 1) * Words<D>::kGroups + i];
      w.group[i] = half2(2 * c < live ? a : half(0), 2 * c + 1 < live ? b : half(0));
    }
  }
  if (!is_rotated(kValueFormat) && live < 8) {  // slots never written may hold NaN
    const uint keep = 2 * c + 1 < live ? 0xffffffffu : 2 * c < live ? 0xffffu : 0u;
    UNROLL for (int i = 0; i < Words<D>::kMain; i++) w.x[i] &= keep;
  }
}
// The j-th two elements of a lane, without scales. No format of K has a codebook, so that a table is V's.
template <int D>
INLINE half2 side_pair(thread const Words<D>& w, bool value, int j, uint table, uint magic) {
  const uint f = value ? kValueFormat : kKeyFormat;
  return is_trellis(f) ? trellis_pair<D>(f, value, w.x, w.y, w.before, j, magic)
                       : decode_pair<D>(f, w.x, w.y, j, table, magic);
}
template <int D>
INLINE half2 key_pair(thread const Words<D>& w, int j, uint magic) {
  const half2 v = side_pair<D>(w, false, j, 0, magic);
  return is_grouped(kKeyFormat) ? fma(v, half2(w.group[j / 4].x), half2(w.group[j / 4].y)) : v;
}
template <int D>
INLINE half2 value_pair(thread const Words<D>& w, int j, uint table, uint magic) {
  const half2 v = side_pair<D>(w, true, j, table, magic);
  return is_grouped(kValueFormat) ? v * w.group[j / 4] : v;
}
// The two elements in float: bf16 is exact, and group scales are applied after the conversion.
template <int D>
INLINE float2 key_floats(thread const Words<D>& w, int j, uint magic) {
  if (kKeyFormat == kBf16) return float2(as_type<float>(w.x[j] << 16), as_type<float>(w.x[j] & 0xffff0000u));
  const float2 v = float2(side_pair<D>(w, false, j, 0, magic));
  if (!is_grouped(kKeyFormat)) return v;
  const float scale = float(w.group[j / 4].x), minimum = float(w.group[j / 4].y);
  return float2(fma(v.x, scale, minimum), fma(v.y, scale, minimum));
}
template <int D>
INLINE float2 value_floats(thread const Words<D>& w, int j, uint table, uint magic) {
  if (kValueFormat == kBf16) return float2(as_type<float>(w.x[j] << 16), as_type<float>(w.x[j] & 0xffff0000u));
  const float2 v = float2(side_pair<D>(w, true, j, table, magic));
  return is_grouped(kValueFormat) ? v * float2(w.group[j / 4]) : v;
}
