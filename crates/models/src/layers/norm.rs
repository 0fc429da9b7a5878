//! Root-mean-square norm over the last dimension.
use crate::config::ModelConfig;
use crate::error::LoadResult;
use crate::weights::Weights;
use candle_core::{Result, Tensor};
use compute::{ComputeDevice, Rows, Sum};
use std::sync::Arc;

/// x / sqrt(mean(x²) + eps) * weight (Zhang and Sennrich, arXiv:1910.07467).
pub(crate) struct RmsNorm {
    device: Arc<dyn ComputeDevice>,
    /// `[n]`, f32.
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    /// Loads the norm over `n` elements whose weight is `name.weight`.
    pub fn load(w: &Weights, name: &str, n: usize, config: &ModelConfig) -> LoadResult<Self> {
        let mut weight = w.vector(&format!("{name}.weight"), n)?;
        if config.one_plus_norm {
            weight.iter_mut().for_each(|w| *w += 1.0);
        }
        let weight = Tensor::from_vec(weight, n, w.device().tensors())?;
        Ok(RmsNorm { device: Arc::clone(w.device()), weight, eps: config.rms_norm_eps as f32 })
    }

    /// x: `[.., n]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.device.rms_norm(x, &self.weight, self.eps)
    }

    /// The norm of a sum, for projections.
    pub fn rows_of(&self, x: &mut Sum) -> Result<Rows> {
        self.device.norm_rows(x, &self.weight, self.eps)
    }

    /// The norm of a sum.
    pub fn of_sum(&self, x: &mut Sum) -> Result<Tensor> {
        x.norm(&*self.device, &self.weight, self.eps)
    }
}
