// The KV formats and their codebooks, written from crates/turboquant/src/format.rs and codebook.rs by
// `UPDATE_KERNELS=1 cargo test -p turboquant kernel_header`. Change those and run that.
// clang-format off
#pragma once
#include <metal_stdlib>
using namespace metal;

// Function constants 0 and 1.
enum Format : uint {
  kF16,  // K and V f16
  kBf16,  // K and V bf16
  kTq8,  // K and V tq8
  kTq5,  // K and V tq5
  kTq4,  // K and V tq4
  kTq3,  // K and V tq3
  kTq2,  // K and V tq2
  kAffine8,  // K q8_0
  kAffine5,  // K q5_0
  kAffine4,  // K q4_0
  kInt8,  // V q8_0
  kLloyd5,  // V q5_0
  kLloyd4,  // V q4_0
  kLloyd3,  // V q3_0
  kLloyd2,  // V q2_0
};
// A further bit in a plane of its own: the sign, or an affine code's highest bit.
inline bool has_top_plane(uint f) { return f == kTq3 || f == kAffine5 || f == kLloyd3; }
// One scale a vector.
inline bool is_scaled(uint f) { return f >= kTq8 && f <= kTq2; }
// One scale, and with affine codes a minimum, for 32 elements.
inline bool is_grouped(uint f) { return f >= kAffine8; }
// Unsigned codes above a minimum.
inline bool is_affine(uint f) { return f >= kAffine8 && f <= kAffine4; }
// Codes from -127 to 127.
inline bool is_int8(uint f) { return f == kTq8 || f == kInt8; }
// Vectors are rotated before they are stored.
inline bool is_rotated(uint f) { return f >= kTq8; }
// Bits of an element in the main plane.
inline uint main_bits(uint f) {
  return f == kF16 || f == kBf16 ? 16
       : f == kTq8 || f == kAffine8 || f == kInt8 ? 8
       : f == kTq5 || f == kLloyd5 ? 5
       : f == kTq3 || f == kTq2 || f == kLloyd3 || f == kLloyd2 ? 2
       : 4;
}

// The codebooks for N(0,1), and the one that each format has.
enum Codebook : uint {
  kBookLloyd2,
  kBookLloyd3,
  kBookLloyd4,
  kBookLloyd5,
  kBookCubic4,
  kBookNone,
};
inline uint book_of(uint f) {
  return f == kTq5 || f == kLloyd5 ? kBookLloyd5
       : f == kTq4 ? kBookCubic4
       : f == kLloyd4 ? kBookLloyd4
       : f == kTq3 || f == kLloyd3 ? kBookLloyd3
       : f == kTq2 || f == kLloyd2 ? kBookLloyd2
       : kBookNone;
}
// Codes ascend with their values; else a sign lies above the index of a magnitude.
inline bool is_ascending(uint f) { return f == kTq4 || f == kTq2 || f == kLloyd2; }

// Magnitudes, ascending.
constant float kMagnitudesLloyd2[2] = {
    0.45278f, 1.510418f,
};
constant float kMagnitudesLloyd3[4] = {
    0.245094f, 0.756005f, 1.343909f, 2.151946f,
};
constant float kMagnitudesLloyd4[8] = {
    0.128395f, 0.388048f, 0.656759f, 0.94234f, 1.256231f, 1.618046f, 2.069017f, 2.732589f,
};
constant float kMagnitudesLloyd5[16] = {
    0.06589f, 0.198052f, 0.331378f, 0.4667f, 0.604934f, 0.747136f, 0.894565f, 1.048783f,
    1.211804f, 1.38634f, 1.576228f, 1.787233f, 2.028728f, 2.317739f, 2.69112f, 3.260732f,
};
constant float kMagnitudesCubic4[8] = {
    0.120516196f, 0.3678412f, 0.6340441f, 0.93171006f, 1.2734245f, 1.6717724f, 2.1393392f, 2.68871f,
};
inline uint magnitudes(uint f) {
  return f == kTq5 || f == kLloyd5 ? 16
       : f == kTq4 || f == kLloyd4 ? 8
       : f == kTq3 || f == kLloyd3 ? 4
       : 2;
}
inline float magnitude(uint f, uint i) {
  return f == kTq5 || f == kLloyd5 ? kMagnitudesLloyd5[i]
       : f == kTq4 ? kMagnitudesCubic4[i]
       : f == kLloyd4 ? kMagnitudesLloyd4[i]
       : f == kTq3 || f == kLloyd3 ? kMagnitudesLloyd3[i]
       : kMagnitudesLloyd2[i];
}
