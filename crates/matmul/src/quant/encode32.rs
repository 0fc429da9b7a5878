//! Quantisers to blocks of 32 elements. They give the bytes of ggml's reference (`quantize_row_*_ref` in
//! `ggml-quants.c`).

use super::blocks32::{IQ4_VALUES, IQ4NL, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use super::encode::{Encode, put_f16};
use super::search::{EPSILON, extreme};

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

/// The middles between IQ4_NL's values; a middle belongs to the upper one.
const IQ4_MIDDLES: [f32; 15] = {
    let mut middles = [0.; 15];
    let mut i = 0;
    while i < 15 {
        middles[i] = (IQ4_VALUES[i] as f32 + IQ4_VALUES[i + 1] as f32) / 2.;
        i += 1;
    }
    middles
};

/// Returns the scale of a block of IQ4_NL. Of 16 scales, the one is taken whose codes, each with the square of its
/// element as its weight, come nearest to the elements once they are scaled anew.
fn scale_of_iq4(x: &[f32]) -> f32 {
    let (largest, lowest) = (extreme(x), f32::from(IQ4_VALUES[0]));
    if largest.abs() < EPSILON {
        return 0.;
    }
    // ggml begins with the scale that gives the largest element the value of the greatest magnitude, then goes from -7
    // to 7 values beside it on the other side. The scales are tried side by side, so that the compiler makes vectors.
    let first = 1. / (-largest / lowest);
    let inverses: [f32; 16] = std::array::from_fn(|i| if i == 0 { first } else { (i as f32 - 8. + lowest) / largest });
    let (mut sums_qx, mut sums_q2) = ([0f32; 16], [0f32; 16]);
    for x in x {
        let weight = x * x;
        for ((sum_qx, sum_q2), id) in sums_qx.iter_mut().zip(&mut sums_q2).zip(&inverses) {
            // The lowest value, and the steps to the nearest one.
            let steps = IQ4_MIDDLES.iter().zip(IQ4_VALUES.windows(2));
            let q = steps.fold(lowest, |q, (middle, values)| {
                q + if id * x >= *middle { f32::from(values[1]) - f32::from(values[0]) } else { 0. }
            });
            *sum_qx += weight * q * x;
            *sum_q2 += weight * q * q;
        }
    }
    let (mut d, mut best) = (0., 0.);
    for (i, (qx, q2)) in sums_qx.into_iter().zip(sums_q2).enumerate() {
        if i == 0 || q2 > 0. && qx * qx > best * q2 {
            d = qx / q2;
            best = d * qx;
        }
    }
    d
}

impl Encode for IQ4NL {
    fn encode(x: &[f32], block: &mut [u8]) {
        let d = scale_of_iq4(x);
        put_f16(block, 0, d);
        let id = inverse(d);
        let nearest = |x: f32| IQ4_MIDDLES.iter().filter(|middle| x >= **middle).count() as u8;
        pack_nibbles(&std::array::from_fn(|i| nearest(id * x[i])), &mut block[2..]);
    }
}
