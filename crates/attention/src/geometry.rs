//! What attention has to know of a model.

/// A layer that owns a KV cache.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerGeometry {
    pub num_heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Multiplies the logits; 1 / sqrt(head_dim) unless the model says otherwise.
    pub scale: f32,
    /// A token sees at most this many tokens, itself included.
    pub sliding_window: Option<usize>,
}

impl LayerGeometry {
    /// Query heads of each kv head.
    pub fn group(&self) -> usize {
        self.num_heads / self.kv_heads
    }
}

/// Which elements of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeConvention {
    /// Element i with i + rotary_dim / 2 (GPT-NeoX, all Hugging Face Llama and Qwen models).
    Half,
    /// Element 2i with 2i + 1 (the original Llama, GGUF files).
    Interleaved,
}

/// Rotary position embedding: pair i turns by `position * inv_freq[i]` radians, both factors and their product in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// One a pair, context scaling included; 2 x len elements of each head turn, the rest do not.
    pub inv_freq: Vec<f32>,
    pub convention: RopeConvention,
    /// Cosines and sines are multiplied by this (YaRN's attention factor).
    pub attention_factor: f32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ModelGeometry {
    /// The layers that own a KV cache, in order; [`crate::LayerId`] counts these.
    pub layers: Vec<LayerGeometry>,
    pub rope: Rope,
}
