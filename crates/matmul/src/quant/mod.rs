//! Products with block-quantised weights, straight from a GGUF file's bytes.
//!
//! The rows of `x` are quantised to int8 ([`Activations`]). The weight is taken in panels of [`PANEL`] rows and [`CHUNK`]
//! columns, unpacked to one form for every type ([`Panel`]), against which all rows of `x` go while it is in cache. The sum
//! of a group of 16 or 32 products is an exact integer; an element adds, group after group from `k = 0`,
//! `fma(integer * weight_scale, x_scale, acc)` and then, for types with minima, `fma(weight_min, x_sum, acc)`.

mod activation;
mod blocks256;
mod blocks32;
mod encode;
mod encode256;
mod encode32;
pub(crate) mod lanes;
pub(crate) mod scalar;
mod search;

pub(crate) use activation::{Activations, BLOCK, Row, quantize_row};
pub(crate) use blocks32::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
pub(crate) use blocks256::{Q2K, Q3K, Q4K, Q5K, Q6K};
pub(crate) use encode::{Encode, encode};

use crate::quant::lanes::Lanes;
use crate::{Isa, Weight, simd};

/// Weight rows whose products run side by side, one to a lane.
pub(crate) const PANEL: usize = 16;

/// Panels whose products with a row run together: a load of the row serves both.
pub(crate) const PANELS: usize = 2;

/// Most columns of a panel: codes and scales of the panels stay in a first-level cache. A multiple of every block.
const CHUNK: usize = 512;

/// Fewest elements that share a scale.
const MIN_GROUP: usize = 16;

/// The sums of a row of `x` with the panels' rows.
pub(crate) type Sums = [[f32; PANEL]; PANELS];

/// A block layout. Blocks are unpacked as rows of 32-bit words, `R` blocks of as many weight rows side by side.
pub(crate) trait Block: Sync + 'static {
    /// Elements.
    const LEN: usize;
    /// Bytes.
    const BYTES: usize;
    /// Where the block's words begin: behind a leading `d`, or at 0.
    const WORDS_AT: usize;
    const WORDS: usize = (Self::BYTES - Self::WORDS_AT) / 4;
    /// Where the f16 lies that is not part of a whole word, if there is one: at the start or the end.
    const D_AT: usize = if Self::WORDS_AT > 0 { 0 } else { Self::BYTES - 2 };
    /// Elements that share a scale.
    const GROUP: usize;
    /// What a code exceeds its value by.
    const OFFSET: i32;
    /// Whether codes are signed bytes; otherwise they are below 64.
    const SIGNED: bool;
    /// Whether groups have a minimum.
    const MINS: bool;

    /// `d` has the f16 at `D_AT` in its low halves.
    ///
    /// Inlined into a function with the features that `V` needs.
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>);
}

/// What a block is unpacked to: element = (code - OFFSET) * scale + min.
pub(crate) struct Unpacked<'a, const R: usize> {
    /// The codes in order, four to a word.
    pub codes: &'a mut [[u32; R]],
    /// By group.
    pub scales: &'a mut [[f32; R]],
    /// By group; empty for a type without.
    pub mins: &'a mut [[f32; R]],
}

/// Most words of a block.
pub(crate) const MAX_WORDS: usize = 52;

/// Up to `CHUNK` columns of `PANEL` weight rows.
pub(crate) struct Panel {
    /// By four columns: four codes of every row.
    pub codes: Vec<[u32; PANEL]>,
    /// By group: the scale of every row.
    pub scales: Vec<[f32; PANEL]>,
    /// By group: the minimum of every row.
    pub mins: Vec<[f32; PANEL]>,
}

impl Panel {
    fn new() -> Self {
        Self {
            codes: vec![[0; PANEL]; CHUNK / 4],
            scales: vec![[0.; PANEL]; CHUNK / MIN_GROUP],
            mins: vec![[0.; PANEL]; CHUNK / MIN_GROUP],
        }
    }

    /// The place of the panel's block `block`.
    #[inline(always)]
    pub(crate) fn block<B: Block>(&mut self, block: usize) -> Unpacked<'_, PANEL> {
        let (steps, groups) = (B::LEN / 4, B::LEN / B::GROUP);
        Unpacked {
            codes: &mut self.codes[block * steps..][..steps],
            scales: &mut self.scales[block * groups..][..groups],
            mins: if B::MINS { &mut self.mins[block * groups..][..groups] } else { &mut [] },
        }
    }
}

/// The elements of a row.
pub(crate) fn dequantize<B: Block>(row: &[u8], out: &mut [f32]) {
    let mut one = scalar::OneBlock::new::<B>();
    for (block, out) in row.chunks_exact(B::BYTES).zip(out.chunks_exact_mut(B::LEN)) {
        one.unpack::<B>(block);
        let codes = one.codes.iter().flat_map(|[word]| word.to_le_bytes());
        for (i, (out, code)) in out.iter_mut().zip(codes).enumerate() {
            let value = (scalar::code::<B>(code) - B::OFFSET) as f32 * one.scales[i / B::GROUP][0];
            *out = if B::MINS { value + one.mins[i / B::GROUP][0] } else { value };
        }
    }
}

/// What a thread unpacks weights to and sums in, for one product after the other; made by the first that needs it.
#[derive(Default)]
pub(crate) struct Scratch {
    panels: Option<[Panel; PANELS]>,
    sums: Vec<Sums>,
}

/// All rows of `x` against all rows of `w`, panels after panels.
pub(crate) fn multiply<B: Block>(
    isa: Isa,
    x: &Activations,
    w: Weight<'_>,
    out: &mut [&mut [f32]],
    scratch: &mut Scratch,
) {
    const WIDTH: usize = PANEL * PANELS;
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
        sums.resize(x.rows(), [[0.; PANEL]; PANELS]);
        for from in (0..k).step_by(CHUNK) {
            let to = k.min(from + CHUNK);
            let blocks = from / B::LEN..to / B::LEN;
            for (panel, rows) in panels.iter_mut().zip(rows.chunks_exact(PANEL * w.row_bytes())) {
                simd::unpack::<B>(isa, rows, blocks.clone(), panel);
            }
            simd::multiply::<B>(isa, panels, x, from..to, sums);
        }
        for (out, sums) in out.iter_mut().zip(&*sums) {
            let width = WIDTH.min(out.len() - first);
            out[first..first + width].copy_from_slice(&sums.as_flattened()[..width]);
        }
    }
}
