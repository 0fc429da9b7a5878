//! Words of several weight rows side by side, which quantisation blocks are unpacked with.

use std::ops::{BitAnd, BitOr, BitXor, Mul, Neg, Shl, Shr};

/// A 32-bit word of each of `R` rows: a `u32` for one row, registers of the vector kernels for a panel.
pub(crate) trait Lanes<const R: usize>:
    Copy
    + BitAnd<u32, Output = Self>
    + BitOr<Output = Self>
    + BitXor<u32, Output = Self>
    + Shl<u32, Output = Self>
    + Shr<u32, Output = Self>
{
    /// An f32 of each of the `R` rows.
    type Float: Copy + Mul<Output = Self::Float> + Neg<Output = Self::Float>;

    /// The mask that signed codes are xored with when they are stored, so that the set's dot product takes them.
    const SIGNED_FLIP: u32;

    /// Returns words of zeros.
    fn zero() -> Self;
    /// Stores the words.
    fn store(self, to: &mut [u32; R]);
    /// Stores the floats.
    fn store_float(value: Self::Float, to: &mut [f32; R]);
    /// Returns the f16 in the low half of each word; the high half does not matter.
    fn f16(self) -> Self::Float;
    /// Returns `word - offset` for each word, a small integer.
    fn float(self, offset: i32) -> Self::Float;
}

/// Returns a mask of the low `bits` bits of each byte.
#[inline(always)]
pub(crate) fn low_bits(bits: u32) -> u32 {
    0x0101_0101 * ((1 << bits) - 1)
}

impl Lanes<1> for u32 {
    type Float = f32;

    const SIGNED_FLIP: u32 = 0;

    fn zero() -> Self {
        0
    }

    fn store(self, to: &mut [u32; 1]) {
        *to = [self];
    }

    fn store_float(value: f32, to: &mut [f32; 1]) {
        *to = [value];
    }

    fn f16(self) -> f32 {
        half::f16::from_bits(self as u16).to_f32()
    }

    fn float(self, offset: i32) -> f32 {
        (self as i32 - offset) as f32
    }
}
