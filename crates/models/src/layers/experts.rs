//! A sparse mixture of feed-forward blocks.
use super::{Linear, Mlp};
use crate::config::Experts;
use crate::error::ModelError;
use crate::weights::Weights;
use attention::ForwardContext;
use candle_core::{Result, Tensor};

/// The rows of a step that go through one expert, and the expert's weight in each.
type Share = (Vec<u32>, Vec<f32>);

/// Each token goes through the `per_token` blocks that its router weighs most (Switch Transformer's top-k routing after
/// a softmax over all experts).
pub(crate) struct ExpertMlp {
    router: Linear,
    experts: Vec<Mlp>,
    per_token: usize,
    /// Whether the weights of a token's experts are scaled to a sum of 1.
    normalized: bool,
}

impl ExpertMlp {
    /// Loads the router and all experts of a layer.
    pub fn load(w: &Weights, hidden: usize, experts: &Experts) -> std::result::Result<Self, ModelError> {
        let expert = |i| Mlp::load(&w.at(format!("experts.{i}")), hidden, experts.intermediate_size, false);
        Ok(ExpertMlp {
            router: Linear::load_exact(w, "gate", experts.num, hidden)?,
            experts: (0..experts.num).map(expert).collect::<std::result::Result<_, ModelError>>()?,
            per_token: experts.per_token,
            normalized: experts.normalized,
        })
    }

    /// Computes the mixture of the rows x: `[rows, hidden]`. A row's sum runs over its experts by number, whatever
    /// other rows there are. Rows are routed on the CPU, for which a GPU is waited for once.
    pub fn forward(&self, x: &Tensor, ctx: &ForwardContext<'_>) -> Result<Tensor> {
        let logits: Vec<f32> = self.router.forward(x, ctx)?.flatten_all()?.to_vec1()?;
        let mut routed: Vec<Share> = vec![(Vec::new(), Vec::new()); self.experts.len()];
        for (row, logits) in logits.chunks_exact(self.experts.len()).enumerate() {
            for (expert, weight) in self.route(logits) {
                routed[expert].0.push(row as u32);
                routed[expert].1.push(weight);
            }
        }
        let mut outputs = Vec::new();
        for (expert, (rows, _)) in self.experts.iter().zip(&routed).filter(|(_, share)| !share.0.is_empty()) {
            let index = Tensor::from_slice(rows, rows.len(), x.device())?;
            outputs.push(expert.forward(&x.index_select(&index, 0)?, ctx)?);
        }
        routed.retain(|share| !share.0.is_empty());
        match self.router.is_on_gpu() {
            true => self.mix_on_gpu(x, &routed, &outputs),
            false => mix(x, &routed, &outputs),
        }
    }

    /// Does what [`mix`] does, in the same order, without reading anything back from the GPU.
    fn mix_on_gpu(&self, x: &Tensor, routed: &[Share], outputs: &[Tensor]) -> Result<Tensor> {
        let (rows, hidden) = x.dims2()?;
        // Where the outputs of each row's experts lie among all outputs, in the order of the experts' numbers.
        let mut places = vec![Vec::new(); rows];
        let shares = routed.iter().flat_map(|(rows, weights)| rows.iter().zip(weights));
        for (at, (row, weight)) in shares.enumerate() {
            places[*row as usize].push((at as u32, *weight));
        }
        let (places, weights): (Vec<u32>, Vec<f32>) = places.into_iter().flatten().unzip();
        let index = Tensor::from_slice(&places, places.len(), x.device())?;
        let weights = Tensor::from_slice(&weights, (weights.len(), 1), x.device())?;
        let each = Tensor::cat(outputs, 0)?.index_select(&index, 0)?.broadcast_mul(&weights)?;
        let each = each.reshape((rows, self.per_token, hidden))?;
        let first = each.narrow(1, 0, 1)?.squeeze(1)?;
        (1..self.per_token).try_fold(first, |sum, i| sum + each.narrow(1, i, 1)?.squeeze(1)?)
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

/// The weighted sum, for each row, of what its experts gave.
fn mix(x: &Tensor, routed: &[Share], outputs: &[Tensor]) -> Result<Tensor> {
    let (rows, hidden) = x.dims2()?;
    let mut out = vec![0f32; rows * hidden];
    for ((rows, weights), y) in routed.iter().zip(outputs) {
        let y: Vec<f32> = y.flatten_all()?.to_vec1()?;
        for ((row, weight), y) in rows.iter().zip(weights).zip(y.chunks_exact(hidden)) {
            let out = &mut out[*row as usize * hidden..][..hidden];
            out.iter_mut().zip(y).for_each(|(out, y)| *out += weight * y);
        }
    }
    Tensor::from_vec(out, (rows, hidden), x.device())
}
