//! The gated feed-forward block.
use super::Linear;
use super::rowwise::silu_mul;
use candle_core::{Result, Tensor};

/// down(silu(gate(x)) * up(x)), Shazeer, "GLU Variants Improve Transformer" (arXiv:2002.05202).
pub(crate) struct Mlp {
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
}

impl Mlp {
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&silu_mul(&self.gate.forward(x)?, &self.up.forward(x)?)?)
    }
}
