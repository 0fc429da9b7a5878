//! Panel kernels of the quantised products.

use std::ops::Range;

use crate::quant::{Activations, BLOCK, Block, PANEL, Panel, Row, STRIPE, Stripe, scalar, unpack_stripe};
use crate::{Isa, quant};

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

/// Unpacks the first `columns` columns of the panel whose rows are `rows`.
pub(crate) fn unpack<B: Block>(isa: Isa, rows: &[&[u8]; PANEL], columns: usize, panel: &mut Panel) {
    assert!(isa.is_available(), "{isa:?} is not available on this processor");
    let mut stripe: Stripe = [[0; STRIPE]; PANEL];
    for from in (0..columns).step_by(STRIPE) {
        let range = from..columns.min(from + STRIPE);
        let codes = &mut panel.codes[range.start / 4..range.end / 4];
        let (scales, mins) = (&mut panel.scales, &mut panel.mins);
        match isa {
            // SAFETY: the instructions are available.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe {
                avx512::unpack_stripe::<B>(rows, range, &mut stripe, scales, mins);
                avx512::transpose::<B>(&stripe, codes);
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe {
                avx2::unpack_stripe::<B>(rows, range, &mut stripe, scales, mins);
                avx2::transpose(&stripe, codes);
            },
            _ => {
                unpack_stripe::<B>(rows, range, &mut stripe, scales, mins);
                scalar::transpose(&stripe, codes);
            }
        }
    }
}

/// Adds columns `columns` of the product of every row of `x` with the panel to `acc`.
pub(crate) fn multiply<B: Block>(
    isa: Isa,
    panel: &Panel,
    x: &Activations,
    columns: Range<usize>,
    acc: &mut [[f32; PANEL]],
) {
    assert!(isa.is_available(), "{isa:?} is not available on this processor");
    let groups = columns.len() / B::GROUP;
    assert!(columns.end <= x.k && x.group == B::GROUP && acc.len() == x.rows());
    assert!(panel.codes.len() >= columns.len() / 4 && panel.scales.len() >= groups);
    assert!(!B::MINS || panel.mins.len() >= groups);
    let group = match isa {
        Isa::Avx512 => avx512::MAX_ROWS,
        Isa::Avx2 => avx2::MAX_ROWS,
        _ => return scalar::multiply::<B>(panel, x, columns, acc),
    };
    for (i, acc) in acc.chunks_mut(group).enumerate() {
        let rows = Rows::new(x, i * group, columns.clone());
        match isa {
            // SAFETY: the instructions are available; `acc.len()` rows follow the first, and the panel has the columns.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::multiply::<B>(panel, rows, groups, acc) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            _ => unsafe { avx2::multiply::<B>(panel, rows, groups, acc) },
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
