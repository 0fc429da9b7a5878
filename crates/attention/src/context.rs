//! What a model's forward pass is given beside its tokens.
use crate::{AttentionBackend, AttentionPlan, BatchLayout, LayerId, SequenceStates, StateId};
use candle_core::{Result, Tensor, bail};

/// What a model's layers see of a step: attention and recurrent states.
pub struct ForwardContext<'a> {
    backend: &'a dyn AttentionBackend,
    plan: &'a AttentionPlan,
    states: SequenceStates<'a>,
}

impl<'a> ForwardContext<'a> {
    /// `plan` must have been made by `backend`, and `states` have a state slot for each of its sequences if the model
    /// needs them.
    pub fn new(backend: &'a dyn AttentionBackend, plan: &'a AttentionPlan, states: SequenceStates<'a>) -> Self {
        ForwardContext { backend, plan, states }
    }

    /// The step's batch.
    pub fn layout(&self) -> &BatchLayout {
        &self.plan.layout
    }

    /// Applies RoPE to q and k, stores this layer's K and V and attends to all that the cache holds.
    ///
    /// RoPE is the layer's own ([`crate::LayerGeometry::rope`]), so a model passes q and k as they come out of its
    /// projections and norms. `q`: `[num_tokens, num_heads, head_dim]`, `k`, `v`: `[num_tokens, kv_heads, head_dim]`;
    /// returns q's shape.
    pub fn attend(&self, layer: LayerId, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.backend.write(layer, k, v, self.plan)?;
        self.backend.attend(layer, q, self.plan)
    }

    /// Calls `f` with the state that `layer` keeps of the step's sequence `seq`, as the tokens before this step left
    /// it: zeros at the sequence's start. The next step finds what `f` leaves there.
    ///
    /// # Errors
    /// A sequence without rows or state slot, a layer without a state.
    pub fn with_state<R>(&self, seq: usize, layer: StateId, f: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
        let layout = self.layout();
        let (Some(slot), false) = (self.states.slots.get(seq), layout.rows(seq).is_empty()) else {
            bail!("sequence {seq} of the step has no state slot or no tokens")
        };
        let starts = layout.positions[layout.rows(seq).start] == 0;
        self.states.pool.with(*slot, layer, |state| {
            if starts {
                state.fill(0.0);
            }
            f(state)
        })
    }
}
