//! Micro-tiles of the products with float weights.
//!
//! `M` rows of `x` share a pass over the weight, and a micro-tile is the product of them with `N` rows of the weight.
//! Each of its `M * N` elements has [`ACCUMULATORS`] sums of its own, so a micro-tile shares loads and changes no
//! result.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::borrow::Cow;

use rayon::prelude::*;

use crate::float_element::FloatElement;
use crate::{ACCUMULATORS, Isa, scalar};

/// Returns the most rows of `x` that share a pass over the weight.
fn rows_per_pass(isa: Isa) -> usize {
    match isa {
        Isa::Scalar => 1,
        Isa::Avx512 => 8,
        Isa::Avx2 | Isa::Neon => 4,
    }
}

/// The rows of `x`, each of `k` elements, as the kernels take them.
///
/// Where there are few rows, they are as the caller has them and `kc = k`. Where there are many, the rows of one pass
/// lie together in runs of `kc` columns (`kc` is BLIS's name): first the columns `0..kc` of each row of the pass, then
/// the next `kc`. A first-level cache holds such a run, but not the same columns of rows that are a multiple of 4 KiB
/// apart.
pub(crate) struct ArrangedRows<'a> {
    x: Cow<'a, [f32]>,
    k: usize,
    kc: usize,
}

impl<'a> ArrangedRows<'a> {
    /// Arranges the rows of `x` for `isa`.
    pub(crate) fn new(isa: Isa, x: &'a [f32], k: usize) -> Self {
        let pass = rows_per_pass(isa);
        let kc = RUN_BYTES / size_of::<f32>() / pass;
        if isa == Isa::Scalar || k <= kc || x.len() / k < ARRANGED_ROWS {
            return Self { x: x.into(), k, kc: k };
        }
        let mut arranged = vec![0.; x.len()];
        let arrange = |(x, mut to): (&[f32], &mut [f32])| {
            for at in (0..k).step_by(kc) {
                for row in x.chunks_exact(k) {
                    let (part, rest) = to.split_at_mut(kc.min(k - at));
                    part.copy_from_slice(&row[at..][..part.len()]);
                    to = rest;
                }
            }
        };
        if x.len() < PARALLEL_LEN {
            x.chunks(pass * k).zip(arranged.chunks_mut(pass * k)).for_each(arrange);
        } else {
            x.par_chunks(pass * k).zip(arranged.par_chunks_mut(pass * k)).for_each(arrange);
        }
        Self { x: arranged.into(), k, kc }
    }
}

/// Computes `out[i][j] = sum_k x[i][k] * w[j][k]`, straight from the weight's bytes. `out` has a row for each row of
/// `x`, and the rows of `x` were arranged for `isa`.
pub(crate) fn dots<E: FloatElement>(isa: Isa, x: &ArrangedRows<'_>, w: &[u8], out: &mut [&mut [f32]]) {
    let (k, row) = (x.k, x.k * E::BYTES);
    let n = w.len() / row;
    assert_eq!(x.x.len(), out.len() * k);
    assert!(w.len() == n * row && out.iter().all(|row| row.len() == n));
    assert!(isa.is_available(), "{isa:?} is not available on this processor");
    if isa == Isa::Scalar {
        return scalar::dots::<E>(&x.x, k, w, out);
    }
    let pass = rows_per_pass(isa);
    // With rows for several passes the weight is read again and again: part by part, from a second-level cache.
    let part = if out.len() <= pass { n } else { (PART_BYTES / row).next_multiple_of(PART_ALIGN).min(n) };
    for (p, w) in w.chunks(part.max(1) * row).enumerate() {
        for (rows, out) in x.x.chunks(pass * k).zip(out.chunks_mut(pass)) {
            let x = PassRows { x: rows, k, kc: x.kc };
            let to = OutputColumns { rows: out, first: p * part, n: part.min(n - p * part) };
            match isa {
                // SAFETY: the features are there and the lengths agree, as asserted; a pass has 8 rows at most.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { avx512::dots::<E>(x, w, to) },
                // SAFETY: the features are there and the lengths agree, as asserted; a pass has 4 rows at most.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2::dots::<E>(x, w, to) },
                // SAFETY: the features are there and the lengths agree, as asserted; a pass has 4 rows at most.
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => unsafe { neon::dots::<E>(x, w, to) },
                _ => unreachable!("an available set is handled above"),
            }
        }
    }
}

/// The rows of one pass, with the fields of [`ArrangedRows`].
#[derive(Clone, Copy)]
struct PassRows<'a> {
    x: &'a [f32],
    k: usize,
    kc: usize,
}

/// The number of rows from which arranging them pays.
const ARRANGED_ROWS: usize = 9;

/// The number of elements from which arranging them is worth waking the pool.
const PARALLEL_LEN: usize = 1 << 18;

/// The bytes of weight that are used for all rows of `x` before the next: they stay in a second-level cache.
const PART_BYTES: usize = 256 << 10;

/// The rows of a part are a multiple of this, so that only the last part meets a partial micro-tile.
const PART_ALIGN: usize = 24;

/// The bytes of a run, `kc` columns of the rows of one pass, which stay in a first-level cache.
const RUN_BYTES: usize = 24 << 10;

/// How many bytes ahead of their use a weight's bytes are asked for.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 1024;

/// The number of micro-tiles that go through a run of `x` together. Their sums are kept in memory between runs.
const STRIP_TILES: usize = 8;

/// The part of the output that a call computes: elements `first..first + n` of each row.
struct OutputColumns<'a, 'b> {
    rows: &'a mut [&'b mut [f32]],
    first: usize,
    n: usize,
}

/// The sums of a micro-tile's elements.
type Acc<const M: usize, const N: usize> = [[[f32; ACCUMULATORS]; N]; M];

/// What a micro-tile multiplies: the same `len` columns of `M` rows of `x` and of `N` rows of the weight.
#[derive(Clone, Copy)]
struct MicroTileInput {
    x: *const f32,
    /// The distance of the rows of `x`, in floats.
    x_stride: usize,
    w: *const u8,
    /// The distance of the weight's rows, in bytes.
    w_stride: usize,
    /// The number of columns: a multiple of `ACCUMULATORS`, except in the last columns of a row.
    len: usize,
}

/// An instruction set's kernel of the products with float weights.
trait MicroTile {
    /// Adds to `acc` the products of `M` rows of `x` with `N` rows of the weight, over the columns of `input`.
    ///
    /// # Safety
    /// The set's instructions must be available, and the columns readable in `M` rows of `x` and `N` rows of the
    /// weight.
    unsafe fn accumulate<E: FloatElement, const M: usize, const N: usize>(input: MicroTileInput, acc: &mut Acc<M, N>);

    /// Adds up the lanes in the order of `scalar::reduce`.
    ///
    /// # Safety
    /// The set's instructions must be available.
    unsafe fn reduce(acc: &[f32; ACCUMULATORS]) -> f32;
}

/// Multiplies `M` rows of `x` with every row of `w`.
///
/// The `N` rows of a micro-tile are far apart, so that one micro-tile after the other reads `N` long streams. From
/// memory that was measured to be 10 to 30 % faster than `N` neighbours, whose rows are too short for the processor to
/// run ahead.
///
/// # Safety
/// The set's instructions must be available, and the lengths must agree: `x` has `to.rows.len() == M` rows, `w` has
/// `to.n`.
unsafe fn multiply<T: MicroTile, E: FloatElement, const M: usize, const N: usize>(
    x: PassRows<'_>,
    w: &[u8],
    to: OutputColumns,
) {
    let each = to.n / N;
    // SAFETY: the caller's promise: the streams' rows are below N * each <= n, the others below n.
    unsafe {
        stream::<T, E, M, N>(x, w, each, to.rows, to.first);
        let done = N * each;
        stream::<T, E, M, 1>(x, &w[done * x.k * E::BYTES..], to.n - done, to.rows, to.first + done);
    }
}

/// Multiplies `M` rows of `x` with `N` streams of `each` rows of `w`. The streams lie one after the other, and their
/// products begin at element `first` of each output row.
///
/// # Safety
/// The set's instructions must be available, and the lengths must agree: `x` and `out` have `M` rows, `w` has `N *
/// each`.
unsafe fn stream<T: MicroTile, E: FloatElement, const M: usize, const N: usize>(
    x: PassRows<'_>,
    w: &[u8],
    each: usize,
    out: &mut [&mut [f32]],
    first: usize,
) {
    let row = x.k * E::BYTES;
    let strip = if x.kc == x.k { 1 } else { STRIP_TILES };
    let mut accs: [Acc<M, N>; STRIP_TILES] = [[[[0.; ACCUMULATORS]; N]; M]; STRIP_TILES];
    for j in (0..each).step_by(strip) {
        let accs = &mut accs[..strip.min(each - j)];
        accs.fill([[[0.; ACCUMULATORS]; N]; M]);
        for at in (0..x.k).step_by(x.kc) {
            let len = x.kc.min(x.k - at);
            for (t, acc) in accs.iter_mut().enumerate() {
                let w = w[(j + t) * row + at * E::BYTES..].as_ptr();
                let input = MicroTileInput { x: x.x[at * M..].as_ptr(), x_stride: len, w, w_stride: each * row, len };
                // SAFETY: the caller's promise.
                unsafe { T::accumulate::<E, M, N>(input, acc) };
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

/// Returns the last `len < ACCUMULATORS` elements at `from`, padded with zeros.
///
/// # Safety
/// `from` must be readable for `len * E::BYTES` bytes.
unsafe fn padded<E: FloatElement>(from: *const u8, len: usize) -> [f32; ACCUMULATORS] {
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts(from, len * E::BYTES) };
    let mut all = [0f32; ACCUMULATORS];
    for (to, from) in all.iter_mut().zip(bytes.chunks_exact(E::BYTES)) {
        *to = E::to_f32(from);
    }
    all
}
