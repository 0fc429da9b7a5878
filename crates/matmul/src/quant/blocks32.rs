//! Blocks of 32 elements, as in ggml's `ggml-common.h`: an f16 scale `d`, in some an f16 minimum `m`, then the codes.

use super::{Block, bytes, f16_at};

/// `d`, 32 signed bytes: `d * q`.
pub(crate) struct Q8_0;
/// `d`, 32 nibbles: `d * (q - 8)`.
pub(crate) struct Q4_0;
/// `d`, `m`, 32 nibbles: `d * q + m`.
pub(crate) struct Q4_1;
/// `d`, 32 fifth bits, 32 nibbles: `d * (q - 16)`.
pub(crate) struct Q5_0;
/// `d`, `m`, 32 fifth bits, 32 nibbles: `d * q + m`.
pub(crate) struct Q5_1;

/// Byte j holds element j in its low nibble and element j + 16 in its high one.
#[inline(always)]
fn nibbles(packed: &[u8; 16], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(16);
    for ((packed, low), high) in packed.iter().zip(low).zip(high) {
        *low = packed & 15;
        *high = packed >> 4;
    }
}

/// Bit j of the four bytes is the fifth bit of element j.
#[inline(always)]
fn fifth_bits(bits: &[u8; 4], codes: &mut [u8]) {
    for (codes, bits) in codes.chunks_exact_mut(8).zip(bits) {
        for (code, mask) in codes.iter_mut().zip([1u8, 2, 4, 8, 16, 32, 64, 128]) {
            *code |= u8::from(bits & mask != 0) << 4;
        }
    }
}

impl Block for Q8_0 {
    const LEN: usize = 32;
    const BYTES: usize = 34;
    const GROUP: usize = 32;
    const OFFSET: i32 = 0;
    const SIGNED: bool = true;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(block: &[u8], codes: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
        codes.copy_from_slice(bytes::<32>(block, 2));
        scales[0] = f16_at(block, 0);
    }
}

impl Block for Q4_0 {
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const GROUP: usize = 32;
    const OFFSET: i32 = 8;
    const SIGNED: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(block: &[u8], codes: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
        nibbles(bytes(block, 2), codes);
        scales[0] = f16_at(block, 0);
    }
}

impl Block for Q4_1 {
    const LEN: usize = 32;
    const BYTES: usize = 20;
    const GROUP: usize = 32;
    const OFFSET: i32 = 0;
    const SIGNED: bool = false;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack(block: &[u8], codes: &mut [u8], scales: &mut [f32], mins: &mut [f32]) {
        nibbles(bytes(block, 4), codes);
        scales[0] = f16_at(block, 0);
        mins[0] = f16_at(block, 2);
    }
}

impl Block for Q5_0 {
    const LEN: usize = 32;
    const BYTES: usize = 22;
    const GROUP: usize = 32;
    const OFFSET: i32 = 16;
    const SIGNED: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(block: &[u8], codes: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
        nibbles(bytes(block, 6), codes);
        fifth_bits(bytes(block, 2), codes);
        scales[0] = f16_at(block, 0);
    }
}

impl Block for Q5_1 {
    const LEN: usize = 32;
    const BYTES: usize = 24;
    const GROUP: usize = 32;
    const OFFSET: i32 = 0;
    const SIGNED: bool = false;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack(block: &[u8], codes: &mut [u8], scales: &mut [f32], mins: &mut [f32]) {
        nibbles(bytes(block, 8), codes);
        fifth_bits(bytes(block, 4), codes);
        scales[0] = f16_at(block, 0);
        mins[0] = f16_at(block, 2);
    }
}
