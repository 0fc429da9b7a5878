//! Root-mean-square norm over the last dimension.
use super::rowwise;
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
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        rowwise::rms_norm(x, &self.weight, self.eps)
    }
}
