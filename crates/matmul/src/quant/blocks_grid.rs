//! Layouts of 256 elements whose magnitudes are groups of a grid ([`super::grids`]) and whose signs are stored apart,
//! as in ggml's `ggml-common.h`. Scale groups have scales of four bits, relative to the block's f16 `d`: an element's
//! value is `d * (2 * scale + 1) * magnitude`, with its sign, divided by 8 for IQ2 and by 4 for IQ3_XXS. The scale is
//! exact in f32. A comment names the fields in their order.

use super::lanes::{Lanes, SIGNED_MIDDLE, low_bits};
use super::{BlockLayout, Unpacked, grids};
use crate::WeightType;

/// `d`; for each 32 elements 4 indices of a byte, then four times 7 bits of signs and 4 of scale.
pub(crate) struct IQ2XXS;
/// `d`; for each 8 elements an index of 9 bits and 7 bits of signs; 16 scales.
pub(crate) struct IQ2XS;
/// `d`; for each 8 elements the low byte of an index; for each a byte of signs; two high bits of indices; 16 scales.
pub(crate) struct IQ2S;
/// `d`; for each 4 elements an index of a byte; for each 32 elements four times 7 bits of signs and 4 of scale.
pub(crate) struct IQ3XXS;
/// `d`; for each 4 elements the low byte of an index; high bits of indices; for each 8 a byte of signs; 8 scales.
pub(crate) struct IQ3S;

/// Stores four codes: magnitudes with the signs of bits `at..at + 4` of `signs`.
#[inline(always)]
fn four<V: Lanes<R>, const R: usize>(magnitudes: V, signs: V, at: u32, to: &mut [u32; R]) {
    magnitudes.with_signs(signs, at).store(to);
}

/// Stores eight codes: the entry of a grid that `index` names, with the signs of bits `at..at + 8` of `signs`.
#[inline(always)]
fn eight<V: Lanes<R>, const R: usize, const N: usize>(
    (index, grid): (V, &[u32; N]),
    signs: V,
    at: u32,
    to: &mut [[u32; R]],
) {
    let levels = index.entries_of(grid);
    for half in 0..2 {
        let magnitudes = (levels >> (4 * half) & low_bits(4)).bytes_of(&grids::LEVELS_OF_2_BITS);
        four(magnitudes, signs, at + 4 * half, &mut to[half as usize]);
    }
}

/// Returns the bytes of signs, whose low seven bits are stored: in each, the number of set bits is even.
#[inline(always)]
fn even_signs<V: Lanes<R>, const R: usize>(bits: V) -> V {
    /// Whether the number of a nibble's bits is odd.
    const ODD: [i8; 16] = [0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0];
    let (low, high) = ((bits & low_bits(4)).bytes_of(&ODD), (bits >> 4 & low_bits(4)).bytes_of(&ODD));
    bits | ((low + high) & low_bits(1)) << 7
}

/// Returns the 32 signs of a word with four times seven of their bits.
#[inline(always)]
fn signs_of_28_bits<V: Lanes<R>, const R: usize>(word: V) -> V {
    even_signs(word & 0x7f | (word & 0x3f80) << 1 | (word & 0x1f_c000) << 2 | (word & 0xfe0_0000) << 3)
}

/// Returns `d / divisor * (2 * scale + 1)`, with the scale in the low four bits of a word.
#[inline(always)]
fn scale_of<V: Lanes<R>, const R: usize>(d: V::Float, scale: V) -> V::Float {
    d * (scale << 1 & 31 ^ 1).float(0)
}

impl BlockLayout for IQ2XXS {
    const TYPE: WeightType = WeightType::IQ2_XXS;
    const WORDS_AT: usize = 2;
    const OFFSET: i32 = SIGNED_MIDDLE as i32;

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        let d = d.f16() * V::same(1. / 8.);
        for group in 0..8 {
            let (indices, word) = (words[2 * group], words[2 * group + 1]);
            let signs = signs_of_28_bits(word);
            for i in 0..4 {
                let codes = &mut to.codes[8 * group + 2 * i..][..2];
                eight((indices >> (8 * i as u32), &grids::IQ2_XXS), signs, 8 * i as u32, codes);
            }
            V::store_float(scale_of(d, word >> 28), &mut to.scales[group]);
        }
    }
}

impl BlockLayout for IQ2XS {
    const TYPE: WeightType = WeightType::IQ2_XS;
    const WORDS_AT: usize = 2;
    const SCALE_GROUP: usize = 16;
    const OFFSET: i32 = SIGNED_MIDDLE as i32;

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        let d = d.f16() * V::same(1. / 8.);
        for group in 0..16 {
            let word = words[group];
            let signs = even_signs(word >> 9 & 0x7f | (word >> 25) << 8);
            for i in 0..2 {
                let codes = &mut to.codes[4 * group + 2 * i..][..2];
                eight((word >> (16 * i as u32), &grids::IQ2_XS), signs, 8 * i as u32, codes);
            }
            let scale = words[16 + group / 8] >> (group as u32 % 8 * 4);
            V::store_float(scale_of(d, scale), &mut to.scales[group]);
        }
    }
}

impl BlockLayout for IQ2S {
    const TYPE: WeightType = WeightType::IQ2_S;
    const WORDS_AT: usize = 2;
    const SCALE_GROUP: usize = 16;
    const OFFSET: i32 = SIGNED_MIDDLE as i32;

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        let d = d.f16() * V::same(1. / 8.);
        for four in 0..8 {
            let (low, signs) = (words[four], words[8 + four]);
            let high = words[16 + four / 4] >> (four as u32 % 4 * 8);
            for i in 0..4 {
                let index = low >> (8 * i as u32) & 255 | (high >> (2 * i as u32) & 3) << 8;
                let codes = &mut to.codes[8 * four + 2 * i..][..2];
                eight((index, &grids::IQ2_S), signs, 8 * i as u32, codes);
            }
        }
        for group in 0..16 {
            let scale = words[18 + group / 8] >> (group as u32 % 8 * 4);
            V::store_float(scale_of(d, scale), &mut to.scales[group]);
        }
    }
}

impl BlockLayout for IQ3XXS {
    const TYPE: WeightType = WeightType::IQ3_XXS;
    const WORDS_AT: usize = 2;
    const OFFSET: i32 = SIGNED_MIDDLE as i32;

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        let d = d.f16() * V::same(1. / 4.);
        for group in 0..8 {
            let word = words[16 + group];
            let signs = signs_of_28_bits(word);
            for i in 0..8 {
                let index = words[2 * group + i / 4] >> (i as u32 % 4 * 8);
                four(index.entries_of(&grids::IQ3_XXS), signs, 4 * i as u32, &mut to.codes[8 * group + i]);
            }
            V::store_float(scale_of(d, word >> 28), &mut to.scales[group]);
        }
    }
}

impl BlockLayout for IQ3S {
    const TYPE: WeightType = WeightType::IQ3_S;
    const WORDS_AT: usize = 2;
    const OFFSET: i32 = SIGNED_MIDDLE as i32;

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>) {
        let d = d.f16();
        for group in 0..8 {
            let high = words[16 + group / 4] >> (group as u32 % 4 * 8);
            for i in 0..8 {
                let low = words[2 * group + i / 4] >> (i as u32 % 4 * 8) & 255;
                let index = low | high << (8 - i as u32) & 256;
                four(index.entries_of(&grids::IQ3_S), words[18 + group], 4 * i as u32, &mut to.codes[8 * group + i]);
            }
            V::store_float(scale_of(d, words[26] >> (4 * group as u32)), &mut to.scales[group]);
        }
    }
}
