//! The reference of the panel kernels, in safe Rust.

use std::ops::Range;

use super::{ACTIVATION_BLOCK, Activations, BlockLayout, PanelForm, Unpacked};
use super::{PANEL_ROWS, PANELS, Panel, PanelSums};

/// One quantisation block of one row, unpacked.
pub(crate) struct OneBlock {
    words: Vec<u32>,
    pub codes: Vec<[u32; 1]>,
    pub scales: Vec<[f32; 1]>,
    pub mins: Vec<[f32; 1]>,
}

impl OneBlock {
    pub(crate) fn new<B: BlockLayout>() -> Self {
        let groups = B::LEN / B::SCALE_GROUP;
        let mins = if B::MINS { groups } else { 0 };
        Self {
            words: vec![0; B::WORDS],
            codes: vec![[0]; B::LEN / 4],
            scales: vec![[0.]; groups],
            mins: vec![[0.]; mins],
        }
    }

    pub(crate) fn unpack<B: BlockLayout>(&mut self, block: &[u8]) {
        for (word, bytes) in self.words.iter_mut().zip(block[B::WORDS_AT..].as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let d = u32::from(u16::from_le_bytes([block[B::D_AT], block[B::D_AT + 1]]));
        let to = Unpacked { codes: &mut self.codes, scales: &mut self.scales, mins: &mut self.mins };
        B::unpack::<u32, 1>(&self.words, d, to);
    }
}

/// Unpacks blocks `blocks` of each of the panel's rows to the panel's beginning. The rows lie one after the other.
pub(crate) fn unpack<B: BlockLayout>(rows: &[u8], blocks: Range<usize>, panel: &mut Panel) {
    let mut one = OneBlock::new::<B>();
    for (lane, row) in rows.chunks_exact(rows.len() / PANEL_ROWS).enumerate() {
        for (block, bytes) in row.chunks_exact(B::BYTES).take(blocks.end).skip(blocks.start).enumerate() {
            one.unpack::<B>(bytes);
            let to = panel.block::<B>(block);
            to.codes.iter_mut().zip(&one.codes).for_each(|(to, [code])| to[lane] = *code);
            to.scales.iter_mut().zip(&one.scales).for_each(|(to, [scale])| to[lane] = *scale);
            to.mins.iter_mut().zip(&one.mins).for_each(|(to, [min])| to[lane] = *min);
        }
    }
}

/// Adds to `sums` what columns `columns` contribute to the products of every row of `x` with the panels.
pub(crate) fn multiply<F: PanelForm>(
    panels: &[Panel; PANELS],
    x: &Activations,
    columns: Range<usize>,
    sums: &mut [PanelSums],
) {
    for (row, sums) in sums.iter_mut().enumerate() {
        for (panel, sums) in panels.iter().zip(sums) {
            for group in 0..columns.len() / F::SCALE_GROUP {
                let at = row * x.k + columns.start + group * F::SCALE_GROUP;
                add_group::<F>(panel, group, x, at, sums);
            }
        }
    }
}

/// Adds the products of scale group `group` of the panel, which begins at element `at` of `x`.
fn add_group<F: PanelForm>(panel: &Panel, group: usize, x: &Activations, at: usize, sums: &mut [f32; PANEL_ROWS]) {
    let steps = group * F::SCALE_GROUP / 4..(group + 1) * F::SCALE_GROUP / 4;
    let mut dots = [x.corrections[at / F::SCALE_GROUP]; PANEL_ROWS];
    for (w, x) in panel.codes[steps].iter().zip(x.codes[at..].as_chunks::<4>().0) {
        for (dot, w) in dots.iter_mut().zip(w) {
            *dot += w.to_le_bytes().iter().zip(x).map(|(w, x)| code(F::SIGNED, *w) * i32::from(*x)).sum::<i32>();
        }
    }
    for lane in 0..PANEL_ROWS {
        let product = dots[lane] as f32 * panel.scales[group][lane];
        sums[lane] = product.mul_add(x.scales[at / ACTIVATION_BLOCK], sums[lane]);
        if F::MINS {
            sums[lane] = panel.mins[group][lane].mul_add(x.sums[at / F::SCALE_GROUP], sums[lane]);
        }
    }
}

/// Returns a code as a number.
pub(crate) fn code(signed: bool, byte: u8) -> i32 {
    if signed { i32::from(byte as i8) } else { i32::from(byte) }
}
