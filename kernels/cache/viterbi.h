// The encoder of trellis codes: the Viterbi algorithm on a circle by one simdgroup, with the integers of
// crates/turboquant/src/simd/viterbi, so that the codes are those that a CPU finds. Where that encoder's 16 bits would
// saturate, costs here go on, which no path that is chosen has ever met.
#pragma once
#include "common/bits.h"
#include "common/formats.h"

// Elements whose distances are taken together, ahead of the paths that wait for each other.
constant constexpr uint kAhead = 4;
constant constexpr uint kMostPoints = 512;
constant constexpr float kUnitValue = float(kUnit);
// The distance of a level that is not tried: above the cost of any path.
constant constexpr uint kUntried = 1u << 25;

INLINE uint levels_of(uint f) { return 1u << code_bits(f); }
// Whether paths have 64 states, two a lane, not 32.
INLINE bool has_two_states(uint f) { return main_bits(f) == 2; }
INLINE ushort point_of(uint f, uint i) {
  return f == kTc5 ? kPointsTc5[i] : f == kTc4 ? kPointsTc4[i] : f == kTc3 ? kPointsTc3[i] : kPointsTc2[i];
}
// A code's values, by `threads` threads.
INLINE void load_points(uint f, threadgroup ushort* points, uint thread_index, uint threads) {
  for (uint i = thread_index; i < levels_of(f) << level_shift(f); i += threads) points[i] = point_of(f, i);
}
INLINE int signed16(uint x) { return int(x << 16) >> 16; }

// The best paths to a lane's states, of which the second has a number 32 above the first. The cost of a path lies above
// bit 8; below it which of the tried levels the last element is on, so that of equal costs the lower level's is the
// smaller word; and in the lowest 6 bits the state in which the segment began.
struct Paths {
  uint a, b;
};
enum PathBits : uint { kOrigin = 63, kLevelAt = 6 };

// A vector's encoder, in threadgroup memory. A vector is cut into segments, so that a path is gone back along all of
// them at once.
template <int D>
struct Viterbi {
  static constant constexpr uint kSegment = D <= 64 ? 4 : D <= 128 ? 8 : D / 16, kSegments = D / kSegment;
  struct Memory {
    // The number of the tried level on which each state was reached, 2 bits an element: a word a lane for 16 elements,
    // or for 8 where a lane has two states.
    uint levels[D / 8 * 32];
    uchar origins[kSegments * 64];  // of each segment's paths, by the state after it
  };
  uint f, lane;
  threadgroup uint* elements;        // integers, and from bit 16 on the lowest of the levels that each is tried on
  threadgroup const ushort* points;  // the code's values
  threadgroup Memory* memory;

  INLINE uint elements_a_word() const { return has_two_states(f) ? 8 : 16; }
  // The squared difference of x and a value, the number of the tried level in its lowest 2 bits, where a path has them.
  // point: of the lowest level, by the lower bits that the points of this lane's states have.
  INLINE uint distance(int x, uint point, uint tried) const {
    const int d = (x - signed16(points[point + (tried << level_shift(f))])) << fineness(f);
    return (uint(d * d + 16384) >> (15 - kLevelAt) & ~(4u * (1u << kLevelAt) - 1u)) | tried << kLevelAt;
  }
  // The distances of an element, in the order in which `extend` takes the states before.
  INLINE void measure(uint element, thread uint* distances) const {
    const int x = signed16(element);
    const uint low = element >> 16, n = level_shift(f), point = (low << n) + (lane & ((1u << n) - 1u));
    if (!has_two_states(f)) {
      UNROLL for (uint i = 0; i < kTried; i++) distances[i] = distance(x, point, i);
      return;
    }
    UNROLL for (uint h = 0; h < 4; h++) {
      const uint tried = ((h ^ lane) - low) & 3u, square = distance(x, point, min(tried, kTried - 1u));
      distances[h] = tried < kTried ? square : kUntried << kLevelAt;
    }
  }
  // Paths that go on by one element.
  INLINE Paths extend(Paths from, uint low, thread const uint* distances) const {
    Paths to;
    if (!has_two_states(f)) {
      to.b = 0;
      const uint home = (lane << 1 & 30u) | lane >> 4;  // the state before on level 0
      UNROLL for (uint i = 0; i < kTried; i++) {
        const uint path = simd_shuffle(from.a, ushort(((low * 2 + 2 * i) ^ home) & 31u)) + distances[i];
        to.a = i == 0 ? path : min(to.a, path);
      }
      return to;
    }
    // The four states before a state lie 16 apart, and each is behind another level.
    UNROLL for (uint h = 0; h < 4; h++) {
      const uint source = (h & 1u) * 16 + (lane >> 2), before = h < 2 ? from.a : from.b;
      const uint first = simd_shuffle(before, ushort(source)) + distances[h],
                 second = simd_shuffle(before, ushort(source + 8)) + distances[h];
      to.a = h == 0 ? first : min(to.a, first);
      to.b = h == 0 ? second : min(to.b, second);
    }
    return to;
  }
  // Runs through all elements, from paths that lie `around` elements before the first one.
  INLINE Paths run(Paths paths, uint around) const {
    const bool two = has_two_states(f);
    const uint each = elements_a_word();
    uint word = 0;
    simdgroup_barrier(mem_flags::mem_threadgroup);  // what an earlier run has left is read
    for (uint i = 0; i < around + D; i += kAhead) {
      const uint at = i < around ? D - around + i : i - around;  // whole vectors are multiples of kAhead
      uint low[kAhead], distances[kAhead][4];
      UNROLL for (uint k = 0; k < kAhead; k++) {
        const uint element = elements[at + k];
        low[k] = element >> 16;
        measure(element, distances[k]);
      }
      if (i >= around && at % kSegment == 0) {
        paths.a = (paths.a & ~kOrigin) | lane;
        paths.b = (paths.b & ~kOrigin) | (lane + 32);
      }
      UNROLL for (uint k = 0; k < kAhead; k++) {
        paths = extend(paths, low[k], distances[k]);
        // From above, so that those of the first element are the lowest in the end.
        const uint a = paths.a >> kLevelAt;
        word = two ? shift_pair((a & 3u) | (paths.b >> (kLevelAt - 2) & 12u), word, 4) : shift_pair(a, word, 2);
        paths.a &= ~(3u << kLevelAt);
        paths.b &= ~(3u << kLevelAt);
      }
      if (i < around) continue;
      const uint next = at + kAhead;
      if (next % each == 0) memory->levels[at / each * 32 + lane] = word;
      if (next % kSegment == 0) {
        threadgroup uchar* origins = memory->origins + at / kSegment * 64;
        origins[lane] = uchar(paths.a & kOrigin);
        if (two) origins[lane + 32] = uchar(paths.b & kOrigin);
      }
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
    return paths;
  }
  // The number of the state of the best path, the lowest of equals.
  INLINE uint best(Paths paths) const {
    const uint first = (paths.a & ~kOrigin) | lane, second = (paths.b & ~kOrigin) | (lane + 32);
    return simd_min(has_two_states(f) ? min(first, second) : first) & kOrigin;
  }
  // The state in which the best path to `state` began; `end`: the one after the lane's segment.
  INLINE uint begin(uint state, thread uint& end) const {
    for (uint i = kSegments; i > 0;) {
      i--;
      if (lane == i) end = state;
      state = memory->origins[i * 64 + state];
    }
    return state;
  }
  // Goes back along the lane's segment; writes the state after each element, and from bit 8 on its level.
  INLINE void trace(uint state, threadgroup ushort* codes) const {
    const uint each = elements_a_word(), bits = has_two_states(f) ? 4 : 2, k = main_bits(f), r = history_shift(f);
    if (lane < kSegments) {
      for (uint i = (lane + 1) * kSegment; i > lane * kSegment;) {
        i--;
        const uint word = memory->levels[i / each * 32 + (state & 31u)];
        const uint level = (elements[i] >> 16) + (word >> (i % each * bits + state / 32 * 2) & 3u);
        codes[i] = ushort(state | level << 8);
        state = ((level ^ state) & ((1u << k) - 1u)) << (r - k) | state >> k;
      }
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
  }
  // The lowest of the levels that x is tried on: the nearest one by the levels' middles is the second of them.
  INLINE uint lowest_level(int x) const {
    const uint levels = levels_of(f), n = level_shift(f);
    uint nearest = 0;
    for (uint step = levels / 2; step > 0; step /= 2) {
      const uint above = (nearest + step) << n | 1u << (n - 1);
      const int bound = (signed16(points[above - (1u << n)]) + signed16(points[above])) / 2;
      nearest += x >= bound ? step : 0u;
    }
    return min(max(nearest, 1u) - 1u, levels - kTried);
  }
  // z: the rotated vector, whose memory becomes that of `elements`. Returns the scale, which restores its norm.
  INLINE half encode(threadgroup float* z, threadgroup ushort* codes) {
    float square = 0.0f;
    for (uint i = lane; i < D; i += 32) square = fma(z[i], z[i], square);
    square = simd_sum(square);
    if (square <= 1e-30f) {
      for (uint i = lane; i < D; i += 32) codes[i] = 0;
      return half(0);
    }
    const uint levels = levels_of(f), n = level_shift(f), k = main_bits(f);
    const float factor = sqrt(float(D) / square) * kUnitValue, limit = float(largest_integer(f));
    elements = (threadgroup uint*)z;
    for (uint i = lane; i < D; i += 32) {
      const int x = int(rint(clamp(z[i] * factor, -limit, limit)));
      elements[i] = (uint(x) & 0xffffu) | lowest_level(x) << 16;
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
    uint end = 0;
    const Paths paths = run({0, 0}, kAround);
    const uint first = begin(best(paths), end);
    if (begin(first, end) != first) {  // the best path that ends where it should begins elsewhere: one that has to
      const uint other = 0x7ffcu << kLevelAt;
      run({first == lane ? 0u : other, first == lane + 32 ? 0u : other}, 0);
      begin(first, end);
    }
    trace(end, codes);
    uint upper = 0, lower = 0;
    for (uint i = lane; i < D; i += 32) {
      const uint state = codes[i] & 0xffu, level = codes[i] >> 8;
      const int value = signed16(points[level << n | (state & ((1u << n) - 1u))]);
      const uint product = uint(value * value);
      upper += product >> 12;
      lower += product & 4095u;
      codes[i] = ushort((state & ((1u << k) - 1u)) | level >> k << k);
    }
    const float values = fma(float(simd_sum(upper)), 4096.0f, float(simd_sum(lower))) / (kUnitValue * kUnitValue);
    return half(min(sqrt(square / values), kLimit));
  }
};
