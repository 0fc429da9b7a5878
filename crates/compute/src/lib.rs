//! What a model computes beside attention, on whichever device: products with weights, operations row by row,
//! recurrences, mixtures of experts, the largest logits.
//!
//! [`ComputeDevice`] is all that a model sees of the device. [`CpuDevice`] is the CPU's; a GPU's is in `metal`.
#![warn(missing_docs)]
mod cpu;
mod delta_net;
mod device_form;
mod experts;
mod rows;
mod rowwise;
mod spinning;
mod weight;

use attention::{ForwardContext, StateId, StateLayout, StatePool};
use candle_core::{Device, Result, Tensor, bail};
use std::sync::Arc;

pub use cpu::CpuDevice;
pub use delta_net::{DeltaNetInput, DeltaNetSizes, DeltaNetWeights, HeadOrder};
pub use experts::{ExpertWeights, Routing};
pub use rows::Rows;
pub use weight::{PlacedLayer, PlacedWeight, Precision, StoredMatrix};

/// Where a model computes what is not attention. All activations are f32, whatever products round them to; a row's
/// result depends on the row alone.
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

    /// Names the choices of this device that decide bits of what it computes. What one choice has computed and stored
    /// is not mixed with what another has.
    fn order_of_sums(&self) -> String {
        String::new()
    }

    /// Whether a row's products have the same bits in a step of any number of rows.
    fn is_exact_by_row(&self) -> bool {
        true
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

    /// Rows `[rows, k]` in the form that products take.
    ///
    /// Errors: no memory.
    fn rows(&self, x: &Tensor) -> Result<Rows>;

    /// The products of some rows with the transpose of each weight, plus its bias: `[rows, n]` each.
    ///
    /// Errors: rows of another length or of another device, and weights that another device has placed.
    fn products(&self, x: &Rows, weights: &[&PlacedWeight]) -> Result<Vec<Tensor>>;

    /// The sum of `x`, `[rows, n]`, and the product of some rows with one weight.
    ///
    /// Errors: the errors of [`ComputeDevice::products`].
    fn product_onto(&self, x: &Tensor, rows: &Rows, weight: &PlacedWeight) -> Result<Sum> {
        Ok(Sum { x: x.clone(), delta: self.products(rows, &[weight])?.pop() })
    }

    /// silu(gate) * up, where these are the products of some rows with two weights, in the form that products take.
    ///
    /// Errors: the errors of [`ComputeDevice::products`]; weights of different sizes.
    fn gated_product(&self, x: &Rows, gate: &PlacedWeight, up: &PlacedWeight) -> Result<Rows> {
        let [gate, up] = &self.products(x, &[gate, up])?[..] else { bail!("as many products as weights") };
        self.rows(&self.silu_mul(gate, up)?)
    }

    /// The norm of a sum, as `rms_norm` computes it, in the form that products with weights of [`Precision::Fast`]
    /// take. The sum becomes one tensor.
    ///
    /// Errors: tensors of other shapes.
    fn norm_rows(&self, x: &mut Sum, weight: &Tensor, eps: f32) -> Result<Rows> {
        let normed = x.norm(self, weight, eps)?;
        self.rows(&normed)
    }

    /// x / sqrt(mean(x²) + eps) * weight over the last dimension. `weight`: `[n]`.
    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor>;

    /// The sum of x and delta, of the same shape, and that sum's norm as `rms_norm` computes it.
    fn add_rms_norm(&self, x: &Tensor, delta: &Tensor, weight: &Tensor, eps: f32) -> Result<(Tensor, Tensor)>;

    /// silu(gate) * up, of the same shape.
    fn silu_mul(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor>;

    /// sigmoid(gate) * x, where the gate has the shape of x, or one element for each row of x.
    fn sigmoid_mul(&self, gate: &Tensor, x: &Tensor) -> Result<Tensor>;

    /// Some rows of `[rows, n]`, by number.
    ///
    /// Errors: a number of no row.
    fn select_rows(&self, x: &Tensor, rows: &[u32]) -> Result<Tensor> {
        x.index_select(&Tensor::from_slice(rows, rows.len(), x.device())?, 0)
    }

    /// Takes the memory of recurrent states, where this device computes with them.
    ///
    /// Errors: no memory.
    fn states(&self, layout: StateLayout, num_slots: usize) -> Result<StatePool> {
        Ok(StatePool::on_cpu(layout, num_slots))
    }

    /// Puts what a gated delta net has beside its projections where the device computes with it.
    ///
    /// Errors: sizes that the device does not compute, or no memory.
    fn place_delta_net(&self, weights: DeltaNetWeights) -> Result<PlacedLayer>;

    /// Computes a gated delta net of the rows of a step, from the convolution to the gated norm:
    /// `[rows, value_heads * value_dim]`. `state`: the layer's among the states of the step's sequences, which this
    /// device keeps and which it leaves as they are after the step. A row's bits do not depend on how many rows of its
    /// sequence were in the same step.
    ///
    /// Errors: tensors of other shapes, a sequence without states, states or a layer of another device.
    fn delta_net(
        &self,
        net: &PlacedLayer,
        input: DeltaNetInput<'_>,
        state: StateId,
        ctx: &ForwardContext<'_>,
    ) -> Result<Tensor>;

    /// Puts the experts of a layer where the device computes with them.
    ///
    /// Errors: weights of sizes that do not fit each other, numbers or types of experts that the device does not
    /// compute, or no memory.
    fn place_experts(&self, weights: ExpertWeights) -> Result<PlacedLayer>;

    /// Computes a mixture of the rows x, `[rows, hidden]`: each goes through the experts with its largest logits, of
    /// equal ones those of the lower number, and what they give is added up in the order of their numbers, each times
    /// its weight. `logits`: `[rows, experts]`, the router's. Returns `[rows, hidden]`.
    ///
    /// Errors: tensors of other shapes, a layer of another device.
    fn experts(&self, experts: &PlacedLayer, x: &Tensor, logits: &Tensor) -> Result<Tensor>;

    /// The `count` largest elements of each row of `[rows, n]`, read back: `[rows][count]` with their indices, in
    /// descending order, of equal ones the lower index first. Where a row has fewer numbers, what follows them is at
    /// most [`MASKED_LOGIT`]. `None` where the rows have to be read as a whole instead.
    fn largest(&self, rows: &Tensor, count: usize) -> Result<Option<Vec<(u32, f32)>>>;
}

/// A tensor, and what is still to be added to it: the norm that reads it next does that in one pass.
#[derive(Clone)]
pub struct Sum {
    /// The tensor that `delta` is still to be added to.
    pub x: Tensor,
    /// The term that is still to be added, of the same shape; `None` if there is none.
    pub delta: Option<Tensor>,
}

impl Sum {
    /// The sum as one tensor.
    ///
    /// Errors: tensors of other shapes.
    pub fn into_tensor(self) -> Result<Tensor> {
        match self.delta {
            Some(delta) => self.x + delta,
            None => Ok(self.x),
        }
    }

    /// The norm of the sum, as [`ComputeDevice::rms_norm`] computes it. The sum becomes one tensor.
    ///
    /// Errors: tensors of other shapes.
    pub fn norm<D: ComputeDevice + ?Sized>(&mut self, device: &D, weight: &Tensor, eps: f32) -> Result<Tensor> {
        let Some(delta) = self.delta.take() else { return device.rms_norm(&self.x, weight, eps) };
        let (sum, normed) = device.add_rms_norm(&self.x, &delta, weight, eps)?;
        self.x = sum;
        Ok(normed)
    }
}

/// Stands for NaN and minus infinity in what [`ComputeDevice::largest`] gives; every logit that a model computes is
/// larger.
pub const MASKED_LOGIT: f32 = -1e30;
