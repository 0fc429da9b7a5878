//! Vector kernels. The only place of this crate with `unsafe` code: pointers into slices whose lengths are checked here, and
//! instructions whose presence is checked here.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quant;
#[cfg(target_arch = "x86_64")]
mod quant_avx2;
#[cfg(target_arch = "x86_64")]
mod quant_avx512;

pub(crate) use quant::{code_offset, multiply, quantize_row, unpack};

use crate::weight::Element;
use crate::{Isa, LANES, scalar};

/// `out[i][j] = sum_k x[i][k] * w[j][k]`, straight from the weight's bytes; one row of `out` per row of `x`.
pub(crate) fn dots<E: Element>(isa: Isa, x: &[f32], k: usize, w: &[u8], out: &mut [&mut [f32]]) {
    let n = w.len() / (k * E::BYTES);
    assert_eq!(x.len(), out.len() * k);
    assert!(w.len() == n * k * E::BYTES && out.iter().all(|row| row.len() == n));
    assert!(isa.is_available(), "{isa:?} is not available on this processor");
    let group = match isa {
        Isa::Avx512 => 8,
        _ => 4,
    };
    for (x, out) in x.chunks(group * k).zip(out.chunks_mut(group)) {
        match isa {
            // SAFETY: the features are there and the lengths agree, as asserted; a group is of 8 rows at most.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::dots::<E>(x, k, w, out) },
            // SAFETY: as above, of 4 rows at most.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::dots::<E>(x, k, w, out) },
            _ => scalar::dots::<E>(x, k, w, out),
        }
    }
}

/// An instruction set's kernel of the dense products.
trait Tile {
    /// The dot products of `M` rows of `x`, `k` apart, with `N` rows of `w`, `stride` bytes apart. Each has an accumulator of
    /// its own: the tile only shares loads.
    ///
    /// # Safety
    /// The set's instructions must be available, `x` readable for `M` rows of `k` floats, `w` for `N` rows of `k` elements.
    unsafe fn tile<E: Element, const M: usize, const N: usize>(
        x: *const f32,
        w: *const u8,
        stride: usize,
        k: usize,
    ) -> [[f32; N]; M];
}

/// `M` rows of `x` against every row of `w`.
///
/// The `N` rows of a tile are far apart, so that tile after tile reads `N` long streams: measured 10-30 % faster from memory
/// than `N` neighbours, whose rows are too short for the processor to run ahead.
///
/// # Safety
/// As [`Tile::tile`], with `M = out.len()` and as many rows of `w` as each row of `out` is long.
unsafe fn rows<T: Tile, E: Element, const M: usize, const N: usize>(
    x: &[f32],
    k: usize,
    w: &[u8],
    out: &mut [&mut [f32]],
) {
    let (n, bytes) = (out[0].len(), k * E::BYTES);
    let each = n / N;
    for j in 0..each {
        // SAFETY: rows j, each + j, .. of w are below N * each <= n.
        let sums = unsafe { T::tile::<E, M, N>(x.as_ptr(), w[j * bytes..].as_ptr(), each * bytes, k) };
        for (row, sums) in out.iter_mut().zip(sums) {
            for (stream, sum) in sums.into_iter().enumerate() {
                row[stream * each + j] = sum;
            }
        }
    }
    for j in each * N..n {
        // SAFETY: one row, j < n.
        let sums = unsafe { T::tile::<E, M, 1>(x.as_ptr(), w[j * bytes..].as_ptr(), bytes, k) };
        for (row, [sum]) in out.iter_mut().zip(sums) {
            row[j] = sum;
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
