//! Root-mean-square norm over the last dimension.
use super::rowwise::row_ops;
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::weights::Weights;
use attention::ForwardContext;
use candle_core::{Result, Tensor};

/// x / sqrt(mean(x²) + eps) * weight (Zhang and Sennrich, arXiv:1910.07467).
pub(crate) struct RmsNorm {
    /// `[n]`, f32.
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    /// Loads the norm over `n` elements whose weight is `name.weight`.
    pub fn load(w: &Weights, name: &str, n: usize, config: &ModelConfig) -> std::result::Result<Self, ModelError> {
        let mut weight = w.vector(&format!("{name}.weight"), n)?;
        if config.one_plus_norm {
            weight.iter_mut().for_each(|w| *w += 1.0);
        }
        Ok(RmsNorm { weight: Tensor::from_vec(weight, n, w.device())?, eps: config.rms_norm_eps as f32 })
    }

    /// x: `[.., n]`.
    pub fn forward(&self, x: &Tensor, ctx: &ForwardContext<'_>) -> Result<Tensor> {
        row_ops(ctx).rms_norm(x, &self.weight, self.eps)
    }

    /// The sum of x and delta, and the norm of that sum.
    pub fn add(&self, x: &Tensor, delta: &Tensor, ctx: &ForwardContext<'_>) -> Result<(Tensor, Tensor)> {
        row_ops(ctx).add_rms_norm(x, delta, &self.weight, self.eps)
    }
}
