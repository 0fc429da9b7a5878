//! The gated feed-forward block.
use super::Linear;
use crate::error::LoadResult;
use crate::weights::Weights;
use candle_core::{Result, Tensor};
use compute::ComputeDevice;
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

    /// x: `[rows, hidden]`; returns the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [gate, up] = Linear::forward_all([&self.gate, &self.up], x)?;
        self.down.forward(&self.device.silu_mul(&gate, &up)?)
    }
}
