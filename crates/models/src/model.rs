//! What the engine sees of a model.
use attention::{ForwardContext, ModelGeometry, StateInputs, StateLayout};
use candle_core::{Result, Tensor};

/// A decoder-only transformer.
pub trait Model: Send {
    /// What attention has to know of the layers that own a KV cache: heads, sizes, RoPE.
    fn geometry(&self) -> &ModelGeometry;

    /// The sizes of the states that recurrent layers keep of each sequence; empty for a model without such layers.
    fn state_layout(&self) -> &StateLayout;

    /// How many logits a token has: the rows of the head, which may be more than the tokenizer has tokens.
    fn vocab_size(&self) -> usize;

    /// The biases of the K projections of the layers that own a KV cache, `[layer][kv_heads x head_dim]`, where the
    /// model has them: a constant part of every key before RoPE.
    fn key_bias(&self) -> Option<Vec<Vec<f32>>>;

    /// The width of a hidden state.
    fn hidden_size(&self) -> usize;

    /// Whether the model has a head. Some embedding models have none, and no logits either.
    fn has_head(&self) -> bool;

    /// Computes one step up to the final norm. `tokens` are the ids of all rows of `ctx`'s layout, and `rows` those
    /// whose hidden states are wanted. Returns `[rows.len(), hidden_size]`, f32.
    fn hidden_states(&self, tokens: &[u32], rows: &[u32], ctx: &ForwardContext<'_>) -> Result<Tensor>;

    /// Has the recurrent states of the sequences of `ctx` take in rows of an earlier step again, which are named by
    /// their numbers in it. `inputs`: what was kept of that step.
    ///
    /// Errors: inputs of another model; whatever the device refuses.
    fn replay(&self, inputs: &StateInputs, rows: &[u32], ctx: &ForwardContext<'_>) -> Result<()>;

    /// The logits that follow from hidden states, `[n, hidden_size]`: `[n, vocab_size]`, f32.
    ///
    /// Errors: a model without a head.
    fn logits(&self, hidden_states: &Tensor) -> Result<Tensor>;
}
