//! What a model computes beside attention, on whichever device: products with weights, operations row by row, the
//! largest logits.
//!
//! [`ComputeDevice`] is all that a model sees of the device. [`CpuDevice`] is the CPU's; a GPU's is in `metal`.
#![warn(missing_docs)]
mod cpu;
mod rowwise;
mod spinning;
mod weight;

use candle_core::{Device, Result, Tensor};
use std::sync::Arc;

pub use cpu::CpuDevice;
pub use weight::{PlacedWeight, Precision, StoredMatrix};

/// Where a model computes what is not attention. All activations are f32; a row's result depends on the row alone, up
/// to the order in which a GPU sums a product.
pub trait ComputeDevice: Send + Sync {
    /// Where the tensors that this device takes and gives lie.
    fn tensors(&self) -> &Device;

    /// Runs a pass of a model, or whatever else computes on this device for a while. A CPU keeps its threads awake for
    /// the length of the pass; a GPU frees afterwards what its driver made meanwhile.
    fn pass(&self, work: &mut dyn FnMut()) {
        work();
    }

    /// Whether this device compiles what it runs when it is first used, which can take seconds.
    fn compiles_on_first_use(&self) -> bool {
        false
    }

    /// Why this device computes no longer, after an error of its own: what it has computed since is not to be trusted.
    /// `None` while it does.
    fn failure(&self) -> Option<String> {
        None
    }

    /// The elements of some f32 tensors, in order, which are waited for once.
    fn read(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<f32>>> {
        tensors.iter().map(|tensor| tensor.flatten_all()?.to_vec1()).collect()
    }

    /// Puts a weight `[n, k]` where products with it are computed. `bias`: `[n]`, which is added to every row of a
    /// product.
    ///
    /// Errors: a type of weight that the device does not multiply, or no memory.
    fn place(&self, weight: Arc<dyn StoredMatrix>, bias: Option<&[f32]>, precision: Precision) -> Result<PlacedWeight>;

    /// The products of the rows `x`, `[rows, k]`, with the transpose of each weight, plus its bias: `[rows, n]` each.
    ///
    /// Errors: rows of another length, and weights that another device has placed.
    fn products(&self, x: &Tensor, weights: &[&PlacedWeight]) -> Result<Vec<Tensor>>;

    /// x / sqrt(mean(x²) + eps) * weight over the last dimension. `weight`: `[n]`.
    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor>;

    /// The sum of x and delta, of the same shape, and that sum's norm as `rms_norm` computes it.
    fn add_rms_norm(&self, x: &Tensor, delta: &Tensor, weight: &Tensor, eps: f32) -> Result<(Tensor, Tensor)>;

    /// silu(gate) * up, of the same shape.
    fn silu_mul(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor>;

    /// sigmoid(gate) * x, of the same shape.
    fn sigmoid_mul(&self, gate: &Tensor, x: &Tensor) -> Result<Tensor>;

    /// The weighted sums of what experts gave for `num_rows` rows, each of which went through the same number of
    /// experts: `[num_rows, width]`. A row's sum is taken in the order of `experts`.
    fn mix(&self, num_rows: usize, experts: &[ExpertOutput]) -> Result<Tensor>;

    /// The `count` largest elements of each row of `[rows, n]`, read back: `[rows][count]` with their indices, in
    /// descending order, of equal ones the lower index first. Where a row has fewer numbers, what follows them is at
    /// most [`MASKED_LOGIT`]. `None` where the rows have to be read as a whole instead.
    fn largest(&self, rows: &Tensor, count: usize) -> Result<Option<Vec<(u32, f32)>>>;
}

/// Stands for NaN and minus infinity in what [`ComputeDevice::largest`] gives; every logit that a model computes is
/// larger.
pub const MASKED_LOGIT: f32 = -1e30;

/// What one expert gave for the rows that were routed to it.
pub struct ExpertOutput {
    /// The rows of the batch that went through the expert.
    pub rows: Vec<u32>,
    /// The expert's weight in each of them.
    pub weights: Vec<f32>,
    /// What it gave for them: `[rows.len(), width]`.
    pub output: Tensor,
}
