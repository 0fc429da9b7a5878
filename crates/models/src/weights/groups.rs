//! Weights of MLX's folders, which are made at load: codes, scales and biases of a group become a block.
use super::StoredWeight;
use crate::checkpoint::{Entry, GroupMode, GroupParts};
use compute::StoredMatrix;
use matmul::{MatmulError, MlxRows, WeightType, pack_mlx};
use rayon::prelude::*;

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
    let groups_of_row = k / groups.mode.group();
    let scale_bytes = if matches!(groups.mode, GroupMode::Affine { .. }) { 2 } else { 1 };
    let scale_row = groups_of_row * scale_bytes;
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
    if mode != GroupMode::Mxfp8 {
        pack_mlx(kind, rows, out);
        return Ok(());
    }
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
