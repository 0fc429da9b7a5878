//! Quantisers to blocks of 32 elements. They give the bytes of ggml's reference (`quantize_row_*_ref` in
//! `ggml-quants.c`).

use super::blocks32::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use super::encode::{Encode, put_f16};
use super::search::extreme;

fn inverse(d: f32) -> f32 {
    if d == 0. { 0. } else { 1. / d }
}

fn pack_nibbles(codes: &[u8; 32], packed: &mut [u8]) {
    for (j, byte) in packed.iter_mut().enumerate() {
        *byte = codes[j] & 15 | codes[j + 16] << 4;
    }
}

fn pack_fifth_bits(codes: &[u8; 32], packed: &mut [u8]) {
    for (j, code) in codes.iter().enumerate() {
        packed[j / 8] |= (code >> 4) << (j % 8);
    }
}

/// Chooses codes within `0..levels` around `levels / 2`, which stands for 0. The element of the largest magnitude gets
/// code 0, since the lower end reaches one further. Returns the scale `d`.
fn symmetric(x: &[f32], levels: u8, codes: &mut [u8; 32]) -> f32 {
    let half = f32::from(levels / 2);
    let d = extreme(x) / -half;
    let id = inverse(d);
    for (code, x) in codes.iter_mut().zip(x) {
        *code = ((x * id + half + 0.5) as u8).min(levels - 1);
    }
    d
}

/// Chooses codes from 0 at the minimum to `levels - 1` at the maximum. Returns the scale `d` and the minimum.
fn affine(x: &[f32], levels: u8, codes: &mut [u8; 32]) -> (f32, f32) {
    let (min, max) = x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), x| (min.min(*x), max.max(*x)));
    let d = (max - min) / f32::from(levels - 1);
    let id = inverse(d);
    for (code, x) in codes.iter_mut().zip(x) {
        *code = (((x - min) * id + 0.5) as u8).min(levels - 1);
    }
    (d, min)
}

impl Encode for Q8_0 {
    fn encode(x: &[f32], block: &mut [u8]) {
        let d = extreme(x).abs() / 127.;
        let id = inverse(d);
        put_f16(block, 0, d);
        for (code, x) in block[2..].iter_mut().zip(x) {
            *code = (x * id).round() as i8 as u8;
        }
    }
}

impl Encode for Q4_0 {
    fn encode(x: &[f32], block: &mut [u8]) {
        let mut codes = [0; 32];
        put_f16(block, 0, symmetric(x, 16, &mut codes));
        pack_nibbles(&codes, &mut block[2..]);
    }
}

impl Encode for Q4_1 {
    fn encode(x: &[f32], block: &mut [u8]) {
        let mut codes = [0; 32];
        let (d, min) = affine(x, 16, &mut codes);
        put_f16(block, 0, d);
        put_f16(block, 2, min);
        pack_nibbles(&codes, &mut block[4..]);
    }
}

impl Encode for Q5_0 {
    fn encode(x: &[f32], block: &mut [u8]) {
        let mut codes = [0; 32];
        put_f16(block, 0, symmetric(x, 32, &mut codes));
        pack_fifth_bits(&codes, &mut block[2..6]);
        pack_nibbles(&codes, &mut block[6..]);
    }
}

impl Encode for Q5_1 {
    fn encode(x: &[f32], block: &mut [u8]) {
        let mut codes = [0; 32];
        let (d, min) = affine(x, 32, &mut codes);
        put_f16(block, 0, d);
        put_f16(block, 2, min);
        pack_fifth_bits(&codes, &mut block[4..8]);
        pack_nibbles(&codes, &mut block[8..]);
    }
}
