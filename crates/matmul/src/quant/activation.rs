//! The rows of `x` as int8 codes, in blocks of 32 elements with an f32 scale.

/// The elements of `x` that share a scale.
pub(crate) const ACTIVATION_BLOCK: usize = 32;

/// `m` rows of `k` elements, quantised for a weight with scale groups of `scale_group` elements.
pub(crate) struct Activations {
    /// Elements of a row.
    pub k: usize,
    /// Elements that share a scale in the weight.
    pub scale_group: usize,
    /// The number by which a code of the weight, as the kernel has it, exceeds the integer it stands for.
    pub offset: i32,
    /// `[m][k]`: `round(x / scale)`, within -127..=127.
    pub codes: Vec<i8>,
    /// `[m][k / ACTIVATION_BLOCK]`: the largest magnitude of the block, divided by 127.
    pub scales: Vec<f32>,
    /// `[m][k / scale_group]`: `-offset * sum(codes)`, which takes the offset out of an integer sum of products.
    pub corrections: Vec<i32>,
    /// `[m][k / scale_group]`: `scale * sum(codes)`, which a minimum is multiplied with.
    pub sums: Vec<f32>,
}

/// One row of [`Activations`], with the same fields.
pub(crate) struct ActivationRow<'a> {
    pub codes: &'a mut [i8],
    pub scales: &'a mut [f32],
    pub corrections: &'a mut [i32],
    pub sums: &'a mut [f32],
}

impl Activations {
    /// Returns the number of rows, `m`.
    pub(crate) fn rows(&self) -> usize {
        self.codes.len() / self.k
    }
}

/// Quantises one row.
///
/// It is inlined into a function for each instruction set, which compiles it to the set's vectors.
#[inline(always)]
pub(crate) fn quantize_row(x: &[f32], scale_group: usize, offset: i32, row: &mut ActivationRow<'_>) {
    for (block, (x, codes)) in
        x.chunks_exact(ACTIVATION_BLOCK).zip(row.codes.chunks_exact_mut(ACTIVATION_BLOCK)).enumerate()
    {
        row.scales[block] = quantize_block(x, codes);
    }
    for (g, codes) in row.codes.chunks_exact(scale_group).enumerate() {
        let sum: i32 = codes.iter().map(|code| i32::from(*code)).sum();
        row.corrections[g] = -offset * sum;
        row.sums[g] = sum as f32 * row.scales[g * scale_group / ACTIVATION_BLOCK];
    }
}

/// A block whose largest magnitude is below this is all zero, since 127 / magnitude could overflow.
const TINY: f32 = 1e-30;

/// 1.5 * 2^23. Adding it to an f32 below 2^22 in magnitude leaves the nearest integer, ties to even, in the low bits.
pub(super) const ROUND: f32 = 12_582_912.;

/// Quantises one block of [`ACTIVATION_BLOCK`] elements and returns its scale.
#[inline(always)]
fn quantize_block(x: &[f32], codes: &mut [i8]) -> f32 {
    // The largest bits without the sign are the largest magnitude, or a NaN or infinity, which then is the block's
    // scale and goes on to the output.
    let largest = f32::from_bits(x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff)));
    if largest < TINY {
        codes.fill(0);
        return 0.;
    }
    let inverse = 127. / largest;
    for (code, x) in codes.iter_mut().zip(x) {
        *code = (x * inverse + ROUND).to_bits() as i8;
    }
    largest / 127.
}
