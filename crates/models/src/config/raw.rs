//! `config.json` as it is written, before anything is checked.
use crate::error::ModelError;
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
pub(crate) struct Raw {
    pub model_type: Option<String>,
    pub architectures: Option<Vec<String>>,
    pub vocab_size: Option<usize>,
    pub hidden_size: Option<usize>,
    pub intermediate_size: Option<usize>,
    pub num_hidden_layers: Option<usize>,
    pub num_attention_heads: Option<usize>,
    pub num_key_value_heads: Option<usize>,
    pub head_dim: Option<usize>,
    pub max_position_embeddings: Option<usize>,
    pub rms_norm_eps: Option<f64>,
    pub hidden_act: Option<String>,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    #[serde(default)]
    pub attention_bias: bool,
    #[serde(default)]
    pub mlp_bias: bool,
    pub sliding_window: Option<usize>,
    pub use_sliding_window: Option<bool>,
    /// Qwen: layers below this one see everything even where a window is used.
    pub max_window_layers: Option<usize>,
    /// transformers 5 lists what each layer does.
    pub layer_types: Option<Vec<String>>,
    pub full_attention_interval: Option<usize>,
    pub rope_theta: Option<f64>,
    pub rope_scaling: Option<Value>,
    /// transformers 5 writes theta and scaling here.
    pub rope_parameters: Option<Value>,
    pub partial_rotary_factor: Option<f64>,
    pub eos_token_id: Option<Ids>,
    /// Multi-head latent attention.
    pub kv_lora_rank: Option<usize>,
    pub moe_intermediate_size: Option<usize>,
    pub num_experts: Option<usize>,
    /// transformers 5's name of `num_experts`.
    pub num_local_experts: Option<usize>,
    pub num_experts_per_tok: Option<usize>,
    pub norm_topk_prob: Option<bool>,
    pub decoder_sparse_step: Option<usize>,
    pub mlp_only_layers: Option<Vec<usize>>,
    pub linear_key_head_dim: Option<usize>,
    pub linear_value_head_dim: Option<usize>,
    pub linear_num_key_heads: Option<usize>,
    pub linear_num_value_heads: Option<usize>,
    pub linear_conv_kernel_dim: Option<usize>,
}

#[derive(Deserialize, Clone)]
#[serde(untagged)]
pub(crate) enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    pub fn list(self) -> Vec<u32> {
        match self {
            Ids::One(id) => vec![id],
            Ids::Many(ids) => ids,
        }
    }
}

/// Reads the file; of a multimodal wrapper the text part (`text_config`), over what stands beside it. True for a wrapper.
pub(super) fn read(path: &Path) -> Result<(Raw, bool), ModelError> {
    let Value::Object(mut fields) = super::read_json(path)? else {
        return Err(ModelError::file(path, "is not a JSON object"));
    };
    let text = fields.remove("text_config");
    let wrapper = text.is_some();
    if let Some(Value::Object(text)) = text {
        // The wrapper's architectures name the wrapper.
        fields.remove("architectures");
        fields.extend(text.into_iter().filter(|(_, value)| !value.is_null()));
    }
    let raw = serde_json::from_value(Value::Object(fields)).map_err(|e| ModelError::file(path, e))?;
    Ok((raw, wrapper))
}

/// Where a configuration was read, for errors.
pub(super) struct Checker {
    pub path: PathBuf,
}

impl Checker {
    pub fn error(&self, field: &'static str, message: impl Into<String>) -> ModelError {
        ModelError::Config { path: self.path.clone(), field, message: message.into() }
    }

    pub fn size(&self, field: &'static str, value: Option<usize>) -> Result<usize, ModelError> {
        // Larger than any model, and small enough that products of two stay exact.
        self.size_up_to(field, value, 1 << 28)
    }

    pub fn size_up_to(&self, field: &'static str, value: Option<usize>, most: usize) -> Result<usize, ModelError> {
        match value {
            Some(n) if (1..=most).contains(&n) => Ok(n),
            Some(n) => Err(self.error(field, format!("is {n}; it must lie in [1, {most}]"))),
            None => Err(self.error(field, "is missing")),
        }
    }
}
