//! Layouts of 32 elements, as in ggml's `ggml-common.h`: an f16 scale `d`, in some an f16 minimum `m`, then the codes
//! `q`. A comment names the fields in their order and gives an element's value.

use super::encode::{Encode, Encoder};
use super::lanes::{Lanes, SIGNED_MIDDLE, low_bits};
use super::{BlockLayout, Unpacked};
use crate::WeightType;

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
/// `d`, 32 nibbles: `d * IQ4_VALUES[q]`.
pub(crate) struct IQ4NL;
/// A byte `e`, 32 nibbles: `2^(e - 128) * MXFP4_VALUES[q]`. The values are twice those of FP4 (E2M1).
pub(crate) struct MXFP4;
/// Two scales `e` of FP8 (E4M3), 32 nibbles: `e / 2 * MXFP4_VALUES[q]` in scale groups of 16.
pub(crate) struct NVFP4;

/// What the codes of IQ4_NL and IQ4_XS stand for: `kvalues_iq4nl` of ggml's `ggml-common.h` (MIT licence).
pub(super) const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// What the codes of MXFP4 stand for.
const MXFP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Stores 32 codes of four bits: byte `j` holds element `j` in its low nibble and element `j + 16` in its high one.
#[inline(always)]
fn nibbles<V: Lanes<R>, const R: usize>(words: &[V], codes: &mut [[u32; R]]) {
    for i in 0..4 {
        let word = words[i];
        (word & low_bits(4)).store(&mut codes[i]);
        (word >> 4 & low_bits(4)).store(&mut codes[i + 4]);
    }
}

/// Stores 32 codes, which are the entries of `values` that nibbles name; these lie as [`nibbles`] has them.
#[inline(always)]
fn named_by_nibbles<V: Lanes<R>, const R: usize>(words: &[V], values: &[i8; 16], codes: &mut [[u32; R]]) {
    for i in 0..4 {
        let word = words[i];
        (word & low_bits(4)).bytes_of(values).store(&mut codes[i]);
        (word >> 4 & low_bits(4)).bytes_of(values).store(&mut codes[i + 4]);
    }
}

/// Stores 32 signed codes of IQ4_NL's and IQ4_XS's values.
#[inline(always)]
pub(super) fn iq4_codes<V: Lanes<R>, const R: usize>(words: &[V], codes: &mut [[u32; R]]) {
    let values = IQ4_VALUES.map(|value| value ^ (V::SIGNED_FLIP as u8).cast_signed());
    named_by_nibbles::<V, R>(words, &values, codes);
}

/// Stores 32 codes of five bits: four as [`nibbles`] has them, and bit `j` of `fifth` is the fifth bit of element `j`.
#[inline(always)]
fn nibbles_fifth<V: Lanes<R>, const R: usize>(words: &[V], fifth: V, codes: &mut [[u32; R]]) {
    for i in 0..4 {
        let word = words[i];
        let (low, high) = (fifth >> (4 * i as u32) & 15, fifth >> (4 * i as u32 + 16) & 15);
        (word & low_bits(4) | spread::<V, R>(low) << 4).store(&mut codes[i]);
        (word >> 4 & low_bits(4) | spread::<V, R>(high) << 4).store(&mut codes[i + 4]);
    }
}

/// Spreads the four bits of each word to the lowest bits of its four bytes: copies that lie seven bits apart do not
/// overlap, and each has another of the bits at the bottom of a byte.
#[inline(always)]
fn spread<V: Lanes<R>, const R: usize>(bits: V) -> V {
    (bits | bits << 7 | bits << 14 | bits << 21) & low_bits(1)
}

/// Stores the scale, which is in the low half of `d`.
#[inline(always)]
fn scale<V: Lanes<R>, const R: usize>(d: V, scales: &mut [[f32; R]]) {
    V::store_float(d.f16(), &mut scales[0]);
}

/// Stores the scale `d`, which is in the low half of `word`, and the minimum `m`, which is in the high half.
#[inline(always)]
fn scale_min<V: Lanes<R>, const R: usize>(word: V, scales: &mut [[f32; R]], mins: &mut [[f32; R]]) {
    V::store_float(word.f16(), &mut scales[0]);
    V::store_float((word >> 16).f16(), &mut mins[0]);
}

impl BlockLayout for Q8_0 {
    const TYPE: WeightType = WeightType::Q8_0;
    const WORDS_AT: usize = 2;
    const SIGNED: bool = true;
    const ENCODE: Option<Encoder> = Some(Self::encode);

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        for (word, code) in words.iter().zip(to.codes) {
            (*word ^ V::SIGNED_FLIP).store(code);
        }
        scale::<V, R>(d, to.scales);
    }
}

impl BlockLayout for Q4_0 {
    const TYPE: WeightType = WeightType::Q4_0;
    const WORDS_AT: usize = 2;
    const OFFSET: i32 = 8;
    const ENCODE: Option<Encoder> = Some(Self::encode);

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        nibbles::<V, R>(words, to.codes);
        scale::<V, R>(d, to.scales);
    }
}

impl BlockLayout for Q4_1 {
    const TYPE: WeightType = WeightType::Q4_1;
    const MINS: bool = true;
    const ENCODE: Option<Encoder> = Some(Self::encode);

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], _: V, to: Unpacked<'_, R>) {
        nibbles::<V, R>(&words[1..], to.codes);
        scale_min::<V, R>(words[0], to.scales, to.mins);
    }
}

impl BlockLayout for Q5_0 {
    const TYPE: WeightType = WeightType::Q5_0;
    const WORDS_AT: usize = 2;
    const OFFSET: i32 = 16;
    const ENCODE: Option<Encoder> = Some(Self::encode);

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        nibbles_fifth::<V, R>(&words[1..], words[0], to.codes);
        scale::<V, R>(d, to.scales);
    }
}

impl BlockLayout for Q5_1 {
    const TYPE: WeightType = WeightType::Q5_1;
    const MINS: bool = true;
    const ENCODE: Option<Encoder> = Some(Self::encode);

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], _: V, to: Unpacked<'_, R>) {
        nibbles_fifth::<V, R>(&words[2..], words[1], to.codes);
        scale_min::<V, R>(words[0], to.scales, to.mins);
    }
}

impl BlockLayout for IQ4NL {
    const TYPE: WeightType = WeightType::IQ4_NL;
    const ENCODE: Option<Encoder> = Some(Self::encode);
    const WORDS_AT: usize = 2;
    const SIGNED: bool = true;

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        iq4_codes::<V, R>(words, to.codes);
        scale::<V, R>(d, to.scales);
    }
}

/// Returns the unsigned codes of values whose magnitudes are below 64.
const fn codes_of(values: &[i8; 16]) -> [i8; 16] {
    let mut codes = *values;
    let mut i = 0;
    while i < 16 {
        codes[i] += SIGNED_MIDDLE.cast_signed();
        i += 1;
    }
    codes
}

/// The codes of MXFP4 and NVFP4.
const FP4_CODES: [i8; 16] = codes_of(&MXFP4_VALUES);

impl BlockLayout for MXFP4 {
    const TYPE: WeightType = WeightType::Mxfp4;
    const WORDS_AT: usize = 1;
    const OFFSET: i32 = SIGNED_MIDDLE as i32;

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        named_by_nibbles::<V, R>(words, &FP4_CODES, to.codes);
        V::store_float((d & 255).power_of_two(), &mut to.scales[0]);
    }
}

impl BlockLayout for NVFP4 {
    const TYPE: WeightType = WeightType::Nvfp4;
    const WORDS_AT: usize = 2;
    const SCALE_GROUP: usize = 16;
    const OFFSET: i32 = SIGNED_MIDDLE as i32;

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        named_by_nibbles::<V, R>(words, &FP4_CODES, to.codes);
        for (group, scale) in to.scales.iter_mut().enumerate() {
            // The bits of an E4M3 number, moved to where f16 has exponent and fraction, are 2^8 times less.
            let e4m3 = d >> (8 * group as u32);
            let scaled = (e4m3 & 0x7f) << 7 | (e4m3 & 0x80) << 8;
            V::store_float(scaled.f16() * V::same(128.), scale);
        }
    }
}
