//! A model's configuration, from `config.json` or from GGUF metadata, validated.
mod demand;
mod generation;
mod gguf;
mod hf;
mod json;
mod pooling;
mod rope;

use crate::error::ModelError;
use attention::{LayerGeometry, LayerId, ModelGeometry, Rope};
use compute::DeltaNetSizes;
use std::path::PathBuf;

pub use generation::GenerationDefaults;
pub(crate) use gguf::{GgufKeys, config_of_gguf};
pub(crate) use hf::config_of_json;
pub(crate) use json::ConfigJson;
pub use pooling::Pooling;

/// The configuration of a decoder's layers, whatever the format of its checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Where the configuration was read, for errors.
    pub(crate) path: PathBuf,
    /// The name that `config.json` gives the model's architecture; the family's own name where it gives none.
    pub model_type: String,
    /// Rows of the embedding; the tokenizer may know fewer tokens.
    pub(crate) vocab_size: usize,
    /// The width of the residual stream.
    pub(crate) hidden_size: usize,
    /// The inner width of dense feed-forward blocks; `None` for some mixtures that have none.
    pub(crate) intermediate_size: Option<usize>,
    pub(crate) num_heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// The longest context in tokens, lengthened by RoPE scaling where that is configured.
    pub max_position_embeddings: usize,
    pub(crate) rms_norm_eps: f64,
    /// Whether the checkpoint stores each norm's weight less 1.
    pub(crate) one_plus_norm: bool,
    /// Whether the embedding is the head too.
    pub(crate) tie_word_embeddings: bool,
    pub(crate) attention_bias: bool,
    pub(crate) mlp_bias: bool,
    /// The kind of each layer.
    pub(crate) layers: Vec<LayerKind>,
    /// Set for families with sparse mixtures.
    pub(crate) experts: Option<Experts>,
    /// Set for families with gated delta nets.
    pub(crate) delta_net: Option<DeltaNetSizes>,
    pub(crate) rope: Rope,
    pub(crate) eos: Vec<u32>,
    /// How the vector of a text is made; the reason, as the rest of a sentence that begins with the model, where its
    /// files do not say that or ask for what is not done here.
    pub pooling: Result<Pooling, String>,
}

/// The way in which a layer mixes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerKind {
    /// Softmax attention.
    Attention {
        /// A token sees at most so many tokens, itself included; all where that is `None`.
        window: Option<usize>,
        /// Whether q and k are rotated by their positions.
        rope: bool,
    },
    /// A recurrence over a state of fixed size.
    Linear,
}

/// Sizes of a sparse mixture's feed-forward blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Experts {
    /// Experts of a layer.
    pub num: usize,
    /// Experts that each token goes through.
    pub per_token: usize,
    pub intermediate_size: usize,
    /// Whether the weights of a token's experts are scaled to a sum of 1.
    pub normalized: bool,
    /// Layers that have a dense feed-forward block instead.
    pub dense_layers: Vec<usize>,
    /// The inner width of a block that every token goes through, where layers have one.
    pub shared_size: Option<usize>,
}

impl ModelConfig {
    /// Leaves q and k of the attention layers for which `has_rope` says no as they are, wherever their tokens stand.
    pub(crate) fn rotate_in(&mut self, has_rope: impl Fn(usize) -> bool) {
        for (layer, kind) in self.layers.iter_mut().enumerate() {
            if let LayerKind::Attention { rope, .. } = kind {
                *rope = has_rope(layer);
            }
        }
    }

    /// Makes all layers but every `interval`-th recurrent.
    pub(crate) fn recur_between(&mut self, interval: usize) {
        let linear = |layer: &usize| !(layer + 1).is_multiple_of(interval);
        (0..self.layers.len()).filter(linear).for_each(|layer| self.layers[layer] = LayerKind::Linear);
    }

    /// Layers of the decoder, of whatever kind.
    pub(crate) fn num_layers(&self) -> usize {
        self.layers.len()
    }

    /// Rows of the embedding and of the head.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Returns the geometry of the layers that own a KV cache, for attention.
    pub(crate) fn geometry(&self) -> ModelGeometry {
        let layers = self.layers.iter().filter_map(|kind| match kind {
            LayerKind::Attention { window, rope } => Some(LayerGeometry {
                num_heads: self.num_heads,
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                scale: 1.0 / (self.head_dim as f32).sqrt(),
                sliding_window: *window,
                rope: rope.then(|| self.rope.clone()),
            }),
            LayerKind::Linear => None,
        });
        ModelGeometry { layers: layers.collect() }
    }

    /// The number of layers before `layer` that are of its kind.
    pub(crate) fn index_of_kind(&self, layer: usize) -> usize {
        let linear = |kind: &LayerKind| *kind == LayerKind::Linear;
        self.layers[..layer].iter().filter(|kind| linear(kind) == linear(&self.layers[layer])).count()
    }

    /// The KV cache of an attention layer.
    pub(crate) fn layer_id(&self, layer: usize) -> LayerId {
        LayerId(self.index_of_kind(layer))
    }

    /// The inner width of a dense feed-forward block.
    ///
    /// Errors: a checkpoint that does not give it.
    pub(crate) fn dense_size(&self) -> Result<usize, ModelError> {
        let size = self.intermediate_size.filter(|size| (1..=1 << 28).contains(size));
        size.ok_or_else(|| {
            let value = self.intermediate_size.map_or("missing".to_owned(), |size| size.to_string());
            let message = format!("is {value}; it must lie in [1, {}]", 1 << 28);
            ModelError::Config { path: self.path.clone(), field: "intermediate_size", message }
        })
    }
}
