//! Panel kernels of the quantised products.

use std::ops::Range;

use crate::quant::lanes::Lanes;
use crate::quant::{Activations, BLOCK, Block, MAX_WORDS, PANEL, PANELS, Panel, Row, Sums, scalar};
use crate::{Isa, quant};

#[cfg(target_arch = "aarch64")]
use super::quant_neon as neon;
#[cfg(target_arch = "x86_64")]
use super::{quant_avx2 as avx2, quant_avx512 as avx512};

/// What the panel's codes exceed their values by. AVX-512's dot product takes one side unsigned, so signed codes are moved up.
pub(crate) fn code_offset<B: Block>(isa: Isa) -> i32 {
    B::OFFSET + if B::SIGNED && isa == Isa::Avx512 { 128 } else { 0 }
}

pub(crate) fn quantize_row(isa: Isa, x: &[f32], group: usize, offset: i32, row: &mut Row<'_>) {
    match isa {
        // SAFETY: `matmul_with` has checked that the instructions are available.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512::quantize_row(x, group, offset, row) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::quantize_row(x, group, offset, row) },
        _ => quant::quantize_row(x, group, offset, row),
    }
}

/// Unpacks blocks `blocks` of each of the panel's rows, which lie one after the other, to the panel's beginning.
pub(crate) fn unpack<B: Block>(isa: Isa, rows: &[u8], blocks: Range<usize>, panel: &mut Panel) {
    assert!(isa.is_available(), "{isa:?} is not available on this processor");
    assert!(rows.len().is_multiple_of(PANEL) && rows.len() / PANEL >= blocks.end * B::BYTES);
    match isa {
        // SAFETY: the instructions are available, and the rows have the blocks.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512::unpack::<B>(rows, blocks, panel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::unpack::<B>(rows, blocks, panel) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { neon::unpack::<B>(rows, blocks, panel) },
        _ => scalar::unpack::<B>(rows, blocks, panel),
    }
}

/// Bytes that a prefetch brings.
const CACHE_LINE: usize = 64;

/// An instruction set's registers of a word of each of the panel's rows.
pub(super) trait PanelLanes: Lanes<PANEL> {
    /// Four words of each of the 16 rows, at `from` and every `stride` bytes.
    ///
    /// # Safety
    /// The set's instructions must be available, and 16 bytes readable at each address.
    unsafe fn four_words(from: *const u8, stride: usize) -> [Self; 4];

    /// Asks for the cache line at an address, which need not exist.
    fn prefetch(at: *const u8);
}

/// What `scalar::unpack` does; inlined into a function with the set's features. It asks for the place of the panels that come
/// next: a processor does not foresee so many short runs.
///
/// # Safety
/// The instructions of `V` must be available, and blocks `blocks` readable in each of the 16 rows.
#[inline(always)]
pub(super) unsafe fn unpack_with<V: PanelLanes, B: Block>(rows: &[u8], blocks: Range<usize>, panel: &mut Panel) {
    let stride = rows.len() / PANEL;
    let mut words = [V::zero(); MAX_WORDS];
    let mut d = V::zero();
    let first = blocks.start;
    for block in blocks {
        let at = block * B::BYTES;
        // Of small blocks, only those in which a line's worth of bytes is reached.
        if at % CACHE_LINE < B::BYTES {
            for line in (0..B::BYTES).step_by(CACHE_LINE) {
                for r in 0..PANEL {
                    V::prefetch(rows.as_ptr().wrapping_add(PANELS * rows.len() + r * stride + at + line));
                }
            }
        }
        // SAFETY: the block lies within each row. It has 16 bytes behind `WORDS_AT`, so its last four words, which may
        // overlap those before, are within it, as are its first and last 16 bytes.
        unsafe {
            let from = rows.as_ptr().add(at);
            for i in (0..B::WORDS).step_by(4) {
                let i = i.min(B::WORDS - 4);
                words[i..i + 4].copy_from_slice(&V::four_words(from.add(B::WORDS_AT + 4 * i), stride));
            }
            if B::WORDS * 4 < B::BYTES {
                d = match B::D_AT {
                    0 => V::four_words(from, stride)[0],
                    _ => V::four_words(from.add(B::BYTES - 16), stride)[3] >> 16,
                };
            }
        }
        B::unpack::<V, PANEL>(&words[..B::WORDS], d, panel.block::<B>(block - first));
    }
}

/// Adds columns `columns` of the product of every row of `x` with the panels.
pub(crate) fn multiply<B: Block>(
    isa: Isa,
    panels: &[Panel; PANELS],
    x: &Activations,
    columns: Range<usize>,
    sums: &mut [Sums],
) {
    assert!(isa.is_available(), "{isa:?} is not available on this processor");
    let groups = columns.len() / B::GROUP;
    assert!(columns.end <= x.k && x.group == B::GROUP && sums.len() == x.rows());
    for panel in panels {
        assert!(panel.codes.len() >= columns.len() / 4 && panel.scales.len() >= groups);
        assert!(!B::MINS || panel.mins.len() >= groups);
    }
    let most = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::MAX_ROWS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::MAX_ROWS,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::MAX_ROWS,
        _ => return scalar::multiply::<B>(panels, x, columns, sums),
    };
    // Tiles of about equal size.
    let tile = sums.len().div_ceil(sums.len().div_ceil(most));
    for (i, sums) in sums.chunks_mut(tile).enumerate() {
        let rows = Rows::new(x, i * tile, columns.clone());
        match isa {
            // SAFETY: the instructions are available; `sums.len()` rows follow the first, and the panels have the columns.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::multiply::<B>(panels, rows, groups, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::multiply::<B>(panels, rows, groups, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => unsafe { neon::multiply::<B>(panels, rows, groups, sums) },
            _ => unreachable!("an available set is handled above"),
        }
    }
}

/// Where a range of columns of some rows of `x` lies; strides are in elements.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub codes: *const i8,
    pub code_stride: usize,
    pub scales: *const f32,
    pub scale_stride: usize,
    pub corrections: *const i32,
    pub sums: *const f32,
    pub group_stride: usize,
}

impl Rows {
    fn new(x: &Activations, row: usize, columns: Range<usize>) -> Self {
        let at = row * x.k + columns.start;
        Self {
            codes: x.codes[at..].as_ptr(),
            code_stride: x.k,
            scales: x.scales[at / BLOCK..].as_ptr(),
            scale_stride: x.k / BLOCK,
            corrections: x.corrections[at / x.group..].as_ptr(),
            sums: x.sums[at / x.group..].as_ptr(),
            group_stride: x.k / x.group,
        }
    }
}
