//! Products with block-quantised weights: rows of `x` are quantised, panels of the weight are unpacked, and all rows go
//! against a panel while it is in a cache.

use rayon::prelude::*;

use crate::quant::{ACTIVATION_BLOCK, ActivationRow, Activations, BlockLayout};
use crate::quant::{PANEL_COLUMNS, PANEL_ROWS, PANELS, Panel, PanelSums};
use crate::simd::panels;
use crate::{Isa, Weight};

/// The number of rows from which quantising them is worth waking the pool.
const PARALLEL_ROWS: usize = 32;

/// Quantises the rows of `x`, each of `k` elements, for products with weights of layout `B`.
pub(crate) fn quantize_activations<B: BlockLayout>(isa: Isa, x: &[f32], k: usize) -> Activations {
    let (scale_group, offset) = (B::SCALE_GROUP, panels::code_offset::<B>(isa));
    let mut all = Activations {
        k,
        scale_group,
        offset,
        codes: vec![0; x.len()],
        scales: vec![0.; x.len() / ACTIVATION_BLOCK],
        corrections: vec![0; x.len() / scale_group],
        sums: vec![0.; x.len() / scale_group],
    };
    let rows = all.codes.chunks_exact_mut(k).zip(all.scales.chunks_exact_mut(k / ACTIVATION_BLOCK));
    let groups = all.corrections.chunks_exact_mut(k / scale_group).zip(all.sums.chunks_exact_mut(k / scale_group));
    let rows = rows.zip(groups).map(|((codes, scales), (corrections, sums))| ActivationRow {
        codes,
        scales,
        corrections,
        sums,
    });
    let work = |(x, mut row): (&[f32], ActivationRow<'_>)| panels::quantize_row(isa, x, scale_group, offset, &mut row);
    if x.len() / k < PARALLEL_ROWS {
        x.chunks_exact(k).zip(rows).for_each(work);
    } else {
        let rows: Vec<_> = x.chunks_exact(k).zip(rows).collect();
        rows.into_par_iter().with_min_len(PARALLEL_ROWS / 4).for_each(work);
    }
    all
}

/// Whether `x` was quantised as weights of layout `B` take it.
pub(crate) fn takes<B: BlockLayout>(isa: Isa, x: &Activations) -> bool {
    x.scale_group == B::SCALE_GROUP && x.offset == panels::code_offset::<B>(isa)
}

/// The memory of one thread for unpacked panels and their sums, which serves one product after the other. The first
/// product that needs it allocates it.
#[derive(Default)]
pub(crate) struct PanelScratch {
    panels: Option<[Panel; PANELS]>,
    sums: Vec<PanelSums>,
}

/// Computes `out[i][j] = sum_k x[i][k] * w[j][k]`, taking the weight's rows in pairs of panels.
pub(crate) fn multiply<B: BlockLayout>(
    isa: Isa,
    x: &Activations,
    w: Weight<'_>,
    out: &mut [&mut [f32]],
    scratch: &mut PanelScratch,
) {
    const WIDTH: usize = PANEL_ROWS * PANELS;
    let k = w.k();
    let panels = scratch.panels.get_or_insert_with(|| std::array::from_fn(|_| Panel::new()));
    let sums = &mut scratch.sums;
    // Last panels of fewer rows are filled with zeros, whose sums are dropped.
    let mut last = w.bytes()[w.n() / WIDTH * WIDTH * w.row_bytes()..].to_vec();
    if !last.is_empty() {
        last.resize(WIDTH * w.row_bytes(), 0);
    }
    let whole = w.bytes().chunks_exact(WIDTH * w.row_bytes());
    for (first, rows) in (0..w.n()).step_by(WIDTH).zip(whole.chain([&last[..]])) {
        sums.clear();
        sums.resize(x.rows(), [[0.; PANEL_ROWS]; PANELS]);
        for from in (0..k).step_by(PANEL_COLUMNS) {
            let to = k.min(from + PANEL_COLUMNS);
            let blocks = from / B::LEN..to / B::LEN;
            for (panel, rows) in panels.iter_mut().zip(rows.chunks_exact(PANEL_ROWS * w.row_bytes())) {
                panels::unpack::<B>(isa, rows, blocks.clone(), panel);
            }
            panels::multiply::<B>(isa, panels, x, from..to, sums);
        }
        for (out, sums) in out.iter_mut().zip(&*sums) {
            let width = WIDTH.min(out.len() - first);
            out[first..first + width].copy_from_slice(&sums.as_flattened()[..width]);
        }
    }
}
