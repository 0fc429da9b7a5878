// The order of candidates: by value, and of equal ones by index.
#pragma once
#include "common/basics.h"

constant constexpr uint kNowhere = 0xffffffffu;

// The larger of two candidates; of equal ones the lower index.
INLINE bool beats(float a, uint i, float b, uint j) { return a > b || (a == b && i < j); }
struct Candidate {
  float value;
  uint index;
};
// The largest of the candidates of a simdgroup's lanes, in every lane.
INLINE Candidate largest_of_lanes(Candidate best) {
  for (ushort s = 16; s > 0; s >>= 1) {
    const float value = simd_shuffle_xor(best.value, s);
    const uint index = simd_shuffle_xor(best.index, s);
    if (beats(value, index, best.value, best.index)) best = {value, index};
  }
  return best;
}
// A value as it is ordered: NaN is the lowest.
INLINE float ordered(float v) {
  const bool nan = (as_type<uint>(v) & 0x7fffffffu) > 0x7f800000u;
  return nan ? kNone : clamp(v, kNone, -kNone);
}
