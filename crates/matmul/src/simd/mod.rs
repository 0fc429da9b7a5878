//! Vector kernels. The only place of this crate with `unsafe` code: pointers into slices whose lengths are checked here, and
//! instructions whose presence is checked here.
#![allow(unsafe_code)]
// A tile's row and column index several arrays at once.
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod quant;
#[cfg(target_arch = "x86_64")]
mod quant_avx2;
#[cfg(target_arch = "x86_64")]
mod quant_avx512;
#[cfg(target_arch = "aarch64")]
mod quant_neon;

pub(crate) use quant::{code_offset, multiply, quantize_row, unpack};

use std::borrow::Cow;

use rayon::prelude::*;

use crate::weight::Element;
use crate::{Isa, LANES, scalar};

/// Rows of `x` that share a pass over the weight.
fn group_rows(isa: Isa) -> usize {
    match isa {
        Isa::Scalar => 1,
        Isa::Avx512 => 8,
        Isa::Avx2 | Isa::Neon => 4,
    }
}

/// Rows of `x` as the kernels take them: in groups, and if there are many, each group's columns in blocks that lie together.
/// (A first-level cache holds such a block, but not as many columns of rows that are a multiple of 4 KiB apart.)
pub(crate) struct Arranged<'a> {
    x: Cow<'a, [f32]>,
    k: usize,
    block: usize,
}

impl<'a> Arranged<'a> {
    pub(crate) fn new(isa: Isa, x: &'a [f32], k: usize) -> Self {
        let group = group_rows(isa);
        let block = BLOCK_BYTES / size_of::<f32>() / group;
        if isa == Isa::Scalar || k <= block || x.len() / k < BLOCKED_ROWS {
            return Self { x: x.into(), k, block: k };
        }
        let mut arranged = vec![0.; x.len()];
        let arrange = |(x, mut to): (&[f32], &mut [f32])| {
            for at in (0..k).step_by(block) {
                for row in x.chunks_exact(k) {
                    let (part, rest) = to.split_at_mut(block.min(k - at));
                    part.copy_from_slice(&row[at..][..part.len()]);
                    to = rest;
                }
            }
        };
        if x.len() < PARALLEL_LEN {
            x.chunks(group * k).zip(arranged.chunks_mut(group * k)).for_each(arrange);
        } else {
            x.par_chunks(group * k).zip(arranged.par_chunks_mut(group * k)).for_each(arrange);
        }
        Self { x: arranged.into(), k, block }
    }
}

/// `out[i][j] = sum_k x[i][k] * w[j][k]`, straight from the weight's bytes; one row of `out` per row of `x`, which must have
/// been arranged for `isa`.
pub(crate) fn dots<E: Element>(isa: Isa, x: &Arranged<'_>, w: &[u8], out: &mut [&mut [f32]]) {
    let (k, row) = (x.k, x.k * E::BYTES);
    let n = w.len() / row;
    assert_eq!(x.x.len(), out.len() * k);
    assert!(w.len() == n * row && out.iter().all(|row| row.len() == n));
    assert!(isa.is_available(), "{isa:?} is not available on this processor");
    if isa == Isa::Scalar {
        return scalar::dots::<E>(&x.x, k, w, out);
    }
    let group = group_rows(isa);
    // With more rows than a group, the weight comes again and again: part by part, from a second-level cache.
    let part = if out.len() <= group { n } else { (PART_BYTES / row).next_multiple_of(PART_ALIGN).min(n) };
    for (p, w) in w.chunks(part.max(1) * row).enumerate() {
        for (x_group, out) in x.x.chunks(group * k).zip(out.chunks_mut(group)) {
            let x = XBlocks { x: x_group, k, block: x.block };
            let to = Columns { rows: out, first: p * part, n: part.min(n - p * part) };
            match isa {
                // SAFETY: the features are there and the lengths agree, as asserted; a group is of 8 rows at most.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { avx512::dots::<E>(x, w, to) },
                // SAFETY: as above, of 4 rows at most.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2::dots::<E>(x, w, to) },
                // SAFETY: as above, of 4 rows at most.
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => unsafe { neon::dots::<E>(x, w, to) },
                _ => unreachable!("an available set is handled above"),
            }
        }
    }
}

/// A group of [`Arranged`].
#[derive(Clone, Copy)]
struct XBlocks<'a> {
    x: &'a [f32],
    k: usize,
    block: usize,
}

/// Rows from which arranging them pays.
const BLOCKED_ROWS: usize = 9;

/// Elements from which arranging them is worth the pool.
const PARALLEL_LEN: usize = 1 << 18;

/// Bytes of weight that are used for all rows of `x` before the next: they stay in a second-level cache.
const PART_BYTES: usize = 256 << 10;

/// Parts are multiples of this, so that only the last one meets a partial tile.
const PART_ALIGN: usize = 24;

/// Bytes of a group's rows of `x` that stay in a first-level cache.
const BLOCK_BYTES: usize = 24 << 10;

/// Bytes of a weight that are asked for ahead of their use.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 1024;

/// Tiles whose accumulators are kept in memory from block to block.
const STRIP: usize = 8;

/// The part of the output that a call computes: columns `first..first + n`.
struct Columns<'a, 'b> {
    rows: &'a mut [&'b mut [f32]],
    first: usize,
    n: usize,
}

/// The lanes of the sums of a tile's elements.
type Acc<const M: usize, const N: usize> = [[[f32; LANES]; N]; M];

/// Rows for a tile: their first block, how far they are apart, and the block's length.
#[derive(Clone, Copy)]
struct Block {
    x: *const f32,
    /// Floats.
    x_stride: usize,
    w: *const u8,
    /// Bytes.
    w_stride: usize,
    /// Elements: a multiple of `LANES` but for a row's last block.
    len: usize,
}

/// An instruction set's kernel of the dense products.
trait Tile {
    /// Adds the products of `M` rows of `x` with `N` rows of `w`, over a block. Each element has lanes of its own: the tile
    /// only shares loads.
    ///
    /// # Safety
    /// The set's instructions must be available, and the block readable in `M` rows of `x` and `N` rows of `w`.
    unsafe fn tile<E: Element, const M: usize, const N: usize>(block: Block, acc: &mut Acc<M, N>);

    /// As `scalar::reduce`.
    ///
    /// # Safety
    /// The set's instructions must be available.
    unsafe fn reduce(acc: &[f32; LANES]) -> f32;
}

/// `M` rows of `x` against every row of `w`.
///
/// The `N` rows of a tile are far apart, so that tile after tile reads `N` long streams: measured 10-30 % faster from memory
/// than `N` neighbours, whose rows are too short for the processor to run ahead.
///
/// # Safety
/// As [`Tile::tile`], with `x` of `to.rows.len() == M` rows and `w` of `to.n` rows.
unsafe fn rows<T: Tile, E: Element, const M: usize, const N: usize>(x: XBlocks<'_>, w: &[u8], to: Columns) {
    let each = to.n / N;
    // SAFETY: the caller's promise: the streams' rows are below N * each <= n, the others below n.
    unsafe {
        stream::<T, E, M, N>(x, w, each, to.rows, to.first);
        let done = N * each;
        stream::<T, E, M, 1>(x, &w[done * x.k * E::BYTES..], to.n - done, to.rows, to.first + done);
    }
}

/// `M` rows of `x` against `N` streams of `each` rows of `w`, one after the other; the output begins at column `first`.
///
/// # Safety
/// As [`rows`].
unsafe fn stream<T: Tile, E: Element, const M: usize, const N: usize>(
    x: XBlocks<'_>,
    w: &[u8],
    each: usize,
    out: &mut [&mut [f32]],
    first: usize,
) {
    let row = x.k * E::BYTES;
    let strip = if x.block == x.k { 1 } else { STRIP };
    let mut accs: [Acc<M, N>; STRIP] = [[[[0.; LANES]; N]; M]; STRIP];
    for j in (0..each).step_by(strip) {
        let accs = &mut accs[..strip.min(each - j)];
        accs.fill([[[0.; LANES]; N]; M]);
        for at in (0..x.k).step_by(x.block) {
            let len = x.block.min(x.k - at);
            for (t, acc) in accs.iter_mut().enumerate() {
                let w = w[(j + t) * row + at * E::BYTES..].as_ptr();
                let block = Block { x: x.x[at * M..].as_ptr(), x_stride: len, w, w_stride: each * row, len };
                // SAFETY: the caller's promise.
                unsafe { T::tile::<E, M, N>(block, acc) };
            }
        }
        for (t, acc) in accs.iter().enumerate() {
            for (out, acc) in out.iter_mut().zip(acc) {
                for (s, acc) in acc.iter().enumerate() {
                    // SAFETY: the caller's promise.
                    out[first + s * each + j + t] = unsafe { T::reduce(acc) };
                }
            }
        }
    }
}

/// The last `len < LANES` elements at `from`, padded with zeros.
///
/// # Safety
/// `from` must be readable for `len * E::BYTES` bytes.
unsafe fn padded<E: Element>(from: *const u8, len: usize) -> [f32; LANES] {
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts(from, len * E::BYTES) };
    let mut all = [0f32; LANES];
    for (to, from) in all.iter_mut().zip(bytes.chunks_exact(E::BYTES)) {
        *to = E::to_f32(from);
    }
    all
}
