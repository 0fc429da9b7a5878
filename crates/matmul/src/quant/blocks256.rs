//! Blocks of 256 elements ("K-quants"), as in ggml's `ggml-common.h`: groups of 16 or 32 elements have integer scales (and
//! minima) of 4 to 8 bits, relative to the block's f16 `d` (and `dmin`). The products of the two are exact in f32.

use super::{Block, bytes, f16_at};

/// 16 bytes of scale and minimum, 64 of codes, `d`, `dmin`: `d * scale * q - dmin * min` by 16.
pub(crate) struct Q2K;
/// 32 bytes of third bits, 64 of codes, 12 of scales, `d`: `d * (scale - 32) * (q - 4)` by 16.
pub(crate) struct Q3K;
/// `d`, `dmin`, 12 bytes of scales and minima, 128 of codes: `d * scale * q - dmin * min` by 32.
pub(crate) struct Q4K;
/// `d`, `dmin`, 12 bytes of scales and minima, 32 of fifth bits, 128 of codes: as Q4_K.
pub(crate) struct Q5K;
/// 128 bytes of low bits, 64 of high bits, 16 signed scales, `d`: `d * scale * (q - 32)` by 16.
pub(crate) struct Q6K;

/// Two bits of each of 64 bytes by shift: bytes 0..32 hold elements 0..128, 32 for each shift; bytes 32..64 the rest.
#[inline(always)]
fn crumbs(packed: &[u8; 64], codes: &mut [u8]) {
    for (packed, codes) in packed.chunks_exact(32).zip(codes.chunks_exact_mut(128)) {
        for (shift, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, packed) in codes.iter_mut().zip(packed) {
                *code = packed >> (2 * shift) & 3;
            }
        }
    }
}

/// Bytes 32i.. hold elements 64i.. in their low nibbles and 64i + 32.. in their high ones.
#[inline(always)]
fn nibbles(packed: &[u8; 128], codes: &mut [u8]) {
    for (packed, codes) in packed.chunks_exact(32).zip(codes.chunks_exact_mut(64)) {
        let (low, high) = codes.split_at_mut(32);
        for ((packed, low), high) in packed.iter().zip(low).zip(high) {
            *low = packed & 15;
            *high = packed >> 4;
        }
    }
}

/// Eight scales and minima of six bits: the first four of each in the low bits of bytes 0..8, the others with their low
/// nibbles in bytes 8..12 and their high bits in the two spare bits of bytes 0..8.
#[inline(always)]
pub(super) fn scales_mins(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scales[j] = packed[j] & 63;
        mins[j] = packed[j + 4] & 63;
        scales[j + 4] = packed[j + 8] & 15 | packed[j] >> 6 << 4;
        mins[j + 4] = packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4;
    }
    (scales, mins)
}

/// `scale * d` and `-min * dmin` of each group of 32.
#[inline(always)]
fn scale_groups(block: &[u8], scales: &mut [f32], mins: &mut [f32]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let (scale, min) = scales_mins(bytes(block, 4));
    for group in 0..8 {
        scales[group] = d * f32::from(scale[group]);
        mins[group] = -(dmin * f32::from(min[group]));
    }
}

impl Block for Q2K {
    const LEN: usize = 256;
    const BYTES: usize = 84;
    const GROUP: usize = 16;
    const OFFSET: i32 = 0;
    const SIGNED: bool = false;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack(block: &[u8], codes: &mut [u8], scales: &mut [f32], mins: &mut [f32]) {
        crumbs(bytes(block, 16), codes);
        let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
        for (group, packed) in bytes::<16>(block, 0).iter().enumerate() {
            scales[group] = d * f32::from(packed & 15);
            mins[group] = -(dmin * f32::from(packed >> 4));
        }
    }
}

/// Sixteen scales of six bits, minus 32: low nibbles in bytes 0..8 (low, then high half), high bits in bytes 8..12.
#[inline(always)]
pub(super) fn scales_q3(packed: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|group| {
        let low = packed[group % 8] >> (group / 8 * 4) & 15;
        let high = packed[8 + group % 4] >> (group / 4 * 2) & 3;
        (low | high << 4) as i8 - 32
    })
}

impl Block for Q3K {
    const LEN: usize = 256;
    const BYTES: usize = 110;
    const GROUP: usize = 16;
    const OFFSET: i32 = 4;
    const SIGNED: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(block: &[u8], codes: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
        crumbs(bytes(block, 32), codes);
        let third = bytes::<32>(block, 0);
        for (bit, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, third) in codes.iter_mut().zip(third) {
                *code |= (third >> bit & 1) << 2;
            }
        }
        let d = f16_at(block, 108);
        for (to, scale) in scales.iter_mut().zip(scales_q3(bytes(block, 96))) {
            *to = d * f32::from(scale);
        }
    }
}

impl Block for Q4K {
    const LEN: usize = 256;
    const BYTES: usize = 144;
    const GROUP: usize = 32;
    const OFFSET: i32 = 0;
    const SIGNED: bool = false;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack(block: &[u8], codes: &mut [u8], scales: &mut [f32], mins: &mut [f32]) {
        nibbles(bytes(block, 16), codes);
        scale_groups(block, scales, mins);
    }
}

impl Block for Q5K {
    const LEN: usize = 256;
    const BYTES: usize = 176;
    const GROUP: usize = 32;
    const OFFSET: i32 = 0;
    const SIGNED: bool = false;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack(block: &[u8], codes: &mut [u8], scales: &mut [f32], mins: &mut [f32]) {
        nibbles(bytes(block, 48), codes);
        let fifth = bytes::<32>(block, 16);
        for (bit, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, fifth) in codes.iter_mut().zip(fifth) {
                *code |= (fifth >> bit & 1) << 4;
            }
        }
        scale_groups(block, scales, mins);
    }
}

impl Block for Q6K {
    const LEN: usize = 256;
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const OFFSET: i32 = 32;
    const SIGNED: bool = false;
    const MINS: bool = false;

    /// By halves of 128: 64 low bytes (elements 0..64 in low nibbles, 64..128 in high ones), 32 high bytes as in [`crumbs`].
    #[inline(always)]
    fn unpack(block: &[u8], codes: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
        let (low, high) = (bytes::<128>(block, 0), bytes::<64>(block, 128));
        for (half, codes) in codes.chunks_exact_mut(128).enumerate() {
            let (low, high) = (bytes::<64>(low, 64 * half), bytes::<32>(high, 32 * half));
            for quarter in 0..4 {
                let (low, codes) = (bytes::<32>(low, quarter % 2 * 32), &mut codes[32 * quarter..][..32]);
                for ((code, low), high) in codes.iter_mut().zip(low).zip(high) {
                    *code = low >> (quarter / 2 * 4) & 15 | (high >> (2 * quarter) & 3) << 4;
                }
            }
        }
        let d = f16_at(block, 208);
        for (to, scale) in scales.iter_mut().zip(bytes::<16>(block, 192)) {
            *to = d * f32::from(*scale as i8);
        }
    }
}
