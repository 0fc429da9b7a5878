//! Words of several weight rows side by side, which quantisation blocks are unpacked with.

use std::ops::{Add, BitAnd, BitOr, BitXor, Mul, Neg, Shl, Shr};

/// A 32-bit word of each of `R` rows: a `u32` for one row, registers of the vector kernels for a panel.
pub(crate) trait Lanes<const R: usize>:
    Copy
    + Add<Output = Self>
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
    /// Returns the f32 whose bits each word has.
    fn float_of_bits(self) -> Self::Float;
    /// Returns the float of 16 bits in the low half of each word, a bf16 if `wide` is set, else an f16; the high half
    /// does not matter.
    #[inline(always)]
    fn half_float(self, wide: bool) -> Self::Float {
        if wide { (self << 16).float_of_bits() } else { self.f16() }
    }
    /// Returns `word - offset` for each word, a small integer.
    fn float(self, offset: i32) -> Self::Float;
    /// Returns 2^(word - 128) for each word, which is below 256.
    fn power_of_two(self) -> Self::Float;
    /// Returns `value` for each row.
    fn same(value: f32) -> Self::Float;
    /// Returns the entries of `table` that the bytes of each word name; they are below 16.
    fn bytes_of(self, table: &[i8; 16]) -> Self;
    /// Returns the entry of `table` that each word names. `N` is a power of two; higher bits of a word do not count.
    fn entries_of<const N: usize>(self, table: &[u32; N]) -> Self;
    /// Returns, for byte `i` of each word, [`SIGNED_MIDDLE`] minus the byte where bit `at + i` of the word of `signs`
    /// is set, else plus the byte. Bytes are below 64, `at` is a multiple of 4.
    fn with_signs(self, signs: Self, at: u32) -> Self;
}

/// The number by which a code exceeds its integer where magnitudes below 64 have signs: AVX2's dot product takes
/// unsigned codes below 128.
pub(crate) const SIGNED_MIDDLE: u8 = 64;

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

    fn float_of_bits(self) -> f32 {
        f32::from_bits(self)
    }

    fn float(self, offset: i32) -> f32 {
        (self as i32 - offset) as f32
    }

    fn power_of_two(self) -> f32 {
        // The two least are below the normal numbers.
        f32::from_bits(if self < 2 { 0x20_0000 << self } else { (self - 1) << 23 })
    }

    fn same(value: f32) -> f32 {
        value
    }

    fn bytes_of(self, table: &[i8; 16]) -> Self {
        u32::from_le_bytes(self.to_le_bytes().map(|byte| table[usize::from(byte)] as u8))
    }

    fn entries_of<const N: usize>(self, table: &[u32; N]) -> Self {
        const { assert!(N.is_power_of_two()) };
        table[self as usize & (N - 1)]
    }

    fn with_signs(self, signs: Self, at: u32) -> Self {
        let mut bytes = self.to_le_bytes();
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = if signs >> at >> i & 1 == 1 { SIGNED_MIDDLE - *byte } else { SIGNED_MIDDLE + *byte };
        }
        u32::from_le_bytes(bytes)
    }
}
