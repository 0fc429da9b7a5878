//! A sparse mixture of feed-forward blocks.
use super::{Linear, Mlp};
use crate::config::Experts;
use crate::error::LoadResult;
use crate::weights::Weights;
use candle_core::{Result, Tensor};
use compute::{ComputeDevice, ExpertOutput};
use std::sync::Arc;

/// Each token goes through the `per_token` blocks that its router weighs most (Switch Transformer's top-k routing after
/// a softmax over all experts).
pub(crate) struct ExpertMlp {
    device: Arc<dyn ComputeDevice>,
    router: Linear,
    experts: Vec<Mlp>,
    per_token: usize,
    /// Whether the weights of a token's experts are scaled to a sum of 1.
    normalized: bool,
}

impl ExpertMlp {
    /// Loads the router and all experts of a layer.
    pub fn load(w: &Weights, hidden: usize, experts: &Experts) -> LoadResult<Self> {
        let expert = |i| Mlp::load(&w.at(format!("experts.{i}")), hidden, experts.intermediate_size, false);
        Ok(ExpertMlp {
            device: Arc::clone(w.device()),
            router: Linear::load_exact(w, "gate", experts.num, hidden)?,
            experts: (0..experts.num).map(expert).collect::<LoadResult<_>>()?,
            per_token: experts.per_token,
            normalized: experts.normalized,
        })
    }

    /// Computes the mixture of the rows x: `[rows, hidden]`. A row's sum runs over its experts by number, whatever
    /// other rows there are. Rows are routed on the CPU, for which a GPU is waited for once.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let logits: Vec<f32> = self.router.forward_tensor(x)?.flatten_all()?.to_vec1()?;
        let mut routed = vec![(Vec::new(), Vec::new()); self.experts.len()];
        for (row, logits) in logits.chunks_exact(self.experts.len()).enumerate() {
            for (expert, weight) in self.route(logits) {
                routed[expert].0.push(row as u32);
                routed[expert].1.push(weight);
            }
        }
        let routed = routed.into_iter().zip(&self.experts).filter(|((rows, _), _)| !rows.is_empty());
        let outputs = routed.map(|((rows, weights), expert)| {
            let output = expert.forward(&self.device.rows(&self.device.select_rows(x, &rows)?)?)?;
            Ok(ExpertOutput { rows, weights, output })
        });
        self.device.mix(x.dim(0)?, &outputs.collect::<Result<Vec<_>>>()?)
    }

    /// A token's experts and their weights, the largest weight first; of two equal ones, the lower number first.
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
