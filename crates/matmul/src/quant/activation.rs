//! Rows of `x` as int8 codes, by blocks of 32 with an f32 scale.

use rayon::prelude::*;

use crate::{Isa, simd};

/// Elements that share a scale.
pub(crate) const BLOCK: usize = 32;

/// Rows from which quantising them is worth the pool.
const PARALLEL_ROWS: usize = 32;

/// `m` rows of `k` elements, quantised for a weight whose scales cover `group` elements each.
pub(crate) struct Activations {
    pub k: usize,
    pub group: usize,
    /// What the kernel's codes of the weight exceed their values by.
    pub offset: i32,
    /// `m x k`: `round(x / scale)`, -127..=127.
    pub codes: Vec<i8>,
    /// `m x k / BLOCK`: largest magnitude / 127.
    pub scales: Vec<f32>,
    /// `m x k / group`: minus the sum of the group's codes times `offset`.
    pub corrections: Vec<i32>,
    /// `m x k / group`: the sum of the group's codes times their scale, what a minimum is multiplied with.
    pub sums: Vec<f32>,
}

/// One row of [`Activations`].
pub(crate) struct Row<'a> {
    pub codes: &'a mut [i8],
    pub scales: &'a mut [f32],
    pub corrections: &'a mut [i32],
    pub sums: &'a mut [f32],
}

impl Activations {
    pub(crate) fn quantize(isa: Isa, x: &[f32], k: usize, group: usize, offset: i32) -> Self {
        let mut all = Self {
            k,
            group,
            offset,
            codes: vec![0; x.len()],
            scales: vec![0.; x.len() / BLOCK],
            corrections: vec![0; x.len() / group],
            sums: vec![0.; x.len() / group],
        };
        let rows = all.codes.chunks_exact_mut(k).zip(all.scales.chunks_exact_mut(k / BLOCK));
        let groups = all.corrections.chunks_exact_mut(k / group).zip(all.sums.chunks_exact_mut(k / group));
        let rows =
            rows.zip(groups).map(|((codes, scales), (corrections, sums))| Row { codes, scales, corrections, sums });
        let work = |(x, mut row): (&[f32], Row<'_>)| simd::quantize_row(isa, x, group, offset, &mut row);
        if x.len() / k < PARALLEL_ROWS {
            x.chunks_exact(k).zip(rows).for_each(work);
        } else {
            let rows: Vec<_> = x.chunks_exact(k).zip(rows).collect();
            rows.into_par_iter().with_min_len(PARALLEL_ROWS / 4).for_each(work);
        }
        all
    }

    pub(crate) fn rows(&self) -> usize {
        self.codes.len() / self.k
    }
}

/// Inlined into a function per instruction set, which compiles it to the set's vectors.
#[inline(always)]
pub(crate) fn quantize_row(x: &[f32], group: usize, offset: i32, row: &mut Row<'_>) {
    for (block, (x, codes)) in x.chunks_exact(BLOCK).zip(row.codes.chunks_exact_mut(BLOCK)).enumerate() {
        row.scales[block] = quantize_block(x, codes);
    }
    for (g, codes) in row.codes.chunks_exact(group).enumerate() {
        let sum: i32 = codes.iter().map(|code| i32::from(*code)).sum();
        row.corrections[g] = -offset * sum;
        row.sums[g] = sum as f32 * row.scales[g * group / BLOCK];
    }
}

/// Smaller magnitudes count as zero: 127 / them could overflow.
const TINY: f32 = 1e-30;

/// 1.5 * 2^23: adding it leaves the integer nearest to a small f32, ties to even, in the low bits.
pub(super) const ROUND: f32 = 12_582_912.;

#[inline(always)]
fn quantize_block(x: &[f32], codes: &mut [i8]) -> f32 {
    // The largest bits without the sign are the largest magnitude, or a NaN or infinity, which then is the block's scale
    // and goes on to the output.
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
