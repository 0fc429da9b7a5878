//! Quantisation blocks: their layouts, the panels that they are unpacked to, and the quantisers.
//!
//! The rows of `x` are quantised to int8 ([`Activations`]). The weight is taken in panels of [`PANEL_ROWS`] rows and
//! [`PANEL_COLUMNS`] columns, which are unpacked to one form for every layout ([`Panel`]); all rows of `x` go against a
//! panel while it is in a cache. The crate's documentation gives the order of summation.

mod activation;
mod blocks256;
mod blocks32;
mod blocks_affine;
mod blocks_grid;
mod encode;
mod encode256;
mod encode32;
mod grids;
pub(crate) mod lanes;
mod mlx;
pub(crate) mod scalar;
mod search;

pub(crate) use activation::{ACTIVATION_BLOCK, ActivationRow, Activations, quantize_row};
pub(crate) use blocks_affine::AffineBlock;
pub(crate) use blocks_grid::{IQ2S, IQ2XS, IQ2XXS, IQ3S, IQ3XXS};
pub(crate) use blocks32::{IQ4NL, MXFP4, NVFP4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
pub(crate) use blocks256::{IQ4XS, Q2K, Q3K, Q4K, Q5K, Q6K, TQ1_0, TQ2_0};
pub(crate) use encode::{Encoder, encode};
pub use mlx::{MlxRows, pack_mlx};

use self::lanes::Lanes;
use crate::WeightType;

/// The weight rows of a panel. Their products run side by side, one to a lane.
pub(crate) const PANEL_ROWS: usize = 16;

/// The number of panels whose products with a row of `x` run together, so that one load of the row serves both.
pub(crate) const PANELS: usize = 2;

/// The most columns of a panel. Codes and scales of [`PANELS`] panels, 2 x (16 x 512 + 2 x 16 x 32 x 4) = 24 KiB, stay
/// in a first-level cache. It is a multiple of every quantisation block.
pub(crate) const PANEL_COLUMNS: usize = 512;

/// The smallest scale group of any layout, in elements.
const SMALLEST_SCALE_GROUP: usize = 16;

/// The sums of a row of `x` with the rows of [`PANELS`] panels.
pub(crate) type PanelSums = [[f32; PANEL_ROWS]; PANELS];

/// The layout of a quantisation block. Blocks are unpacked as rows of 32-bit words: `R` blocks of as many weight rows
/// side by side.
pub(crate) trait BlockLayout: Sync + 'static {
    /// The weight type with this layout.
    const TYPE: WeightType;
    /// Elements of a block.
    const LEN: usize = Self::TYPE.block_len();
    /// Bytes of a block.
    const BYTES: usize = Self::TYPE.block_bytes();
    /// The byte at which the block's words begin: after a leading scale `d`, or at 0.
    const WORDS_AT: usize = 0;
    /// Whole words of a block.
    const WORDS: usize = (Self::BYTES - Self::WORDS_AT) / 4;
    /// The byte of the scale that is not part of a whole word, where there is one: at the block's start or its end.
    const D_AT: usize = if Self::WORDS_AT > 0 { 0 } else { Self::BYTES - 2 };
    /// Elements that share a scale.
    const SCALE_GROUP: usize = 32;
    /// The number by which a code exceeds the integer it stands for.
    const OFFSET: i32 = 0;
    /// Whether codes are signed bytes; otherwise they are below 128.
    const SIGNED: bool = false;
    /// Whether scale groups have a minimum.
    const MINS: bool = false;
    /// The quantiser; `None` for a layout that values are not quantised to.
    const ENCODE: Option<Encoder> = None;

    /// Unpacks the [`Self::WORDS`] words of `R` blocks. The low half of `d` has the two bytes at
    /// [`Self::D_AT`].
    ///
    /// It is inlined into a function that has the features which `V` needs.
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], d: V, to: Unpacked<'_, R>);
}

/// What `R` blocks are unpacked to: an element is `(code - OFFSET) * scale + min`.
pub(crate) struct Unpacked<'a, const R: usize> {
    /// The codes in order, four to a word: `[LEN / 4][R]`.
    pub codes: &'a mut [[u32; R]],
    /// The scales, `[LEN / SCALE_GROUP][R]`.
    pub scales: &'a mut [[f32; R]],
    /// The minima, `[LEN / SCALE_GROUP][R]`; empty for a layout without minima.
    pub mins: &'a mut [[f32; R]],
}

/// What the products of panels depend on of a layout.
pub(crate) trait PanelForm {
    /// [`BlockLayout::SCALE_GROUP`].
    const SCALE_GROUP: usize;
    /// [`BlockLayout::SIGNED`].
    const SIGNED: bool;
    /// [`BlockLayout::MINS`].
    const MINS: bool;
}

/// The form of scale groups of `GROUP` elements, of signed codes or of unsigned ones, with minima or without.
pub(crate) struct ScaleGroups<const GROUP: usize, const SIGNED: bool, const MINS: bool>;

impl<const GROUP: usize, const SIGNED: bool, const MINS: bool> PanelForm for ScaleGroups<GROUP, SIGNED, MINS> {
    const SCALE_GROUP: usize = GROUP;
    const SIGNED: bool = SIGNED;
    const MINS: bool = MINS;
}

/// The most words of any layout's block.
pub(crate) const MAX_WORDS: usize = 52;

/// Up to [`PANEL_COLUMNS`] columns of [`PANEL_ROWS`] weight rows, unpacked.
pub(crate) struct Panel {
    /// For every four columns, four codes of each row.
    pub codes: Vec<[u32; PANEL_ROWS]>,
    /// For every scale group, the scale of each row.
    pub scales: Vec<[f32; PANEL_ROWS]>,
    /// For every scale group, the minimum of each row.
    pub mins: Vec<[f32; PANEL_ROWS]>,
}

impl Panel {
    pub(crate) fn new() -> Self {
        let groups = PANEL_COLUMNS / SMALLEST_SCALE_GROUP;
        Self {
            codes: vec![[0; PANEL_ROWS]; PANEL_COLUMNS / 4],
            scales: vec![[0.; PANEL_ROWS]; groups],
            mins: vec![[0.; PANEL_ROWS]; groups],
        }
    }

    /// Returns the place of block `block` of each row.
    #[inline(always)]
    pub(crate) fn block<B: BlockLayout>(&mut self, block: usize) -> Unpacked<'_, PANEL_ROWS> {
        let (words, groups) = (B::LEN / 4, B::LEN / B::SCALE_GROUP);
        Unpacked {
            codes: &mut self.codes[block * words..][..words],
            scales: &mut self.scales[block * groups..][..groups],
            mins: if B::MINS { &mut self.mins[block * groups..][..groups] } else { &mut [] },
        }
    }
}

/// Writes the elements of a row to `out`.
pub(crate) fn dequantize<B: BlockLayout>(row: &[u8], out: &mut [f32]) {
    let mut one = scalar::OneBlock::new::<B>();
    for (block, out) in row.chunks_exact(B::BYTES).zip(out.chunks_exact_mut(B::LEN)) {
        one.unpack::<B>(block);
        let codes = one.codes.iter().flat_map(|[word]| word.to_le_bytes());
        for (i, (out, code)) in out.iter_mut().zip(codes).enumerate() {
            let value = (scalar::code(B::SIGNED, code) - B::OFFSET) as f32 * one.scales[i / B::SCALE_GROUP][0];
            *out = if B::MINS { value + one.mins[i / B::SCALE_GROUP][0] } else { value };
        }
    }
}
