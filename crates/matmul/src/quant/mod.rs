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
pub(crate) mod scalar;
mod search;

use rayon::prelude::*;

pub(crate) use blocks32::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
pub(crate) use encode::encode;
pub(crate) use blocks256::{Q2K, Q3K, Q4K, Q5K, Q6K};
pub(crate) use activation::{Activations, BLOCK, Row, quantize_row};

use crate::dense::{CHUNKS_PER_THREAD, SERIAL_BELOW, split_columns};
use crate::{Isa, Weight, simd};

/// Weight rows whose products run side by side, one to a lane.
pub(crate) const PANEL: usize = 16;

/// Most columns of a panel: codes and scales stay in a first-level cache. A multiple of every block.
const CHUNK: usize = 1024;

/// Columns that are unpacked between transpositions.
pub(crate) const STRIPE: usize = 256;

/// A block layout.
pub(crate) trait Block: Sync + 'static {
    /// Elements.
    const LEN: usize;
    /// Bytes.
    const BYTES: usize;
    /// Elements that share a scale.
    const GROUP: usize;
    /// What a code exceeds its value by.
    const OFFSET: i32;
    /// Whether codes are signed bytes; otherwise they are below 64.
    const SIGNED: bool;
    /// Whether groups have a minimum.
    const MINS: bool;

    /// A block's codes in order, and the scale and minimum of each group: element = (code - OFFSET) * scale + min.
    /// Inlined into a function per instruction set, which compiles it to the set's vectors.
    fn unpack(block: &[u8], codes: &mut [u8], scales: &mut [f32], mins: &mut [f32]);
}

/// `N` bytes of a block, at `at`.
#[inline(always)]
fn bytes<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    block[at..].first_chunk().expect("a whole block")
}

/// An f16 of a block as f32. By integer steps and an exact product, which vectorise where `half`'s call does not.
#[inline(always)]
fn f16_at(block: &[u8], at: usize) -> f32 {
    let half = u32::from(u16::from_le_bytes(*bytes(block, at)));
    let (sign, magnitude) = ((half & 0x8000) << 16, (half & 0x7fff) << 13);
    // The exponent is short by 127 - 15; the product also normalises subnormals.
    let finite = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    let special = magnitude | 0xff << 23;
    f32::from_bits(sign | if magnitude < 0x7c00 << 13 { finite } else { special })
}

/// Up to `CHUNK` columns of `PANEL` weight rows.
pub(crate) struct Panel {
    /// By four columns: four codes of every row, row after row. The vector kernels read one step as one or more registers
    /// of 32-bit lanes.
    pub codes: Vec<[[u8; 4]; PANEL]>,
    /// By group: the scale of every row.
    pub scales: Vec<[f32; PANEL]>,
    /// By group: the minimum of every row.
    pub mins: Vec<[f32; PANEL]>,
}

impl Panel {
    fn new<B: Block>(columns: usize) -> Self {
        let groups = columns / B::GROUP;
        Self {
            codes: vec![[[0; 4]; PANEL]; columns / 4],
            scales: vec![[0.; PANEL]; groups],
            mins: vec![[0.; PANEL]; if B::MINS { groups } else { 0 }],
        }
    }
}

/// Columns of one panel row, as they lie: what is transposed into a panel's codes.
pub(crate) type Stripe = [[u8; STRIPE]; PANEL];

/// Unpacks a stripe: columns `columns..` of every row (`rows` begin at column 0 of the panel) and their scales.
#[inline(always)]
pub(crate) fn unpack_stripe<B: Block>(
    rows: &[&[u8]; PANEL],
    columns: std::ops::Range<usize>,
    stripe: &mut Stripe,
    scales: &mut [[f32; PANEL]],
    mins: &mut [[f32; PANEL]],
) {
    const MAX_GROUPS: usize = 16;
    let blocks = columns.start / B::LEN..columns.end / B::LEN;
    let groups = B::LEN / B::GROUP;
    for (lane, (row, codes)) in rows.iter().zip(stripe).enumerate() {
        for (b, block) in row[blocks.start * B::BYTES..blocks.end * B::BYTES].chunks_exact(B::BYTES).enumerate() {
            let (mut scale, mut min) = ([0.; MAX_GROUPS], [0.; MAX_GROUPS]);
            B::unpack(block, &mut codes[b * B::LEN..][..B::LEN], &mut scale[..groups], &mut min[..groups]);
            let first = (blocks.start + b) * groups;
            for group in 0..groups {
                scales[first + group][lane] = scale[group];
                if B::MINS {
                    mins[first + group][lane] = min[group];
                }
            }
        }
    }
}

/// The elements of a quantised row.
pub(crate) fn dequantize<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let (mut codes, mut scales, mut mins) = (vec![0; B::LEN], vec![0.; B::LEN / B::GROUP], vec![0.; B::LEN / B::GROUP]);
    for (block, out) in bytes.chunks_exact(B::BYTES).zip(out.chunks_exact_mut(B::LEN)) {
        B::unpack(block, &mut codes, &mut scales, &mut mins);
        for (i, (out, code)) in out.iter_mut().zip(&codes).enumerate() {
            let code = if B::SIGNED { i32::from(*code as i8) } else { i32::from(*code) };
            let value = (code - B::OFFSET) as f32 * scales[i / B::GROUP];
            *out = if B::MINS { value + mins[i / B::GROUP] } else { value };
        }
    }
}

/// The product with a quantised weight. `out` is not empty.
pub(crate) fn matmul<B: Block>(isa: Isa, x: &[f32], w: Weight<'_>, out: &mut [f32]) {
    let (n, k) = (w.n(), w.k());
    let x = Activations::quantize(isa, x, k, B::GROUP, simd::code_offset::<B>(isa));
    let threads = rayon::current_num_threads();
    if threads == 1 || x.codes.len() * n < SERIAL_BELOW {
        let mut rows: Vec<&mut [f32]> = out.chunks_exact_mut(n).collect();
        return columns::<B>(isa, &x, w, &mut rows);
    }
    let chunk = n.div_ceil(threads * CHUNKS_PER_THREAD).next_multiple_of(PANEL);
    split_columns(out, n, chunk).into_par_iter().enumerate().for_each(|(c, mut rows)| {
        let w = w.rows(c * chunk, c * chunk + rows[0].len());
        columns::<B>(isa, &x, w, &mut rows);
    });
}

/// All rows of `x` against all rows of `w`, panel after panel.
fn columns<B: Block>(isa: Isa, x: &Activations, w: Weight<'_>, out: &mut [&mut [f32]]) {
    let k = w.k();
    let mut panel = Panel::new::<B>(k.min(CHUNK));
    let mut acc = vec![[0f32; PANEL]; x.rows()];
    for first in (0..w.n()).step_by(PANEL) {
        // A last panel of fewer rows repeats the last one; its sums are dropped.
        let rows: [&[u8]; PANEL] = std::array::from_fn(|lane| w.row(w.n().min(first + lane + 1) - 1));
        acc.fill([0.; PANEL]);
        for from in (0..k).step_by(CHUNK) {
            let to = k.min(from + CHUNK);
            let rows = rows.map(|row| &row[from / B::LEN * B::BYTES..to / B::LEN * B::BYTES]);
            simd::unpack::<B>(isa, &rows, to - from, &mut panel);
            simd::multiply::<B>(isa, &panel, x, from..to, &mut acc);
        }
        for (out, acc) in out.iter_mut().zip(&acc) {
            let width = PANEL.min(out.len() - first);
            out[first..first + width].copy_from_slice(&acc[..width]);
        }
    }
}
