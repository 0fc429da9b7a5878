//! Rotary position embedding of one step's rows.
use super::rowwise::row_ops;
use attention::{ForwardContext, Rope};
use candle_core::{Device, Result, Tensor};

/// Cosines and sines of each row's position: `[num_tokens, head_dim / 2]`.
pub(crate) struct RopeTables {
    cos: Tensor,
    sin: Tensor,
}

impl RopeTables {
    pub fn new(rope: &Rope, positions: &[u32], device: &Device) -> Result<Self> {
        let angles = || positions.iter().flat_map(|p| rope.inv_freq.iter().map(move |f| *p as f32 * f));
        let cos: Vec<f32> = angles().map(|a| a.cos() * rope.attention_factor).collect();
        let sin: Vec<f32> = angles().map(|a| a.sin() * rope.attention_factor).collect();
        let shape = (positions.len(), rope.inv_freq.len());
        Ok(RopeTables { cos: Tensor::from_vec(cos, shape, device)?, sin: Tensor::from_vec(sin, shape, device)? })
    }

    /// q: `[num_tokens, heads, head_dim]`, k: `[num_tokens, kv_heads, head_dim]`; half-split convention.
    pub fn apply(&self, q: &Tensor, k: &Tensor, ctx: &ForwardContext<'_>) -> Result<(Tensor, Tensor)> {
        row_ops(ctx).rope(q, k, &self.cos, &self.sin)
    }
}
