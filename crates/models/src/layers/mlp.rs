//! The gated feed-forward block.
use super::Linear;
use super::rowwise::row_ops;
use attention::ForwardContext;
use candle_core::{Result, Tensor};

/// down(silu(gate(x)) * up(x)), Shazeer, "GLU Variants Improve Transformer" (arXiv:2002.05202).
pub(crate) struct Mlp {
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
}

impl Mlp {
    pub fn forward(&self, x: &Tensor, ctx: &ForwardContext<'_>) -> Result<Tensor> {
        let [gate, up] = Linear::forward_all([&self.gate, &self.up], x, ctx)?;
        self.down.forward(&row_ops(ctx).silu_mul(&gate, &up)?, ctx)
    }
}
