//! Quantisers to blocks of 256 elements. They give the bytes of ggml's reference without an importance matrix
//! (`quantize_row_*_ref` in `ggml-quants.c`): the scale of each scale group is searched for, the scales are quantised,
//! and then codes are chosen for the scales as stored.

use super::blocks256::{Q2K, Q3K, Q4K, Q5K, Q6K};
use super::encode::{Encode, put_f16};
use super::search::{EPSILON, Search, extreme, nearest, side_by_side, symmetric, symmetric_by_steps};

/// Packs the two low bits of each code. It is the inverse of what the layouts' `unpack` does, as are the other two.
fn pack_two_bits(codes: &[u8; 256], packed: &mut [u8]) {
    for (i, code) in codes.iter().enumerate() {
        packed[i / 128 * 32 + i % 32] |= (code & 3) << (i % 128 / 32 * 2);
    }
}

/// Packs the four low bits of each code.
fn pack_nibbles(codes: &[u8; 256], packed: &mut [u8]) {
    for (i, code) in codes.iter().enumerate() {
        packed[i / 64 * 32 + i % 32] |= (code & 15) << (i % 64 / 32 * 4);
    }
}

/// Packs bit `bit` of each code.
fn pack_bit(codes: &[u8; 256], bit: u8, packed: &mut [u8]) {
    for (i, code) in codes.iter().enumerate() {
        packed[i % 32] |= (code >> bit & 1) << (i / 32);
    }
}

/// Chooses codes of `x` for the scales and minima (`x = code * scale - min`) of scale groups of `group` elements.
fn affine_codes(x: &[f32], group: usize, largest: f32, scale_min: impl Fn(usize) -> (f32, f32)) -> [u8; 256] {
    let mut codes = [0; 256];
    for (g, (x, codes)) in x.chunks_exact(group).zip(codes.chunks_exact_mut(group)).enumerate() {
        let (d, min) = scale_min(g);
        if d != 0. {
            for (code, x) in codes.iter_mut().zip(x) {
                *code = nearest((x + min) / d).clamp(0., largest) as u8;
            }
        }
    }
    codes
}

/// Chooses codes of `x` for the scales (`x = (code - half) * scale`) of scale groups of 16 elements. Codes are zero
/// where a scale is zero.
fn symmetric_codes(x: &[f32], half: f32, scale: impl Fn(usize) -> f32) -> [u8; 256] {
    let mut codes = [0; 256];
    for (g, (x, codes)) in x.chunks_exact(16).zip(codes.chunks_exact_mut(16)).enumerate() {
        let d = scale(g);
        if d != 0. {
            for (code, x) in codes.iter_mut().zip(x) {
                *code = (nearest(x / d).clamp(-half, half - 1.) + half) as u8;
            }
        }
    }
    codes
}

impl Encode for Q2K {
    fn encode(x: &[f32], block: &mut [u8]) {
        let groups = side_by_side::<16, 16>(x);
        let search = Search { largest: 3., first_step: -0.5, steps: 15, cost: f32::abs };
        let (scales, mins) = search.affine(&groups, &groups.map(|x| x.map(f32::abs)));
        let largest = |of: &[f32; 16]| of.iter().copied().fold(0f32, f32::max);
        let (scale, min) = (largest(&scales), largest(&mins));
        let code = |value: f32, largest: f32| if largest > 0. { nearest(15. / largest * value) as u8 } else { 0 };
        for g in 0..16 {
            block[g] = code(scales[g], scale) & 15 | code(mins[g], min) << 4;
        }
        let (d, dmin) = (put_f16(block, 80, scale / 15.), put_f16(block, 82, min / 15.));
        let packed: [u8; 16] = std::array::from_fn(|g| block[g]);
        let codes = affine_codes(x, 16, 3., |g| (d * f32::from(packed[g] & 15), dmin * f32::from(packed[g] >> 4)));
        pack_two_bits(&codes, &mut block[16..80]);
    }
}

impl Encode for Q3K {
    fn encode(x: &[f32], block: &mut [u8]) {
        let mut scales = [0f32; 16];
        for (scale, x) in scales.iter_mut().zip(x.chunks_exact(16)) {
            *scale = symmetric_by_steps(x, 4.);
        }
        let largest = extreme(&scales);
        if largest == 0. {
            return;
        }
        let inverse = -32. / largest;
        let stored = scales.map(|scale| nearest(inverse * scale).clamp(-32., 31.) as i32);
        for (g, scale) in stored.iter().enumerate() {
            let code = (scale + 32) as u8;
            block[96 + g % 8] |= (code & 15) << (g / 8 * 4);
            block[104 + g % 4] |= (code >> 4) << (g / 4 * 2);
        }
        let d = put_f16(block, 108, 1. / inverse);
        let codes = symmetric_codes(x, 4., |g| d * stored[g] as f32);
        pack_bit(&codes, 2, &mut block[..32]);
        pack_two_bits(&codes, &mut block[32..96]);
    }
}

/// Chooses scales, minima and codes of Q4_K and Q5_K, whose codes go up to `largest`. Writes the block's first 16 bytes
/// and returns the codes.
fn encode_32(x: &[f32], block: &mut [u8], largest: f32, first_step: f32, steps: i32) -> [u8; 256] {
    let groups = side_by_side::<8, 32>(x);
    let mut squares = [0f32; 8];
    for x in &groups {
        squares.iter_mut().zip(x).for_each(|(sum, x)| *sum += x * x);
    }
    let means = squares.map(|sum| (sum / 32.).sqrt());
    let weights = groups.map(|x| std::array::from_fn(|g| means[g] + x[g].abs()));
    let (scales, mins) = Search { largest, first_step, steps, cost: |d| d * d }.affine(&groups, &weights);
    let most = |of: &[f32; 8]| of.iter().copied().fold(0f32, f32::max);
    let (scale, min) = (most(&scales), most(&mins));
    let (d, dmin) = (put_f16(block, 0, scale / 63.), put_f16(block, 2, min / 63.));
    let code = |value: f32, most: f32| if most > 0. { nearest(63. / most * value).clamp(0., 63.) as u8 } else { 0 };
    let (scales, mins) = (scales.map(|value| code(value, scale)), mins.map(|value| code(value, min)));
    for j in 0..4 {
        block[4 + j] = scales[j] | scales[j + 4] >> 4 << 6;
        block[8 + j] = mins[j] | mins[j + 4] >> 4 << 6;
        block[12 + j] = scales[j + 4] & 15 | mins[j + 4] << 4;
    }
    affine_codes(x, 32, largest, |g| (d * f32::from(scales[g]), dmin * f32::from(mins[g])))
}

impl Encode for Q4K {
    fn encode(x: &[f32], block: &mut [u8]) {
        let codes = encode_32(x, block, 15., -1., 20);
        pack_nibbles(&codes, &mut block[16..]);
    }
}

impl Encode for Q5K {
    fn encode(x: &[f32], block: &mut [u8]) {
        let codes = encode_32(x, block, 31., -0.5, 15);
        pack_bit(&codes, 4, &mut block[16..48]);
        pack_nibbles(&codes, &mut block[48..]);
    }
}

impl Encode for Q6K {
    fn encode(x: &[f32], block: &mut [u8]) {
        let scales = symmetric(&side_by_side::<16, 16>(x), 32.);
        let largest = extreme(&scales);
        if largest.abs() < EPSILON {
            return;
        }
        let inverse = -128. / largest;
        let stored = scales.map(|scale| nearest(inverse * scale).min(127.) as i8);
        let d = put_f16(block, 208, 1. / inverse);
        for (byte, scale) in block[192..208].iter_mut().zip(stored) {
            *byte = scale as u8;
        }
        let codes = symmetric_codes(x, 32., |g| d * f32::from(stored[g]));
        for (i, code) in codes.iter().enumerate() {
            let (half, quarter, byte) = (i / 128, i % 128 / 32, i % 32);
            block[64 * half + quarter % 2 * 32 + byte] |= (code & 15) << (quarter / 2 * 4);
            block[128 + 32 * half + byte] |= (code >> 4) << (2 * quarter);
        }
    }
}
