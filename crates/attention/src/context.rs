//! What a model's forward pass is given beside its tokens.
use crate::{AttentionBackend, AttentionPlan, BatchLayout, LayerId};
use candle_core::{Result, Tensor};

pub struct ForwardContext<'a> {
    backend: &'a dyn AttentionBackend,
    plan: &'a AttentionPlan,
}

impl<'a> ForwardContext<'a> {
    pub fn new(backend: &'a dyn AttentionBackend, plan: &'a AttentionPlan) -> Self {
        ForwardContext { backend, plan }
    }

    pub fn layout(&self) -> &BatchLayout {
        &self.plan.layout
    }

    /// Stores this layer's K and V and attends to all that the cache holds.
    /// `q`: `[num_tokens, num_heads, head_dim]`, `k`, `v`: `[num_tokens, kv_heads, head_dim]`; returns q's shape.
    pub fn attend(&self, layer: LayerId, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.backend.write(layer, k, v, self.plan)?;
        self.backend.attend(layer, q, self.plan)
    }

    /// Attends to the cache of another layer, which has written this step's tokens before (shared KV).
    pub fn attend_shared(&self, owner: LayerId, q: &Tensor) -> Result<Tensor> {
        self.backend.attend(owner, q, self.plan)
    }
}
