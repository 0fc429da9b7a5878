//! The token embedding.
use crate::weights::StoredWeight;
use candle_core::{Device, Result, Tensor, bail};
use compute::StoredMatrix;

/// Looks up the rows of tokens, from whichever type the table is stored in.
pub(crate) struct Embedding {
    weight: StoredWeight,
    device: Device,
}

impl Embedding {
    /// `weight`: `[vocab_size, hidden_size]`; rows go to `device`.
    pub fn new(weight: StoredWeight, device: &Device) -> Self {
        Embedding { weight, device: device.clone() }
    }

    /// The rows of `tokens`: `[tokens.len(), hidden_size]`, f32.
    pub fn forward(&self, tokens: &[u32]) -> Result<Tensor> {
        let weight = self.weight.view();
        let width = weight.k();
        let mut out = vec![0f32; tokens.len() * width];
        for (token, row) in tokens.iter().zip(out.chunks_exact_mut(width)) {
            if *token as usize >= weight.n() {
                bail!("token {token} of a vocabulary of {}", weight.n());
            }
            matmul::dequantize_row(weight, *token as usize, row);
        }
        Tensor::from_vec(out, (tokens.len(), width), &self.device)
    }
}
