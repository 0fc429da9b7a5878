//! The gated feed-forward block.
use super::{Linear, Residual};
use crate::error::LoadResult;
use crate::weights::Weights;
use candle_core::Result;
use compute::Rows;

/// down(silu(gate(x)) * up(x)): Shazeer, "GLU Variants Improve Transformer" (arXiv:2002.05202).
pub(crate) struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Mlp {
    /// Loads a block of `intermediate` inner elements.
    pub fn load(w: &Weights, hidden: usize, intermediate: usize, bias: bool) -> LoadResult<Self> {
        Ok(Mlp {
            gate: Linear::load(w, "gate_proj", intermediate, hidden, bias)?,
            up: Linear::load(w, "up_proj", intermediate, hidden, bias)?,
            down: Linear::load(w, "down_proj", hidden, intermediate, bias)?,
        })
    }

    /// Adds the block of some rows to the stream. x: the stream's norm.
    pub fn add_to(&self, stream: &mut Residual, x: &Rows) -> Result<()> {
        stream.add_projection(&self.down, &Linear::gated(&self.gate, &self.up, x)?)
    }
}
