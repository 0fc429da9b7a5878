//! Layouts of 256 elements ("K-quants", and some that are like them), as in ggml's `ggml-common.h`: scale groups of 16
//! or 32 elements have integer scales (and minima) of 4 to 8 bits, relative to the block's f16 `d` (and `dmin`). The
//! products of the two are exact in f32. A comment names the fields in their order and gives the value of an element
//! with code `q`.

use super::blocks32::iq4_codes;
use super::encode::{Encode, Encoder};
use super::lanes::{Lanes, low_bits};
use super::{BlockLayout, Unpacked};
use crate::WeightType;

/// 16 bytes of scale and minimum, 64 of codes, `d`, `dmin`: `d * scale * q - dmin * min` in scale groups of 16.
pub(crate) struct Q2K;
/// 32 bytes of third bits, 64 of codes, 12 of scales, `d`: `d * (scale - 32) * (q - 4)` in scale groups of 16.
pub(crate) struct Q3K;
/// `d`, `dmin`, 12 bytes of scales and minima, 128 of codes: `d * scale * q - dmin * min` in scale groups of 32.
pub(crate) struct Q4K;
/// `d`, `dmin`, 12 bytes of scales and minima, 32 of fifth bits, 128 of codes: an element's value is as in Q4_K.
pub(crate) struct Q5K;
/// 128 bytes of low bits, 64 of high bits, 16 signed scales, `d`: `d * scale * (q - 32)` in scale groups of 16.
pub(crate) struct Q6K;
/// `d`, 2 bytes and 4 of scales, 128 of codes: `d * (scale - 32) * IQ4_VALUES[q]` in scale groups of 32.
pub(crate) struct IQ4XS;
/// 52 bytes with five codes of three values (the last four have four each), `d`: `d * (q - 1)`.
pub(crate) struct TQ1_0;
/// 64 bytes of codes, `d`: `d * (q - 1)`.
pub(crate) struct TQ2_0;

/// Stores 256 codes of two bits. Bytes 0..32 hold elements 0..128 and bytes 32..64 the others; each of the four shifts
/// of a byte by two bits gives 32 of them. With `third` codes have three bits: bit `i` of its 32 bytes is the third bit
/// of elements `32 i..32 i + 32`.
#[inline(always)]
fn two_bit_codes<V: Lanes<R>, const R: usize>(words: &[V], third: Option<&[V]>, codes: &mut [[u32; R]]) {
    for half in 0..2 {
        for i in 0..8 {
            let word = words[half * 8 + i];
            for shift in 0..4 {
                let mut code = word >> (2 * shift as u32) & low_bits(2);
                if let Some(third) = third {
                    let bit = third[i] >> (half * 4 + shift) as u32 & low_bits(1);
                    code = code | bit << 2;
                }
                code.store(&mut codes[half * 32 + shift * 8 + i]);
            }
        }
    }
}

/// Stores 256 codes of four bits. Bytes `32 i..32 i + 32` hold elements `64 i..64 i + 32` in their low nibbles and the
/// next 32 in their high ones. With `fifth` codes have five bits: bit `i` of its 32 bytes is the fifth bit of elements
/// `32 i..32 i + 32`.
#[inline(always)]
fn nibbles<V: Lanes<R>, const R: usize>(words: &[V], fifth: Option<&[V]>, codes: &mut [[u32; R]]) {
    for quarter in 0..4 {
        for i in 0..8 {
            let word = words[quarter * 8 + i];
            for shift in 0..2 {
                let mut code = word >> (4 * shift as u32) & low_bits(4);
                if let Some(fifth) = fifth {
                    let bit = fifth[i] >> (quarter * 2 + shift) as u32 & low_bits(1);
                    code = code | bit << 4;
                }
                code.store(&mut codes[quarter * 16 + shift * 8 + i]);
            }
        }
    }
}

/// Stores the eight scales and minima of Q4_K and Q5_K. The first word holds `d` and `dmin`, the other three hold
/// integers of six bits: bytes 0..4 and 4..8 the first four scales and minima, with two bits of the other four on top;
/// bytes 8..12 the low nibbles of the other four, those of the minima above those of the scales.
#[inline(always)]
fn scales_mins<V: Lanes<R>, const R: usize>(words: &[V], scales: &mut [[f32; R]], mins: &mut [[f32; R]]) {
    let ds = words[0];
    let (d, dmin) = (ds.f16(), -(ds >> 16).f16());
    for group in 0..4 {
        let shift = 8 * group as u32;
        let (low, high) = (words[1] >> shift & 255, words[2] >> shift & 255);
        let last = words[3] >> shift & 255;
        V::store_float(d * (low & 63).float(0), &mut scales[group]);
        V::store_float(dmin * (high & 63).float(0), &mut mins[group]);
        V::store_float(d * (last & 15 | low >> 6 << 4).float(0), &mut scales[group + 4]);
        V::store_float(dmin * (last >> 4 | high >> 6 << 4).float(0), &mut mins[group + 4]);
    }
}

impl BlockLayout for Q2K {
    const TYPE: WeightType = WeightType::Q2_K;
    const SCALE_GROUP: usize = 16;
    const MINS: bool = true;
    const ENCODE: Option<Encoder> = Some(Self::encode);

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], _: V, to: Unpacked<'_, R>) {
        two_bit_codes::<V, R>(&words[4..20], None, to.codes);
        let ds = words[20];
        let (d, dmin) = (ds.f16(), -(ds >> 16).f16());
        for group in 0..16 {
            let packed = words[group / 4] >> (group as u32 % 4 * 8);
            V::store_float(d * (packed & 15).float(0), &mut to.scales[group]);
            V::store_float(dmin * (packed >> 4 & 15).float(0), &mut to.mins[group]);
        }
    }
}

impl BlockLayout for Q3K {
    const TYPE: WeightType = WeightType::Q3_K;
    const SCALE_GROUP: usize = 16;
    const OFFSET: i32 = 4;
    const ENCODE: Option<Encoder> = Some(Self::encode);

    /// The low nibbles of the 16 scales are in eight bytes (first the low halves, then the high ones), their high bits
    /// in the four bytes after them.
    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        two_bit_codes::<V, R>(&words[8..24], Some(&words[..8]), to.codes);
        let d = d.f16();
        for group in 0..16 {
            let byte = group as u32 % 4 * 8;
            let low = words[24 + group % 8 / 4] >> (byte + group as u32 / 8 * 4) & 15;
            let high = words[26] >> (byte + group as u32 / 4 * 2) & 3;
            V::store_float(d * (low | high << 4).float(32), &mut to.scales[group]);
        }
    }
}

impl BlockLayout for Q4K {
    const TYPE: WeightType = WeightType::Q4_K;
    const MINS: bool = true;
    const ENCODE: Option<Encoder> = Some(Self::encode);

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], _: V, to: Unpacked<'_, R>) {
        nibbles::<V, R>(&words[4..36], None, to.codes);
        scales_mins::<V, R>(&words[..4], to.scales, to.mins);
    }
}

impl BlockLayout for Q5K {
    const TYPE: WeightType = WeightType::Q5_K;
    const MINS: bool = true;
    const ENCODE: Option<Encoder> = Some(Self::encode);

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], _: V, to: Unpacked<'_, R>) {
        nibbles::<V, R>(&words[12..44], Some(&words[4..12]), to.codes);
        scales_mins::<V, R>(&words[..4], to.scales, to.mins);
    }
}

impl BlockLayout for Q6K {
    const TYPE: WeightType = WeightType::Q6_K;
    const SCALE_GROUP: usize = 16;
    const OFFSET: i32 = 32;
    const ENCODE: Option<Encoder> = Some(Self::encode);

    /// Each half of 128 elements has 64 bytes of low bits (elements 0..64 in low nibbles, 64..128 in high ones) and 32
    /// bytes of high bits, which lie as in [`two_bit_codes`].
    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        for half in 0..2 {
            for i in 0..8 {
                let low = [words[half * 16 + i], words[half * 16 + 8 + i]];
                let high = words[32 + half * 8 + i];
                for quarter in 0..4 {
                    let low = low[quarter % 2] >> (quarter as u32 / 2 * 4) & low_bits(4);
                    let high = high >> (2 * quarter as u32) & low_bits(2);
                    (low | high << 4).store(&mut to.codes[half * 32 + quarter * 8 + i]);
                }
            }
        }
        let d = d.f16();
        for group in 0..16 {
            let scale = words[48 + group / 4] >> (group as u32 % 4 * 8) & 255;
            // A signed byte with its sign bit turned over exceeds its value by 128.
            V::store_float(d * (scale ^ 128).float(128), &mut to.scales[group]);
        }
    }
}

impl BlockLayout for IQ4XS {
    const TYPE: WeightType = WeightType::IQ4_XS;
    const SIGNED: bool = true;

    /// The first word holds `d` and the two high bits of the eight scales, the second their low nibbles.
    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], _: V, to: Unpacked<'_, R>) {
        let d = words[0].f16();
        for group in 0..8 {
            iq4_codes::<V, R>(&words[2 + 4 * group..][..4], &mut to.codes[8 * group..][..8]);
            let low = words[1] >> (4 * group as u32) & 15;
            let high = words[0] >> (16 + 2 * group as u32) & 3;
            V::store_float(d * (low | high << 4).float(32), &mut to.scales[group]);
        }
    }
}

/// Stores `count` codes of each byte of the words, the first ones of all words before the second ones. A byte is a
/// fraction of 256, whose digits to the base 3 are the codes.
#[inline(always)]
fn ternary_codes<V: Lanes<R>, const R: usize>(words: &[V], count: usize, codes: &mut [[u32; R]]) {
    for (i, word) in words.iter().enumerate() {
        let mut pairs = [*word & 0x00ff_00ff, *word >> 8 & 0x00ff_00ff];
        for digit in 0..count {
            let thrice = pairs.map(|pair| pair + (pair << 1));
            pairs = thrice.map(|pair| pair & 0x00ff_00ff);
            let code = thrice[0] >> 8 & 0x0003_0003 | thrice[1] & 0x0300_0300;
            code.store(&mut codes[digit * words.len() + i]);
        }
    }
}

impl BlockLayout for TQ1_0 {
    const TYPE: WeightType = WeightType::TQ1_0;
    const OFFSET: i32 = 1;

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        ternary_codes::<V, R>(&words[..8], 5, &mut to.codes[..40]);
        ternary_codes::<V, R>(&words[8..12], 5, &mut to.codes[40..60]);
        ternary_codes::<V, R>(&words[12..13], 4, &mut to.codes[60..]);
        for scale in to.scales {
            V::store_float(d.f16(), scale);
        }
    }
}

impl BlockLayout for TQ2_0 {
    const TYPE: WeightType = WeightType::TQ2_0;
    const OFFSET: i32 = 1;

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        two_bit_codes::<V, R>(words, None, to.codes);
        for scale in to.scales {
            V::store_float(d.f16(), scale);
        }
    }
}
