//! Panel kernels of the products with block-quantised weights: unpacking, and the products of rows of `x` with panels.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::ops::Range;

use crate::Isa;
use crate::quant::lanes::Lanes;
use crate::quant::{self, ACTIVATION_BLOCK, ActivationRow, Activations, BlockLayout, PanelForm, ScaleGroups, scalar};
use crate::quant::{MAX_WORDS, PANEL_ROWS, PANELS, Panel, PanelSums};

/// Returns the number by which a panel's codes exceed the integers they stand for. AVX-512's dot product takes one side
/// unsigned, so signed codes are moved up there.
pub(crate) fn code_offset<B: BlockLayout>(isa: Isa) -> i32 {
    B::OFFSET + if B::SIGNED && isa == Isa::Avx512 { 128 } else { 0 }
}

/// Quantises one row of `x`, as [`quant::quantize_row`] says.
pub(crate) fn quantize_row(isa: Isa, x: &[f32], scale_group: usize, offset: i32, row: &mut ActivationRow<'_>) {
    match isa {
        // SAFETY: `matmul_all_with` has checked that the instructions are available.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512::quantize_row(x, scale_group, offset, row) },
        // SAFETY: `matmul_all_with` has checked that the instructions are available.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::quantize_row(x, scale_group, offset, row) },
        _ => quant::quantize_row(x, scale_group, offset, row),
    }
}

/// Unpacks blocks `blocks` of each of the panel's rows to the panel's beginning. The rows lie one after the other.
pub(crate) fn unpack<B: BlockLayout>(isa: Isa, rows: &[u8], blocks: Range<usize>, panel: &mut Panel) {
    assert!(isa.is_available(), "{isa:?} is not available on this processor");
    assert!(rows.len().is_multiple_of(PANEL_ROWS) && rows.len() / PANEL_ROWS >= blocks.end * B::BYTES);
    match isa {
        // SAFETY: the instructions are available, and the rows have the blocks.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512::unpack::<B>(rows, blocks, panel) },
        // SAFETY: the instructions are available, and the rows have the blocks.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::unpack::<B>(rows, blocks, panel) },
        // SAFETY: the instructions are available, and the rows have the blocks.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { neon::unpack::<B>(rows, blocks, panel) },
        _ => scalar::unpack::<B>(rows, blocks, panel),
    }
}

/// The bytes that a prefetch brings.
const CACHE_LINE: usize = 64;

/// An instruction set's registers with a word of each of the panel's rows.
trait PanelLanes: Lanes<PANEL_ROWS> {
    /// Loads four words of each of the 16 rows. The rows' words are `stride` bytes apart, the first at `from`.
    ///
    /// # Safety
    /// The set's instructions must be available, and 16 bytes readable at each address.
    unsafe fn four_words(from: *const u8, stride: usize) -> [Self; 4];

    /// Asks for the cache line at an address, which may be any.
    fn prefetch(at: *const u8);
}

/// Does what `scalar::unpack` does. It is inlined into a function with the features that `V` needs. It asks for the
/// bytes of the panels that come next, since a processor does not foresee so many short runs.
///
/// # Safety
/// The instructions of `V` must be available, and blocks `blocks` readable in each of the 16 rows.
#[inline(always)]
unsafe fn unpack_with<V: PanelLanes, B: BlockLayout>(rows: &[u8], blocks: Range<usize>, panel: &mut Panel) {
    let stride = rows.len() / PANEL_ROWS;
    let mut words = [V::zero(); MAX_WORDS];
    let mut d = V::zero();
    let first = blocks.start;
    for block in blocks {
        let at = block * B::BYTES;
        // Small blocks share cache lines: only a block that begins a new line asks for it.
        if at % CACHE_LINE < B::BYTES {
            for line in (0..B::BYTES).step_by(CACHE_LINE) {
                for r in 0..PANEL_ROWS {
                    V::prefetch(rows.as_ptr().wrapping_add(PANELS * rows.len() + r * stride + at + line));
                }
            }
        }
        if B::BYTES < 16 {
            // SAFETY: the caller's promise.
            words[..4].copy_from_slice(&unsafe { small_block::<V, B>(rows, at) });
            B::unpack::<V, PANEL_ROWS>(&words[..B::WORDS], d, panel.block::<B>(block - first));
            continue;
        }
        // SAFETY: the block lies within each row. It has 16 bytes after `WORDS_AT`, so its last four words, which may
        // overlap the ones before, are within it, as are its first and last 16 bytes.
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
        B::unpack::<V, PANEL_ROWS>(&words[..B::WORDS], d, panel.block::<B>(block - first));
    }
}

/// Loads the words of blocks of fewer than 16 bytes, which begin at byte `at` of each of the 16 rows.
///
/// # Safety
/// The instructions of `V` must be available.
#[inline(always)]
unsafe fn small_block<V: PanelLanes, B: BlockLayout>(rows: &[u8], at: usize) -> [V; 4] {
    let mut blocks = [[0u8; 16]; PANEL_ROWS];
    for (to, row) in blocks.iter_mut().zip(rows.chunks_exact(rows.len() / PANEL_ROWS)) {
        to[..B::BYTES].copy_from_slice(&row[at..at + B::BYTES]);
    }
    // SAFETY: the caller's promise; each of the copies has 16 bytes.
    unsafe { V::four_words(blocks.as_ptr().cast(), 16) }
}

/// Adds to `sums` what columns `columns` contribute to the products of every row of `x` with the panels.
pub(crate) fn multiply<B: BlockLayout>(
    isa: Isa,
    panels: &[Panel; PANELS],
    x: &Activations,
    columns: Range<usize>,
    sums: &mut [PanelSums],
) {
    // Layouts share the kernels of their form.
    match (B::SCALE_GROUP, B::SIGNED, B::MINS) {
        (16, false, false) => multiply_form::<ScaleGroups<16, false, false>>(isa, panels, x, columns, sums),
        (16, false, true) => multiply_form::<ScaleGroups<16, false, true>>(isa, panels, x, columns, sums),
        (32, false, false) => multiply_form::<ScaleGroups<32, false, false>>(isa, panels, x, columns, sums),
        (32, false, true) => multiply_form::<ScaleGroups<32, false, true>>(isa, panels, x, columns, sums),
        (32, true, false) => multiply_form::<ScaleGroups<32, true, false>>(isa, panels, x, columns, sums),
        (32, true, true) => multiply_form::<ScaleGroups<32, true, true>>(isa, panels, x, columns, sums),
        _ => unreachable!("no layout has this form"),
    }
}

/// Does [`multiply`] for the layouts of a form.
fn multiply_form<F: PanelForm>(
    isa: Isa,
    panels: &[Panel; PANELS],
    x: &Activations,
    columns: Range<usize>,
    sums: &mut [PanelSums],
) {
    assert!(isa.is_available(), "{isa:?} is not available on this processor");
    let groups = columns.len() / F::SCALE_GROUP;
    assert!(columns.end <= x.k && x.scale_group == F::SCALE_GROUP && sums.len() == x.rows());
    for panel in panels {
        assert!(panel.codes.len() >= columns.len() / 4 && panel.scales.len() >= groups);
        assert!(!F::MINS || panel.mins.len() >= groups);
    }
    let most = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::MAX_ROWS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::MAX_ROWS,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::MAX_ROWS,
        _ => return scalar::multiply::<F>(panels, x, columns, sums),
    };
    // Passes of about equal size.
    let pass = sums.len().div_ceil(sums.len().div_ceil(most));
    for (i, sums) in sums.chunks_mut(pass).enumerate() {
        let rows = ActivationRange::new(x, i * pass, columns.clone());
        match isa {
            // SAFETY: the instructions are available; `sums.len()` rows follow the first, and the panels have the
            // columns.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::multiply::<F>(panels, rows, groups, sums) },
            // SAFETY: the instructions are available; `sums.len()` rows follow the first, and the panels have the
            // columns.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::multiply::<F>(panels, rows, groups, sums) },
            // SAFETY: the instructions are available; `sums.len()` rows follow the first, and the panels have the
            // columns.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => unsafe { neon::multiply::<F>(panels, rows, groups, sums) },
            _ => unreachable!("an available set is handled above"),
        }
    }
}

/// Where a range of columns of some rows of [`Activations`] begins. A stride is the distance of two rows in elements.
#[derive(Clone, Copy)]
struct ActivationRange {
    codes: *const i8,
    code_stride: usize,
    scales: *const f32,
    scale_stride: usize,
    corrections: *const i32,
    sums: *const f32,
    /// The stride of `corrections` and `sums`.
    group_stride: usize,
}

impl ActivationRange {
    fn new(x: &Activations, row: usize, columns: Range<usize>) -> Self {
        let at = row * x.k + columns.start;
        Self {
            codes: x.codes[at..].as_ptr(),
            code_stride: x.k,
            scales: x.scales[at / ACTIVATION_BLOCK..].as_ptr(),
            scale_stride: x.k / ACTIVATION_BLOCK,
            corrections: x.corrections[at / x.scale_group..].as_ptr(),
            sums: x.sums[at / x.scale_group..].as_ptr(),
            group_stride: x.k / x.scale_group,
        }
    }
}
