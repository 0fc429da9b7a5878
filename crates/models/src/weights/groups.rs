//! Weights of folders in which other programs have quantised them, which are made at load: codes, scales and biases of
//! a group become a block, and FP8 becomes floats.
use super::StoredWeight;
use crate::checkpoint::{Entry, GroupMode, GroupParts};
use compute::StoredMatrix;
use matmul::{Affine, HalfFloat, MatmulError, MlxRows, Weight, WeightType, pack_mlx};
use rayon::prelude::*;
use std::borrow::Cow;

/// Bytes of codes that are read before their pages are dropped.
const SLAB: usize = 1 << 24;

/// The weight of type `kind`, `[n, k]`, of codes and of what belongs to their groups. The pages of the source are
/// dropped a slab of rows after the other, so that memory holds the result and little more.
///
/// Errors: parts of other sizes; scales and codes that stand for no number, and elements that `kind` does not hold.
pub(super) fn joined(
    entry: &Entry,
    groups: &GroupParts,
    kind: WeightType,
    (n, k): (usize, usize),
) -> Result<StoredWeight, String> {
    let too_large = || MatmulError::TooLarge { ty: kind, n, k }.to_string();
    let row = kind.row_bytes(k).ok_or_else(too_large)?;
    let (codes, scales) = (entry.bytes(), groups.scales.bytes());
    let biases = groups.biases.as_ref().map_or(&[][..], |biases| biases.bytes());
    if let GroupMode::Fp8 { block, scale } = groups.mode {
        return fp8(entry, groups, (block, scale), (n, k));
    }
    let scale_row = match groups.mode {
        GroupMode::Integers { one_scale: true, .. } => 2,
        GroupMode::Affine { group, .. } | GroupMode::Integers { group, .. } => k / group * 2,
        mode => k / mode.group(),
    };
    let (code_row, bias_row) = (k * groups.mode.bits() / 8, if groups.biases.is_some() { scale_row } else { 0 });
    if [codes, scales, biases].map(<[u8]>::len) != [code_row, scale_row, bias_row].map(|row| n * row) {
        return Err(format!("has codes, scales or biases of other sizes than [{n}, {k}] needs"));
    }
    let rows = (SLAB / code_row.max(1)).max(1);
    let mut out = vec![0u8; row.checked_mul(n).ok_or_else(too_large)?];
    for (slab, out) in out.chunks_mut((rows * row).max(1)).enumerate() {
        let from = slab * rows;
        out.par_chunks_exact_mut(row).enumerate().try_for_each(|(i, out)| {
            let row = from + i;
            let rows = MlxRows {
                codes: &codes[row * code_row..][..code_row],
                scales: &scales[row * scale_row..][..scale_row],
                biases: &biases[row * bias_row..][..bias_row],
            };
            make_row(groups.mode, kind, rows, out).map_err(|message| format!("row {row} {message}"))
        })?;
        let done = from + out.len() / row.max(1);
        entry.file.forget(entry.range.start + from * code_row..entry.range.start + done * code_row);
    }
    for part in std::iter::once(&groups.scales).chain(&groups.biases) {
        part.file.forget(part.range.clone());
    }
    StoredWeight::owned(out, kind, (n, k)).map_err(|e| e.to_string())
}

/// The elements of a weight as f32.
pub(super) fn floats(weight: &StoredWeight) -> Result<StoredWeight, MatmulError> {
    let view = weight.view();
    let (n, k) = (view.n(), view.k());
    let mut bytes = Vec::with_capacity(n * k * size_of::<f32>());
    let mut row = vec![0f32; k];
    for i in 0..n {
        matmul::dequantize_row(view, i, &mut row);
        bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
    }
    StoredWeight::owned(bytes, WeightType::F32, (n, k))
}

/// Makes a row of a weight.
///
/// Errors: as [`joined`], without the row's number.
fn make_row(mode: GroupMode, kind: WeightType, rows: MlxRows<'_>, out: &mut [u8]) -> Result<(), String> {
    match mode {
        GroupMode::Mxfp4 | GroupMode::Mxfp8 if rows.scales.contains(&u8::MAX) => {
            return Err("has the scale 255, which stands for no number in E8M0".into());
        }
        GroupMode::Nvfp4 => {
            if let Some(scale) = rows.scales.iter().find(|scale| **scale & 0x7f == 0x7f) {
                return Err(format!("has the scale {scale}, which stands for no number in E4M3"));
            }
        }
        _ => {}
    }
    match (mode, kind) {
        (GroupMode::Mxfp8, _) => mxfp8(mode, rows, out),
        (GroupMode::Integers { bits, signed, .. }, WeightType::Affine(of)) => integers(of, (bits, signed), rows, out),
        _ => {
            pack_mlx(kind, rows, out);
            Ok(())
        }
    }
}

/// Makes a row of bf16.
///
/// Errors: numbers that bf16 does not hold.
fn mxfp8(mode: GroupMode, rows: MlxRows<'_>, out: &mut [u8]) -> Result<(), String> {
    let groups = rows.codes.chunks_exact(mode.group()).zip(rows.scales).zip(out.chunks_exact_mut(2 * mode.group()));
    for ((codes, scale), out) in groups {
        for (code, out) in codes.iter().zip(out.as_chunks_mut::<2>().0) {
            let value = e4m3(*code) * power_of_two(*scale);
            let [low, high, bf16 @ ..] = value.to_le_bytes();
            if !value.is_finite() || [low, high] != [0, 0] {
                return Err(format!("has the code {code} with the scale {scale}, which bf16 does not hold"));
            }
            *out = bf16;
        }
    }
    Ok(())
}

/// Makes a row of integers with scales into one of unsigned codes with scales and biases.
///
/// Errors: a scale of which the bias, minus half of all codes times that, is no number of its type.
fn integers(of: Affine, (bits, signed): (usize, bool), rows: MlxRows<'_>, out: &mut [u8]) -> Result<(), String> {
    let ty = if of.scales() == HalfFloat::F16 { WeightType::F16 } else { WeightType::Bf16 };
    let groups = rows.codes.len() * 8 / bits / of.group();
    let scales = rows.scales.repeat(if rows.scales.len() == 2 { groups } else { 1 });
    let mut numbers = vec![0f32; groups];
    let view = Weight::new(ty, 1, groups, &scales).map_err(|e| e.to_string())?;
    matmul::dequantize_row(view, 0, &mut numbers);
    // A power of two: the product is exact where it is a number.
    let half = (1 << (bits - 1)) as f32;
    let biases: Vec<f32> = numbers.iter().map(|scale| -half * scale).collect();
    let bias_bytes = matmul::quantize(ty, &biases).map_err(|e| e.to_string())?;
    let view = Weight::new(ty, 1, groups, &bias_bytes).map_err(|e| e.to_string())?;
    matmul::dequantize_row(view, 0, &mut numbers);
    if let Some(bias) = numbers.iter().zip(&biases).find(|(stored, bias)| stored != bias).map(|(_, bias)| bias) {
        return Err(format!("has the scale {}, of which the bias {bias} is no number of {ty}", bias / -half));
    }
    let codes = match signed {
        true => Cow::Owned(rows.codes.iter().map(|code| code ^ 0x80).collect::<Vec<u8>>()),
        false => Cow::Borrowed(rows.codes),
    };
    pack_mlx(WeightType::Affine(of), MlxRows { codes: &codes, scales: &scales, biases: &bias_bytes }, out);
    Ok(())
}

/// A weight of f32 of codes of FP8 and the scales of blocks.
///
/// Errors: parts of other sizes; codes that stand for no number.
fn fp8(
    entry: &Entry,
    groups: &GroupParts,
    ([rows, columns], scale): ([usize; 2], WeightType),
    (n, k): (usize, usize),
) -> Result<StoredWeight, String> {
    let (codes, blocks) = (entry.bytes(), [n.div_ceil(rows), k.div_ceil(columns)]);
    let mut scales = vec![0f32; blocks[0] * blocks[1]];
    let view = Weight::new(scale, 1, scales.len(), groups.scales.bytes()).map_err(|e| e.to_string())?;
    matmul::dequantize_row(view, 0, &mut scales);
    if n.checked_mul(k) != Some(codes.len()) {
        return Err(format!("has {} codes; [{n}, {k}] needs others", codes.len()));
    }
    let mut out = vec![0u8; codes.len() * size_of::<f32>()];
    let of_rows = out.par_chunks_exact_mut(k * size_of::<f32>()).zip(codes.par_chunks_exact(k)).enumerate();
    of_rows.try_for_each(|(row, (out, codes))| {
        let scales = &scales[row / rows * blocks[1]..][..blocks[1]];
        for (i, (code, out)) in codes.iter().zip(out.as_chunks_mut::<4>().0).enumerate() {
            let number = e4m3(*code);
            if number.is_nan() {
                return Err(format!("row {row} has the code {code}, which stands for no number in E4M3"));
            }
            *out = (number * scales[i / columns]).to_le_bytes();
        }
        Ok(())
    })?;
    entry.forget();
    StoredWeight::owned(out, WeightType::F32, (n, k)).map_err(|e| e.to_string())
}

/// 2^(e - 127), the number of a byte of E8M0 below 255.
fn power_of_two(e: u8) -> f32 {
    // The least is below the normal numbers.
    f32::from_bits(if e == 0 { 1 << 22 } else { u32::from(e) << 23 })
}

/// The number of a byte of E4M3: four bits of exponent, with a bias of 7, and three of fraction.
fn e4m3(byte: u8) -> f32 {
    let (exponent, fraction) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction / 512.0,
        _ => (8.0 + fraction) * 2f32.powi(exponent - 10),
    };
    if byte < 0x80 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fp8_has_the_numbers_of_its_definition() {
        for (byte, value) in [(0, 0.0), (1, 2f32.powi(-9)), (8, 2f32.powi(-6)), (0x38, 1.0), (0x7e, 448.0)] {
            assert_eq!((e4m3(byte), e4m3(byte | 0x80)), (value, -value), "{byte:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        assert_eq!([0, 1, 127, 254].map(power_of_two), [-127, -126, 0, 127].map(|e| 2f32.powi(e)));
    }
}
