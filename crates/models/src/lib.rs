//! Model families on Candle, one readable file each, and their loader.
//!
//! A family file shows one decoder layer in the textbook order: norm, q k v, RoPE, attention, output projection, norm, MLP.
//! Attention is injected: a model calls [`ForwardContext::attend`] and knows nothing of how K and V are stored.
mod config;
mod error;
mod layers;
mod llama;
mod loader;
mod qwen2;
mod qwen3;
mod qwen3_5;
mod qwen3_moe;

use attention::{ForwardContext, KvMeans, ModelGeometry, StateLayout};
use candle_core::{Result, Tensor};

pub use config::{Experts, GenerationDefaults, LayerKind, LinearAttention, ModelConfig};
pub use error::ModelError;
pub use loader::{Checkpoint, GgufFiles, LoadOptions, LoadedModel, Progress, WeightQuant, load};

/// A decoder-only transformer.
pub trait Model: Send {
    /// What attention has to know: heads, sizes, RoPE.
    fn geometry(&self) -> &ModelGeometry;

    /// What recurrent layers keep of each sequence; empty for a model without such layers.
    fn state_layout(&self) -> &StateLayout;

    fn vocab_size(&self) -> usize;

    /// The bias of the K and V projections, where the model has one: a constant part of every K (before RoPE) and V.
    fn kv_bias(&self) -> Option<KvMeans>;

    /// One step. `tokens`: the ids of all rows of `ctx`'s layout; returns the logits of the rows `logit_rows`:
    /// `[logit_rows.len(), vocab_size]`, f32.
    fn forward(&self, tokens: &[u32], logit_rows: &[u32], ctx: &ForwardContext<'_>) -> Result<Tensor>;
}
