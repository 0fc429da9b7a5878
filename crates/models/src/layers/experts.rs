//! A sparse mixture of feed-forward blocks.
use super::{Linear, Mlp};
use attention::ForwardContext;
use candle_core::{Result, Tensor};

/// Each token goes through the `per_token` blocks that its router weighs most (Switch Transformer's top-k routing after a softmax
/// over all experts).
pub(crate) struct ExpertMlp {
    pub router: Linear,
    pub experts: Vec<Mlp>,
    pub per_token: usize,
    /// Whether the weights of a token's experts are scaled to a sum of 1.
    pub normalized: bool,
}

impl ExpertMlp {
    /// x: `[rows, hidden]`. A row's sum runs over its experts by number, whatever other rows there are.
    pub fn forward(&self, x: &Tensor, ctx: &ForwardContext<'_>) -> Result<Tensor> {
        let (rows, hidden) = x.dims2()?;
        let logits: Vec<f32> = self.router.forward(x)?.flatten_all()?.to_vec1()?;
        let mut routed = vec![(Vec::new(), Vec::new()); self.experts.len()];
        for (row, logits) in logits.chunks_exact(self.experts.len()).enumerate() {
            for (expert, weight) in self.route(logits) {
                routed[expert].0.push(row as u32);
                routed[expert].1.push(weight);
            }
        }
        let mut out = vec![0f32; rows * hidden];
        for (expert, (rows, weights)) in self.experts.iter().zip(routed) {
            if rows.is_empty() {
                continue;
            }
            let index = Tensor::from_slice(&rows, rows.len(), x.device())?;
            let y: Vec<f32> = expert.forward(&x.index_select(&index, 0)?, ctx)?.flatten_all()?.to_vec1()?;
            for ((row, weight), y) in rows.iter().zip(weights).zip(y.chunks_exact(hidden)) {
                let out = &mut out[*row as usize * hidden..][..hidden];
                out.iter_mut().zip(y).for_each(|(out, y)| *out += weight * y);
            }
        }
        Tensor::from_vec(out, (rows, hidden), x.device())
    }

    /// A token's experts and their weights. Of equal ones the lower number goes first.
    fn route(&self, logits: &[f32]) -> Vec<(usize, f32)> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut shares: Vec<(usize, f32)> = logits.iter().map(|l| (l - max).exp()).enumerate().collect();
        let all: f32 = shares.iter().map(|s| s.1).sum();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        shares.truncate(self.per_token);
        let chosen: f32 = shares.iter().map(|s| s.1).sum();
        let total = if self.normalized { chosen } else { all };
        shares.iter_mut().for_each(|s| s.1 /= total);
        shares
    }
}
