//! Storing and loading vectors, and the rotation of queries and outputs.
use super::{Simd, viterbi};
use crate::encode::{self, Codes, FLOAT_LIMIT, LIMIT, Scales};
use crate::format::{Coding, Format, MAX_HEAD_DIM, Side};
use crate::layout::{RecordLayout, STRIP};
use crate::page;
use crate::rotation::Rotation;

/// In-place Walsh-Hadamard transform without normalisation, of a power of two of elements: strides below 16 inside
/// registers, the others between them. Adds in the order of the scalar one.
#[inline(always)]
pub(super) fn walsh<S: Simd>(s: S, x: &mut [f32]) {
    if x.len() < 16 {
        return crate::rotation::walsh_hadamard(x);
    }
    let rows = x.as_chunks_mut::<16>().0;
    for row in rows.iter_mut() {
        s.store(row, s.walsh16(s.load(row)));
    }
    let mut h = 1;
    while h < rows.len() {
        for pair in rows.chunks_exact_mut(2 * h) {
            let (a, b) = pair.split_at_mut(h);
            for (a, b) in a.iter_mut().zip(b) {
                let (x, y) = (s.load(a), s.load(b));
                s.store(a, s.add(x, y));
                s.store(b, s.sub(x, y));
            }
        }
        h *= 2;
    }
}

/// x becomes H · diag(signs) · x.
#[inline(always)]
pub(super) fn rotate<S: Simd>(s: S, rotation: &Rotation, x: &mut [f32]) {
    rotation.apply_signs(x);
    for x in x.chunks_exact_mut(rotation.walsh()) {
        walsh(s, x);
    }
    rotation.apply_paley(x, false);
}

/// The inverse: diag(signs) · Hᵀ · z.
#[inline(always)]
pub(super) fn unrotate<S: Simd>(s: S, rotation: &Rotation, z: &mut [f32]) {
    rotation.apply_paley(z, true);
    for z in z.chunks_exact_mut(rotation.walsh()) {
        walsh(s, z);
    }
    rotation.apply_signs(z);
}

/// Codes and scales of the rotated vector `z`; `scales` has `Format::scale_bytes` bytes.
#[inline(always)]
pub(super) fn encode<S: Simd>(s: S, format: Format, z: &[f32], codes: &mut [u8], scales: &mut [u8]) {
    match format.coding() {
        Coding::Trellis(trellis) => scales.copy_from_slice(&viterbi::encode(s, trellis, z, codes).to_le_bytes()),
        _ => encode::quantize(format, z, codes, scales),
    }
}

/// Stores the vector `x` as slot `slot` of the record.
#[inline(always)]
pub(super) fn store<S: Simd>(
    s: S,
    layout: &RecordLayout,
    rotation: Option<&Rotation>,
    record: &mut [u8],
    slot: usize,
    side: Side,
    x: &[f32],
) {
    let (format, d, strip, token) = (layout.format(side), layout.head_dim(), slot / STRIP, slot % STRIP);
    let plane = &mut record[layout.codes(side, strip)];
    let Some(rotation) = rotation.filter(|_| format.is_rotated()) else {
        let limit = if format == Format::F16 { LIMIT } else { FLOAT_LIMIT };
        for (i, x) in x.iter().enumerate() {
            page::put_float(format, side, plane, token, i, d, encode::sanitize(*x, limit));
        }
        return;
    };
    let (mut z, mut codes): ([f32; MAX_HEAD_DIM], Codes) = ([0.0; MAX_HEAD_DIM], [0; MAX_HEAD_DIM]);
    z.iter_mut().zip(x).for_each(|(z, x)| *z = encode::sanitize(*x, LIMIT));
    rotate(s, rotation, &mut z[..d]);
    let (mut scales, bytes): (Scales, usize) = ([0; size_of::<Scales>()], format.scale_bytes(d));
    encode(s, format, &z[..d], &mut codes[..d], &mut scales[..bytes]);
    page::put_codes(format, side, plane, token, d, &codes);
    record[layout.scales(side, strip)][token * bytes..][..bytes].copy_from_slice(&scales[..bytes]);
}

/// Decodes slot `slot`; rotated formats stay rotated.
#[inline(always)]
pub(crate) fn load(layout: &RecordLayout, record: &[u8], slot: usize, side: Side, out: &mut [f32]) {
    let (format, d, strip, token) = (layout.format(side), layout.head_dim(), slot / STRIP, slot % STRIP);
    let plane = &record[layout.codes(side, strip)];
    if !format.is_rotated() {
        for (i, out) in out.iter_mut().enumerate() {
            *out = page::get_float(format, side, plane, token, i, d);
        }
        return;
    }
    let (mut codes, bytes): (Codes, usize) = ([0; MAX_HEAD_DIM], format.scale_bytes(d));
    page::get_codes(format, side, plane, token, d, &mut codes);
    let scales = &record[layout.scales(side, strip)][token * bytes..][..bytes];
    encode::dequantize(format, &codes[..d], scales, &mut out[..d]);
}

/// Decodes tokens `from..to` (0..16) of a strip of the record into a strip of f32.
#[inline(always)]
pub(super) fn decode_strip(
    layout: &RecordLayout,
    record: &[u8],
    strip: usize,
    (from, to): (usize, usize),
    side: Side,
    out: &mut [u8],
) {
    let d = layout.head_dim();
    let mut z = [0f32; MAX_HEAD_DIM];
    for token in from..to {
        load(layout, record, strip * STRIP + token, side, &mut z[..d]);
        if side == Side::V {
            // 16 dims of 16 tokens a column.
            for (column, z) in out.as_chunks_mut::<1024>().0.iter_mut().zip(z.as_chunks::<16>().0) {
                let row = column.as_chunks_mut::<64>().0[token].as_chunks_mut::<4>().0;
                for (out, z) in row.iter_mut().zip(z) {
                    *out = z.to_le_bytes();
                }
            }
        } else {
            for (line, z) in out.as_chunks_mut::<64>().0.iter_mut().zip(&z[..d]) {
                line.as_chunks_mut::<4>().0[token] = z.to_le_bytes();
            }
        }
    }
}
