//! A sparse mixture of feed-forward blocks.
use super::{Linear, Mlp, Residual};
use crate::config::Experts;
use crate::error::LoadResult;
use crate::weights::Weights;
use candle_core::{Result, Tensor};
use compute::{ComputeDevice, ExpertWeights, PlacedLayer, Routing, StoredMatrix};
use std::sync::Arc;

/// Each token goes through the feed-forward blocks that its router weighs most and, in some models, through one that
/// all tokens share.
pub(crate) struct ExpertMlp {
    device: Arc<dyn ComputeDevice>,
    router: Linear,
    experts: PlacedLayer,
    shared: Option<SharedExpert>,
}

/// The block that all tokens go through. What it gives is multiplied by the sigmoid of a projection of its input.
struct SharedExpert {
    mlp: Mlp,
    /// To one element.
    gate: Linear,
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
        let shared = |size| -> LoadResult<SharedExpert> {
            let mlp = Mlp::load(&w.at("shared_expert"), hidden, size, false)?;
            Ok(SharedExpert { mlp, gate: Linear::load_exact(w, "shared_expert_gate", 1, hidden)? })
        };
        Ok(ExpertMlp {
            device: Arc::clone(w.device()),
            router: Linear::load_exact(w, "gate", experts.num, hidden)?,
            experts: w.device().place_experts(weights)?,
            shared: experts.shared_size.map(shared).transpose()?,
        })
    }

    /// Adds the mixture of the rows x, `[rows, hidden]`, to the stream. x: the stream's norm.
    pub fn add_to(&self, stream: &mut Residual, x: &Tensor) -> Result<()> {
        let mixture = self.device.experts(&self.experts, x, &self.router.forward_tensor(x)?)?;
        let Some(SharedExpert { mlp, gate }) = &self.shared else { return stream.add(mixture) };
        let rows = self.device.rows(x)?;
        stream.add(mlp.gated_onto(&mixture, &rows, &gate.forward(&rows)?)?.into_tensor()?)
    }
}
