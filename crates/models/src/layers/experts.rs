//! A sparse mixture of feed-forward blocks.
use super::Linear;
use crate::config::Experts;
use crate::error::LoadResult;
use crate::weights::Weights;
use candle_core::{Result, Tensor};
use compute::{ComputeDevice, ExpertWeights, PlacedLayer, Routing, StoredMatrix};
use std::sync::Arc;

/// Each token goes through the feed-forward blocks that its router weighs most.
pub(crate) struct ExpertMlp {
    device: Arc<dyn ComputeDevice>,
    router: Linear,
    experts: PlacedLayer,
}

impl ExpertMlp {
    /// Loads the router and all experts of a layer.
    pub fn load(w: &Weights, hidden: usize, experts: &Experts) -> LoadResult<Self> {
        let inner = experts.intermediate_size;
        let each = |name: &str, n: usize, k: usize| {
            let matrix = |i| w.matrix(&format!("experts.{i}.{name}.weight"), n, k);
            let shared = |i| Ok(Arc::new(matrix(i)?) as Arc<dyn StoredMatrix>);
            (0..experts.num).map(shared).collect::<LoadResult<Vec<_>>>()
        };
        let weights = ExpertWeights {
            gate: each("gate_proj", inner, hidden)?,
            up: each("up_proj", inner, hidden)?,
            down: each("down_proj", hidden, inner)?,
            routing: Routing { per_token: experts.per_token, normalized: experts.normalized },
        };
        Ok(ExpertMlp {
            device: Arc::clone(w.device()),
            router: Linear::load_exact(w, "gate", experts.num, hidden)?,
            experts: w.device().place_experts(weights)?,
        })
    }

    /// Computes the mixture of the rows x: `[rows, hidden]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.device.experts(&self.experts, x, &self.router.forward_tensor(x)?)
    }
}
