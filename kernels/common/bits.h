// Bits and bytes of words.
#pragma once
#include "common/basics.h"

#ifndef MSL_CUDA  // the CUDA shim has its own, one instruction each
INLINE uint select_bits(uint mask, uint a, uint b) { return (a & mask) | (b & ~mask); }
// The lower word of (high, low) >> n; n from 1 to 31.
INLINE uint shift_pair(uint high, uint low, uint n) { return high << (32 - n) | low >> n; }
INLINE uint two_bytes(uint x) { return (x & 0xffu) | (x & 0xff00u) << 8; }  // to halves of a word
// Halves of a word: below a byte of `low`, 0 and 2 or, if `odd`, 1 and 3; above it bytes 1 and 3 of `high`, which has
// nothing else.
INLINE uint bytes_below(uint high, uint low, bool odd) { return ((odd ? low >> 8 : low) & 0x00ff00ffu) | high; }
// Halves of a word: bytes 0 and 2 or, if `odd`, 1 and 3 of `low`, and above them those of `high` at the same places.
INLINE uint pair_bytes(uint high, uint low, bool odd) {
  return odd ? select_bits(0x00ff00ffu, low >> 8, high) : select_bits(0x00ff00ffu, low, high << 8);
}
#endif
