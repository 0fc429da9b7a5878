//! CPU matrix products whose elements are summed in one order, for 1 row or 500.
//!
//! `out[m][n] = sum_k x[m][k] * w[n][k]` with `x` and `out` row-major f32 and `w` row-major `[n][k]`. An element depends on
//! its row of `x` and its row of `w` alone: bit by bit the same with any number of other rows, threads, and instruction set.
//!
//! **The order.** [`LANES`] accumulators run along `k`, element `k` going to lane `k % LANES` by a fused multiply-add; a last
//! step of fewer elements is padded with zeros; then lane l takes l + 8, l + 4, l + 2, l + 1. Tiles, threads and blocks decide
//! only which elements share loads.

mod error;
mod isa;
mod kinds;
mod products;
mod quant;
mod scalar;
mod simd;
mod weight;

pub use error::MatmulError;
pub use isa::Isa;
pub use products::Product;
pub use weight::{Weight, WeightType};

/// Partial sums of an element. Do not change: it is the order of summation, so every logit moves with it.
pub const LANES: usize = 16;

/// `out = x w^T` with the fastest instructions and the current rayon pool; `x.len() / w.k()` rows.
///
/// # Panics
/// If `x` is not a whole number of rows of `w.k()`, or `out` not as many rows of `w.n()`.
pub fn matmul(x: &[f32], w: Weight<'_>, out: &mut [f32]) {
    matmul_with(Isa::best(), x, w, out);
}

/// [`matmul`] with the instructions named.
///
/// # Panics
/// As [`matmul`], or if this processor lacks the instructions.
pub fn matmul_with(isa: Isa, x: &[f32], w: Weight<'_>, out: &mut [f32]) {
    matmul_all_with(isa, x, &mut [Product { weight: w, out }]);
}

/// [`matmul`] of the same rows with several weights of one `k`: `x` is prepared once, and the threads meet once.
///
/// # Panics
/// As [`matmul`], or if the weights' `k` differ.
pub fn matmul_all(x: &[f32], products: &mut [Product<'_>]) {
    matmul_all_with(Isa::best(), x, products);
}

fn matmul_all_with(isa: Isa, x: &[f32], products: &mut [Product<'_>]) {
    let Some(k) = products.first().map(|p| p.weight.k()) else { return };
    assert!(x.len().is_multiple_of(k), "x has {} elements, not a multiple of k = {k}", x.len());
    let m = x.len() / k;
    for Product { weight: w, out } in &*products {
        assert_eq!(w.k(), k, "the weights' k differ");
        assert_eq!(out.len(), m * w.n(), "out is to hold m = {m} rows of n = {}", w.n());
    }
    assert!(isa.is_available(), "{isa:?} is not available on this processor");
    if products.iter().all(|p| !p.out.is_empty()) {
        products::multiply(isa, x, k, products);
    }
}

/// Row `row` of the weight as f32 (an embedding).
///
/// # Panics
/// If `row >= w.n()` or `out.len() != w.k()`.
pub fn dequantize_row(w: Weight<'_>, row: usize, out: &mut [f32]) {
    assert!(row < w.n(), "row {row} of a weight of n = {}", w.n());
    assert_eq!(out.len(), w.k(), "out is to hold k = {} elements", w.k());
    kinds::dequantize(w, row, out);
}

/// `values` as bytes of type `ty`: rounded to nearest for the float types, by ggml's reference quantiser for the others.
pub fn quantize(ty: WeightType, values: &[f32]) -> Result<Vec<u8>, MatmulError> {
    let (k, block) = (values.len(), ty.block_len());
    if !k.is_multiple_of(block) {
        return Err(MatmulError::PartialBlock { ty, k, block });
    }
    Ok(kinds::encode(ty, values))
}
