//! The reference of the panel kernels, in safe Rust.

use std::ops::Range;

use super::{Activations, BLOCK, Block, PANEL, Panel, Stripe};

/// Columns of a stripe to a panel's codes.
pub(crate) fn transpose(stripe: &Stripe, codes: &mut [[[u8; 4]; PANEL]]) {
    for (lane, row) in stripe.iter().enumerate() {
        for (step, four) in codes.iter_mut().zip(row.as_chunks().0) {
            step[lane] = *four;
        }
    }
}

/// Adds columns `columns` of the product of every row of `x` with the panel to `acc`.
pub(crate) fn multiply<B: Block>(panel: &Panel, x: &Activations, columns: Range<usize>, acc: &mut [[f32; PANEL]]) {
    for (row, acc) in acc.iter_mut().enumerate() {
        for group in 0..columns.len() / B::GROUP {
            let at = row * x.k + columns.start + group * B::GROUP;
            let steps = group * B::GROUP / 4..(group + 1) * B::GROUP / 4;
            let mut sums = [x.corrections[at / B::GROUP]; PANEL];
            for (w, x) in panel.codes[steps].iter().zip(x.codes[at..].as_chunks::<4>().0) {
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum += w.iter().zip(x).map(|(w, x)| code::<B>(*w) * i32::from(*x)).sum::<i32>();
                }
            }
            for lane in 0..PANEL {
                let product = sums[lane] as f32 * panel.scales[group][lane];
                acc[lane] = product.mul_add(x.scales[at / BLOCK], acc[lane]);
                if B::MINS {
                    acc[lane] = panel.mins[group][lane].mul_add(x.sums[at / B::GROUP], acc[lane]);
                }
            }
        }
    }
}

fn code<B: Block>(byte: u8) -> i32 {
    if B::SIGNED { i32::from(byte as i8) } else { i32::from(byte) }
}
