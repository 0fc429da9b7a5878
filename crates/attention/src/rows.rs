//! What a model computes row by row between its projections.
use candle_core::{Result, Tensor};

/// Row-wise operations, fused as a device's backend has them. A row's bits depend on the row alone. All tensors are f32.
pub trait RowOps: Send + Sync {
    /// x / sqrt(mean(x²) + eps) * weight over the last dimension. `weight`: `[n]`.
    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor>;

    /// x + delta of the same shape, and that normed as by `rms_norm`.
    fn add_rms_norm(&self, x: &Tensor, delta: &Tensor, weight: &Tensor, eps: f32) -> Result<(Tensor, Tensor)>;

    /// silu(gate) * up of the same shape.
    fn silu_mul(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor>;

    /// sigmoid(gate) * x of the same shape.
    fn sigmoid_mul(&self, gate: &Tensor, x: &Tensor) -> Result<Tensor>;

    /// How many of `rows` rows are to be multiplied now with a weight of `elements` elements: as many as the device may be kept from others
    /// for. Waits first where it has enough to do already.
    fn start_product(&self, rows: usize, _elements: usize) -> Result<usize> {
        Ok(rows)
    }

    /// The `count` largest of each row of `[rows, n]`, read back: `[rows][count]` with their indices, in descending order, of equal ones
    /// the lower index first. Where a row has fewer numbers, what follows them is at most [`NO_NUMBER`]. `None` where that is not to be
    /// had, and the rows have to be read.
    fn largest(&self, rows: &Tensor, count: usize) -> Result<Option<Vec<(u32, f32)>>>;
}

/// What [`RowOps::largest`] gives for NaN and minus infinity.
pub const NO_NUMBER: f32 = -1e30;
