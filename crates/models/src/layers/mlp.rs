//! The gated feed-forward block.
use super::Linear;
use super::rowwise::row_ops;
use crate::error::ModelError;
use crate::weights::Weights;
use attention::ForwardContext;
use candle_core::{Result, Tensor};

/// down(silu(gate(x)) * up(x)): Shazeer, "GLU Variants Improve Transformer" (arXiv:2002.05202).
pub(crate) struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Mlp {
    /// Loads a block of `intermediate` inner elements.
    pub fn load(w: &Weights, hidden: usize, intermediate: usize, bias: bool) -> std::result::Result<Self, ModelError> {
        Ok(Mlp {
            gate: Linear::load(w, "gate_proj", intermediate, hidden, bias)?,
            up: Linear::load(w, "up_proj", intermediate, hidden, bias)?,
            down: Linear::load(w, "down_proj", hidden, intermediate, bias)?,
        })
    }

    /// x: `[rows, hidden]`; returns the same shape.
    pub fn forward(&self, x: &Tensor, ctx: &ForwardContext<'_>) -> Result<Tensor> {
        let [gate, up] = Linear::forward_all([&self.gate, &self.up], x, ctx)?;
        self.down.forward(&row_ops(ctx).silu_mul(&gate, &up)?, ctx)
    }
}
