//! Quantising one rotated vector: a code (a byte, not packed yet) per element and its scales, and back.
//!
//! Codes: two's complement for the int8 formats, unsigned for the affine ones, else the magnitude's index with the sign
//! in the bit above it. Written as plain loops over 16 lanes, compiled once per instruction set: the compiler
//! vectorises them and, since no operation is reordered, every instruction set gives the same bytes.
use crate::codebook::{Codebook, with_magnitudes};
use crate::format::{Coding, Format, MAX_HEAD_DIM, SCALE_GROUP};
use half::f16;

/// A vector's codes before packing.
pub(crate) type Codes = [u8; MAX_HEAD_DIM];
/// Room for the scales of a vector in any format: scale and minimum per 32 elements.
pub(crate) type Scales = [u8; 4 * MAX_HEAD_DIM / SCALE_GROUP];

/// Largest magnitude of an element of a coded or f16 vector: infinities and anything beyond are clamped to it.
pub(crate) const LIMIT: f32 = 65504.0;
/// Largest magnitude of an element of an f32 or bf16 vector, which hold larger values than f16; a dot product of such
/// elements stays finite.
pub(crate) const FLOAT_LIMIT: f32 = 1e30;

/// NaN becomes 0, infinities and values beyond `limit` are clamped.
#[inline(always)]
pub(crate) fn sanitize(x: f32, limit: f32) -> f32 {
    if x.is_nan() { 0.0 } else { x.clamp(-limit, limit) }
}

#[inline(always)]
fn total(lanes: &[f32; 16]) -> f32 {
    let mut sum = 0.0;
    for lane in lanes {
        sum += lane;
    }
    sum
}

/// Sum of squares in 16 lanes (a sum in one chain would cost more than the quantiser).
#[inline(always)]
pub(crate) fn norm2(z: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    for row in z.as_chunks::<16>().0 {
        for i in 0..16 {
            lanes[i] += row[i] * row[i];
        }
    }
    total(&lanes)
}

#[inline(always)]
fn max_abs(z: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    for row in z.as_chunks::<16>().0 {
        for i in 0..16 {
            let a = row[i].abs();
            lanes[i] = if a > lanes[i] { a } else { lanes[i] };
        }
    }
    let mut largest = 0f32;
    for lane in lanes {
        largest = if lane > largest { lane } else { largest };
    }
    largest
}

/// Nearest codebook values of z over its rms; the scale restores the norm: |z| / |c|.
#[inline(always)]
fn lloyd<const N: usize>(mags: &[f32; N], z: &[f32], codes: &mut [u8]) -> f16 {
    let norm2 = norm2(z);
    // Also below fp16's smallest scale by far: such vectors are zero.
    if norm2 <= 1e-30 {
        codes.fill(0);
        return f16::ZERO;
    }
    let inverse_rms = (z.len() as f32 / norm2).sqrt();
    let mut lanes = [0f32; 16];
    for (row, out) in z.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0) {
        for i in 0..16 {
            let a = row[i].abs() * inverse_rms;
            let (mut index, mut c) = (0u32, mags[0]);
            for j in 1..N {
                let above = a > 0.5 * (mags[j - 1] + mags[j]);
                index += above as u32;
                c = if above { mags[j] } else { c };
            }
            lanes[i] += c * c;
            out[i] = (index + if row[i] < 0.0 { N as u32 } else { 0 }) as u8;
        }
    }
    f16::from_f32((norm2 / total(&lanes)).sqrt().min(LIMIT))
}

#[inline(always)]
fn int8(z: &[f32], codes: &mut [u8]) -> f16 {
    let scale = f16::from_f32((max_abs(z) / 127.0).min(LIMIT));
    let inverse = if scale > f16::ZERO { 1.0 / scale.to_f32() } else { 0.0 };
    for (v, code) in z.iter().zip(codes) {
        *code = (v * inverse).round_ties_even().clamp(-127.0, 127.0) as i32 as u8;
    }
    scale
}

/// Code = (z - minimum) / scale, the minimum stored and not the zero point: a constant group keeps its value.
#[inline(always)]
fn affine(z: &[f32], levels: f32, codes: &mut [u8]) -> [f16; 2] {
    let (mut low, mut high) = (f32::MAX, f32::MIN);
    for v in z {
        low = if *v < low { *v } else { low };
        high = if *v > high { *v } else { high };
    }
    let minimum = f16::from_f32(low.clamp(-LIMIT, LIMIT));
    // The scale is computed from the minimum as it is stored, rounded to fp16, so that the largest element stays in
    // range after rounding.
    let scale = f16::from_f32(((high - minimum.to_f32()) / levels).clamp(0.0, LIMIT));
    let inverse = if scale > f16::ZERO { 1.0 / scale.to_f32() } else { 0.0 };
    let offset = minimum.to_f32();
    for (v, code) in z.iter().zip(codes) {
        *code = ((v - offset) * inverse).round_ties_even().clamp(0.0, levels) as u8;
    }
    [scale, minimum]
}

/// Codes and scales of the rotated vector `z`; `scales` has `Format::scale_bytes` bytes.
#[inline(always)]
pub(crate) fn quantize(format: Format, z: &[f32], codes: &mut [u8], scales: &mut [u8]) {
    let coding = format.coding();
    if format.has_one_scale() {
        scales.copy_from_slice(&with_scale(coding, z, codes).to_le_bytes());
        return;
    }
    for (i, (z, codes)) in z.chunks(SCALE_GROUP).zip(codes.chunks_mut(SCALE_GROUP)).enumerate() {
        if let Coding::Affine(bits) = coding {
            let [scale, minimum] = affine(z, ((1u32 << bits) - 1) as f32, codes);
            scales[4 * i + 2..][..2].copy_from_slice(&minimum.to_le_bytes());
            scales[4 * i..][..2].copy_from_slice(&scale.to_le_bytes());
        } else {
            scales[2 * i..][..2].copy_from_slice(&with_scale(coding, z, codes).to_le_bytes());
        }
    }
}

/// Codes of elements that share a scale and have no minimum; returns the scale.
#[inline(always)]
fn with_scale(coding: Coding, z: &[f32], codes: &mut [u8]) -> f16 {
    match coding {
        Coding::Book(book) => with_magnitudes!(book, lloyd(z, codes)),
        _ => int8(z, codes),
    }
}

/// The rotated vector that codes and scales stand for.
#[inline(always)]
pub(crate) fn dequantize(format: Format, codes: &[u8], scales: &[u8], z: &mut [f32]) {
    let scale = |i: usize| f16::from_le_bytes([scales[2 * i], scales[2 * i + 1]]).to_f32();
    let group = if format.has_one_scale() { z.len() } else { SCALE_GROUP };
    for (i, (z, codes)) in z.chunks_mut(group).zip(codes.chunks(group)).enumerate() {
        match format.coding() {
            Coding::Affine(_) => {
                let (scale, minimum) = (scale(2 * i), scale(2 * i + 1));
                z.iter_mut().zip(codes).for_each(|(z, c)| *z = minimum + scale * f32::from(*c));
            }
            Coding::Trellis(trellis) => {
                let (values, scale) = (&trellis.tables().values, scale(i));
                trellis.each_point(codes, |i, point| z[i] = scale * values[point]);
            }
            Coding::Book(book) => {
                let values = signed_values(book).map(|c| c * scale(i));
                z.iter_mut().zip(codes).for_each(|(z, c)| *z = values[usize::from(*c & 31)]);
            }
            _ => {
                let scale = scale(i);
                z.iter_mut().zip(codes).for_each(|(z, c)| *z = scale * f32::from(*c as i8));
            }
        }
    }
}

/// Value of each code of a codebook before the scale.
#[inline(always)]
fn signed_values(book: Codebook) -> [f32; 32] {
    let mags = book.magnitudes();
    let mut values = [0f32; 32];
    for (i, c) in mags.iter().enumerate() {
        (values[i], values[mags.len() + i]) = (*c, -c);
    }
    values
}
