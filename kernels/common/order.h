// The order of candidates: by value, and of equal ones by index.
#pragma once
#include "common/basics.h"

constant constexpr uint kNowhere = 0xffffffffu;

// The larger of two candidates; of equal ones the lower index.
INLINE bool beats(float a, uint i, float b, uint j) { return a > b || (a == b && i < j); }
// A value as it is ordered: NaN is the lowest.
INLINE float ordered(float v) {
  const bool nan = (as_type<uint>(v) & 0x7fffffffu) > 0x7f800000u;
  return nan ? kNone : clamp(v, kNone, -kNone);
}
