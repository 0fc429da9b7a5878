//! f16 to f32 on NEON.

use std::arch::aarch64::*;

/// Converts the f16 in the low half of each word, by integer operations and an exact product, since Rust has no stable
/// type for registers of f16.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::simd) fn f16_to_f32(words: uint32x4_t) -> float32x4_t {
    let sign = vshlq_n_u32::<16>(vandq_u32(words, vdupq_n_u32(0x8000)));
    let magnitude = vshlq_n_u32::<13>(vandq_u32(words, vdupq_n_u32(0x7fff)));
    // The exponent is short by 127 - 15; the product also normalises subnormals.
    let finite = vmulq_f32(vreinterpretq_f32_u32(magnitude), vdupq_n_f32(f32::from_bits((127 + 112) << 23)));
    let special = vorrq_u32(magnitude, vdupq_n_u32(0xff << 23));
    let is_finite = vcltq_u32(magnitude, vdupq_n_u32(0x7c00 << 13));
    vreinterpretq_f32_u32(vorrq_u32(sign, vbslq_u32(is_finite, vreinterpretq_u32_f32(finite), special)))
}
