//! A model that does something before each of its steps.
use attention::{ForwardContext, ModelGeometry, StateInputs, StateLayout};
use candle_core::{Result, Tensor};
use engine::{EngineConfig, EngineHandle, ModelBundle, launch, load};
use models::Model;
use std::thread::JoinHandle;

/// A model that calls a function with the tokens of each step before it computes them.
struct WrappedModel<F>(Box<dyn Model>, F);

impl<F: Fn(&[u32]) -> Result<()> + Send + Sync> Model for WrappedModel<F> {
    fn geometry(&self) -> &ModelGeometry {
        self.0.geometry()
    }

    fn state_layout(&self) -> &StateLayout {
        self.0.state_layout()
    }

    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    fn key_bias(&self) -> Option<Vec<Vec<f32>>> {
        self.0.key_bias()
    }

    fn hidden_size(&self) -> usize {
        self.0.hidden_size()
    }

    fn has_head(&self) -> bool {
        self.0.has_head()
    }

    fn hidden_states(&self, tokens: &[u32], rows: &[u32], ctx: &ForwardContext<'_>) -> Result<Tensor> {
        (self.1)(tokens)?;
        self.0.hidden_states(tokens, rows, ctx)
    }

    fn replay(&self, inputs: &StateInputs, rows: &[u32], ctx: &ForwardContext<'_>) -> Result<()> {
        self.0.replay(inputs, rows, ctx)
    }

    fn logits(&self, hidden_states: &Tensor) -> Result<Tensor> {
        self.0.logits(hidden_states)
    }
}

/// An engine whose model calls `before` with the tokens of each step. A step fails where that fails.
pub fn launch_wrapped(
    config: &EngineConfig,
    before: impl Fn(&[u32]) -> Result<()> + Send + Sync + 'static,
) -> (EngineHandle, JoinHandle<()>) {
    launch(config, load_wrapped(config, before)).unwrap()
}

/// A loaded model that calls `before` with the tokens of each step.
pub fn load_wrapped(
    config: &EngineConfig,
    before: impl Fn(&[u32]) -> Result<()> + Send + Sync + 'static,
) -> ModelBundle {
    let mut loaded = load(config).unwrap();
    loaded.model = Box::new(WrappedModel(loaded.model, before));
    loaded
}
