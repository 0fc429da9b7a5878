//! The gated feed-forward block.
use super::{Linear, Residual};
use crate::error::LoadResult;
use crate::weights::Weights;
use candle_core::{Result, Tensor};
use compute::{ComputeDevice, Rows, Sum};
use std::sync::Arc;

/// down(silu(gate(x)) * up(x)): Shazeer, "GLU Variants Improve Transformer" (arXiv:2002.05202).
pub(crate) struct Mlp {
    device: Arc<dyn ComputeDevice>,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Mlp {
    /// Loads a block of `intermediate` inner elements.
    pub fn load(w: &Weights, hidden: usize, intermediate: usize, bias: bool) -> LoadResult<Self> {
        Ok(Mlp {
            device: Arc::clone(w.device()),
            gate: Linear::load(w, "gate_proj", intermediate, hidden, bias)?,
            up: Linear::load(w, "up_proj", intermediate, hidden, bias)?,
            down: Linear::load(w, "down_proj", hidden, intermediate, bias)?,
        })
    }

    /// Adds the block of some rows to the stream. x: the stream's norm.
    pub fn add_to(&self, stream: &mut Residual, x: &Rows) -> Result<()> {
        stream.add_projection(&self.down, &Linear::gated(&self.gate, &self.up, x)?)
    }

    /// The sum of `y`, `[rows, hidden]`, and the block of the rows x, of which each is multiplied by the sigmoid of its
    /// element of `factor`, `[rows, 1]`. The factor goes into the inner elements, since it commutes with the last
    /// projection.
    pub fn gated_onto(&self, y: &Tensor, x: &Rows, factor: &Tensor) -> Result<Sum> {
        let [gate, up] = Linear::forward_all([&self.gate, &self.up], x)?;
        let inner = self.device.sigmoid_mul(factor, &self.device.silu_mul(&gate, &up)?)?;
        self.down.forward_onto(y, &self.device.rows(&inner)?)
    }
}
