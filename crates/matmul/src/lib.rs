//! CPU matrix products whose elements are summed in one order, for 1 row or 500.
//!
//! A product is `out[m][n] = sum_k x[m][k] * w[n][k]`, with `x` and `out` row-major f32 and `w` row-major `[n][k]`. An
//! element of `out` depends on its row of `x` and its row of `w` alone. It has the same bits with any number of other
//! rows, with any number of threads and with any instruction set.
//!
//! **The order of summation for float weights.** An element has [`ACCUMULATORS`] accumulators. Element `k` of the two
//! rows goes to accumulator `k % ACCUMULATORS` by a fused multiply-add; a last step of fewer than [`ACCUMULATORS`]
//! elements is padded with zeros. Then accumulator `l` takes in accumulator `l + 8`, then `l + 4`, `l + 2` and `l + 1`.
//! Micro-tiles, threads and caches decide only which elements share loads.
//!
//! **The order of summation for block-quantised weights.** The rows of `x` are quantised to int8, in blocks of 32
//! elements with an f32 scale. Within a scale group of the weight, 16 or 32 elements, the products of codes sum to an
//! exact integer. An element starts at `acc = 0` and takes the scale groups in order from `k = 0`:
//!
//! ```text
//! acc = fma(integer * weight_scale, x_scale, acc)
//! acc = fma(weight_min, x_sum, acc)                 for types with minima
//! ```
//!
//! Here `weight_scale` and `weight_min` are the scale group's, and `x_sum` is `x_scale` times the sum of the codes of
//! `x`.
#![warn(missing_docs)]

mod affine;
mod block_product;
mod error;
mod float_element;
mod isa;
mod kinds;
mod products;
mod quant;
mod scalar;
mod simd;
mod weight;
mod weight_type;

pub use affine::{Affine, HalfFloat};
pub use error::MatmulError;
pub use isa::Isa;
pub use products::Product;
pub use quant::{MlxRows, pack_mlx};
pub use weight::Weight;
pub use weight_type::WeightType;

/// The number of accumulators in which the terms of one output element are summed. It determines the order of
/// summation, so changing it changes every logit.
pub const ACCUMULATORS: usize = 16;

/// Computes `out = x w^T` with the fastest instructions and the current rayon pool.
///
/// `x` is `[m][w.k()]` and `out` is `[m][w.n()]`, both row-major; `m` is `x.len() / w.k()`.
///
/// # Panics
/// If `x` is not a whole number of rows of `w.k()` elements, or `out` is not as many rows of `w.n()`.
pub fn matmul(x: &[f32], w: Weight<'_>, out: &mut [f32]) {
    matmul_with(Isa::best(), x, w, out);
}

/// Computes what [`matmul`] computes, with the instructions that `isa` names.
///
/// # Panics
/// If the lengths are wrong, as for [`matmul`], or if this processor lacks the instructions.
pub fn matmul_with(isa: Isa, x: &[f32], w: Weight<'_>, out: &mut [f32]) {
    matmul_all_with(isa, x, &mut [Product { weight: w, out }]);
}

/// Multiplies the same rows with several weights of one `k`: `x` is prepared once, and the threads are synchronised
/// once.
///
/// # Panics
/// If a length is wrong, as for [`matmul`], or if the weights' `k` differ.
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

/// Writes row `row` of the weight to `out` as f32, as an embedding needs it.
///
/// # Panics
/// If `row >= w.n()` or `out.len() != w.k()`.
pub fn dequantize_row(w: Weight<'_>, row: usize, out: &mut [f32]) {
    assert!(row < w.n(), "row {row} of a weight of n = {}", w.n());
    assert_eq!(out.len(), w.k(), "out is to hold k = {} elements", w.k());
    kinds::dequantize(w, row, out);
}

/// Returns `values` as bytes of type `ty`: rounded to nearest for the float types, by ggml's reference quantiser for
/// ggml's.
///
/// # Errors
/// [`MatmulError::PartialBlock`] if the number of values is not a multiple of the type's quantisation block;
/// [`MatmulError::NoQuantiser`] for a type whose weights are only read.
pub fn quantize(ty: WeightType, values: &[f32]) -> Result<Vec<u8>, MatmulError> {
    let (k, block) = (values.len(), ty.block_len());
    if !k.is_multiple_of(block) {
        return Err(MatmulError::PartialBlock { ty, k, block });
    }
    kinds::encode(ty, values).ok_or(MatmulError::NoQuantiser { ty })
}
