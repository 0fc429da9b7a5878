//! The feed-forward block of families in which some models have mixtures.
use super::{ExpertMlp, Mlp, Residual, RmsNorm};
use crate::config::ModelConfig;
use crate::error::LoadResult;
use crate::weights::Weights;
use candle_core::Result;

/// A dense block, or a sparse mixture.
pub(crate) enum FeedForward {
    Dense(Mlp),
    Sparse(ExpertMlp),
}

impl FeedForward {
    /// Loads the block of layer `layer` from `w`, the layer's `mlp`.
    pub fn load(w: &Weights, layer: usize, config: &ModelConfig) -> LoadResult<Self> {
        let hidden = config.hidden_size;
        let experts = config.experts.as_ref().filter(|experts| !experts.dense_layers.contains(&layer));
        Ok(match experts {
            Some(experts) => FeedForward::Sparse(ExpertMlp::load(w, hidden, experts)?),
            None => FeedForward::Dense(Mlp::load(w, hidden, config.dense_size()?, config.mlp_bias)?),
        })
    }

    /// Adds the block of the stream's norm to the stream.
    pub fn add_to(&self, stream: &mut Residual, norm: &RmsNorm) -> Result<()> {
        match self {
            FeedForward::Dense(mlp) => {
                let h = stream.norm(norm)?;
                mlp.add_to(stream, &h)
            }
            FeedForward::Sparse(mlp) => {
                let h = stream.norm_tensor(norm)?;
                mlp.add_to(stream, &h)
            }
        }
    }
}
