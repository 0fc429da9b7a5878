//! What a model's forward pass is given beside its tokens.
use crate::states::CpuStates;
use crate::{AttentionBackend, AttentionPlan, BatchLayout, LayerId, SequenceStates, StateId};
use candle_core::{Result, Tensor, bail};
use std::any::Any;
use std::sync::OnceLock;

/// What a model's layers see of a step: attention and recurrent states.
pub struct ForwardContext<'a> {
    backend: &'a dyn AttentionBackend,
    plan: &'a AttentionPlan,
    states: SequenceStates<'a>,
    /// What a device has made of the step's sequences.
    sequences: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl<'a> ForwardContext<'a> {
    /// `plan` must have been made by `backend`, and `states` have a state slot for each of its sequences if the model
    /// needs them.
    pub fn new(backend: &'a dyn AttentionBackend, plan: &'a AttentionPlan, states: SequenceStates<'a>) -> Self {
        ForwardContext { backend, plan, states, sequences: OnceLock::new() }
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

    /// Where the states of the step's sequences lie.
    pub fn states(&self) -> SequenceStates<'a> {
        self.states
    }

    /// The state slot of the step's sequence `seq`, and whether the sequence starts in this step, so that the slot's
    /// content is another one's.
    ///
    /// # Errors
    /// A sequence without rows, or without a state slot of the pool.
    pub fn state_slot(&self, seq: usize) -> Result<(u32, bool)> {
        let layout = self.layout();
        let (Some(slot), false) = (self.states.slots.get(seq), layout.rows(seq).is_empty()) else {
            bail!("sequence {seq} of the step has no state slot or no tokens")
        };
        self.states.pool.check(*slot)?;
        Ok((*slot, layout.positions[layout.rows(seq).start] == 0))
    }

    /// What `make` makes of the step's sequences: made for the first layer that asks, and kept for those after it.
    ///
    /// # Errors
    /// Whatever `make` says; what was made for another type.
    pub fn once_a_step<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> Result<T>) -> Result<&T> {
        let made = match self.sequences.get() {
            Some(made) => made,
            None => {
                let made = Box::new(make()?);
                self.sequences.get_or_init(|| made)
            }
        };
        match made.downcast_ref() {
            Some(made) => Ok(made),
            None => bail!("two devices compute one step"),
        }
    }

    /// Calls `f` with the state that `layer` keeps of the step's sequence `seq` in the CPU's memory, as the tokens
    /// before this step left it: zeros at the sequence's start. The next step finds what `f` leaves there.
    ///
    /// # Errors
    /// As [`ForwardContext::state_slot`]; a layer without a state, states of another device.
    pub fn with_state<R>(&self, seq: usize, layer: StateId, f: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
        let (slot, starts) = self.state_slot(seq)?;
        self.states.pool.memory::<CpuStates>()?.with(slot, layer, |state| {
            if starts {
                state.fill(0.0);
            }
            f(state)
        })
    }
}
