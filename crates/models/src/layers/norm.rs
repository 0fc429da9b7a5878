//! Root-mean-square norm over the last dimension.
use super::rowwise::row_ops;
use attention::ForwardContext;
use candle_core::{Result, Tensor};

pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    /// weight: `[n]`, f32.
    pub fn new(weight: Tensor, eps: f64) -> Self {
        RmsNorm { weight, eps: eps as f32 }
    }

    /// x: `[.., n]`.
    pub fn forward(&self, x: &Tensor, ctx: &ForwardContext<'_>) -> Result<Tensor> {
        row_ops(ctx).rms_norm(x, &self.weight, self.eps)
    }

    /// x + delta, and that normed.
    pub fn add(&self, x: &Tensor, delta: &Tensor, ctx: &ForwardContext<'_>) -> Result<(Tensor, Tensor)> {
        row_ops(ctx).add_rms_norm(x, delta, &self.weight, self.eps)
    }
}
