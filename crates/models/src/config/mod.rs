//! `config.json` and `generation_config.json`, validated.
mod family;
mod generation;
mod raw;
pub(crate) mod rope;

use crate::error::ModelError;
use attention::{LayerGeometry, LayerId, ModelGeometry, Rope};
use raw::{Checker, Ids, Raw};
use serde::Deserialize;
use std::path::{Path, PathBuf};

pub(crate) use family::Family;
pub use generation::GenerationDefaults;

/// What a decoder's `config.json` says, as the families need it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Where it was read, for errors.
    pub(crate) path: PathBuf,
    pub(crate) family: Family,
    /// As `config.json` names it; the family's where it names none.
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    /// Of dense feed-forward layers.
    pub intermediate_size: usize,
    pub num_heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    pub tie_word_embeddings: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    pub layers: Vec<LayerKind>,
    pub experts: Option<Experts>,
    pub linear_attention: Option<LinearAttention>,
    pub rope: Rope,
    pub(crate) eos: Vec<u32>,
}

/// What a layer mixes tokens with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// Softmax attention; `None` sees everything.
    Attention { window: Option<usize> },
    /// A recurrence over a state of fixed size.
    Linear,
}

/// Of a sparse mixture's feed-forward layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experts {
    pub num: usize,
    /// Experts of each token.
    pub per_token: usize,
    pub intermediate_size: usize,
    /// Whether the weights of a token's experts sum to 1.
    pub normalized: bool,
    /// Layers with a dense feed-forward block instead.
    pub dense_layers: Vec<usize>,
}

/// Sizes of gated-delta-net layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearAttention {
    pub key_heads: usize,
    pub value_heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    /// Tokens that the convolution sees.
    pub conv_kernel: usize,
}

impl ModelConfig {
    /// Reads `config.json` of a model folder; of a multimodal wrapper its text part.
    ///
    /// Errors: a missing or unreadable file, missing fields, values that no model can have, an architecture that is not known or
    /// cannot be served.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let (raw, wrapper) = raw::read(&path)?;
        let check = Checker { path: path.clone() };
        let family = Family::of(&raw, wrapper, &path)?;
        if wrapper {
            tracing::info!("{}: a multimodal model, of which the text part is served", path.display());
        }
        let hidden_size = check.size("hidden_size", raw.hidden_size)?;
        let num_heads = check.size("num_attention_heads", raw.num_attention_heads)?;
        let kv_heads = check.size("num_key_value_heads", raw.num_key_value_heads.or(Some(num_heads)))?;
        if !num_heads.is_multiple_of(kv_heads) {
            let message = format!("is {kv_heads}; it must divide num_attention_heads, {num_heads}");
            return Err(check.error("num_key_value_heads", message));
        }
        if let Some(act) = raw.hidden_act.as_deref().filter(|act| *act != "silu") {
            return Err(check.error("hidden_act", format!("is {act}; only silu is known")));
        }
        let head_dim = check.size_up_to("head_dim", raw.head_dim.or(Some(hidden_size / num_heads)), 1 << 16)?;
        let eps = raw.rms_norm_eps.unwrap_or(1e-6);
        if !(eps > 0.0 && eps < 1.0) {
            return Err(check.error("rms_norm_eps", format!("is {eps}; it must lie between 0 and 1")));
        }
        let (rope, longer) = rope::rope(&raw, head_dim, &check)?;
        let layers = layers(&raw, family, &check)?;
        let experts = if family == Family::Qwen3Moe { Some(experts(&raw, layers.len(), &check)?) } else { None };
        let hybrid = layers.contains(&LayerKind::Linear);
        let positions = check.size("max_position_embeddings", raw.max_position_embeddings)?;
        Ok(ModelConfig {
            family,
            model_type: raw.model_type.clone().unwrap_or_else(|| family.name().to_owned()),
            vocab_size: check.size("vocab_size", raw.vocab_size)?,
            hidden_size,
            intermediate_size: match &experts {
                Some(experts) if experts.dense_layers.is_empty() => raw.intermediate_size.unwrap_or_default(),
                _ => check.size("intermediate_size", raw.intermediate_size)?,
            },
            num_heads,
            kv_heads,
            head_dim,
            max_position_embeddings: (positions as f64 * longer) as usize,
            rms_norm_eps: eps,
            tie_word_embeddings: raw.tie_word_embeddings,
            attention_bias: raw.attention_bias,
            mlp_bias: raw.mlp_bias,
            layers,
            experts,
            linear_attention: if hybrid { Some(linear_attention(&raw, &check)?) } else { None },
            rope,
            eos: raw.eos_token_id.map(Ids::list).unwrap_or_default(),
            path,
        })
    }

    /// The layers that own a KV cache.
    pub fn geometry(&self) -> ModelGeometry {
        let layers = self.layers.iter().filter_map(|kind| match kind {
            LayerKind::Attention { window } => Some(LayerGeometry {
                num_heads: self.num_heads,
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                scale: 1.0 / (self.head_dim as f32).sqrt(),
                sliding_window: *window,
            }),
            LayerKind::Linear => None,
        });
        ModelGeometry { layers: layers.collect(), rope: self.rope.clone() }
    }

    /// Layer `layer`'s place among those of its kind that come before it.
    pub(crate) fn index_of_kind(&self, layer: usize) -> usize {
        let linear = |kind: &LayerKind| *kind == LayerKind::Linear;
        self.layers[..layer].iter().filter(|kind| linear(kind) == linear(&self.layers[layer])).count()
    }

    /// The KV cache of an attention layer.
    pub(crate) fn layer_id(&self, layer: usize) -> LayerId {
        LayerId(self.index_of_kind(layer))
    }
}

fn layers(raw: &Raw, family: Family, check: &Checker) -> Result<Vec<LayerKind>, ModelError> {
    let num_layers = check.size_up_to("num_hidden_layers", raw.num_hidden_layers, 1 << 16)?;
    // Qwen writes a window's size even where it is not used, and says so beside it.
    let window = raw.sliding_window.filter(|_| raw.use_sliding_window.unwrap_or(true));
    if window == Some(0) {
        return Err(check.error("sliding_window", "is 0; it must be at least 1"));
    }
    let hybrid = family == Family::Qwen35;
    let Some(types) = &raw.layer_types else {
        let first = if raw.use_sliding_window.is_some() { raw.max_window_layers.unwrap_or(0) } else { 0 };
        let interval =
            if hybrid { check.size("full_attention_interval", raw.full_attention_interval.or(Some(4)))? } else { 1 };
        let kind = |layer: usize| match (layer + 1).is_multiple_of(interval) {
            true => LayerKind::Attention { window: window.filter(|_| layer >= first) },
            false => LayerKind::Linear,
        };
        return Ok((0..num_layers).map(kind).collect());
    };
    if types.len() != num_layers {
        let message = format!("has {} entries for num_hidden_layers {num_layers}", types.len());
        return Err(check.error("layer_types", message));
    }
    let layer = |kind: &String| match (kind.as_str(), window) {
        ("full_attention", _) => Ok(LayerKind::Attention { window: None }),
        ("sliding_attention", Some(_)) => Ok(LayerKind::Attention { window }),
        ("sliding_attention", None) => Err(check.error("sliding_window", "is missing; a layer asks for it")),
        ("linear_attention", _) if hybrid => Ok(LayerKind::Linear),
        (other, _) => {
            let linear = if hybrid { ", linear_attention" } else { "" };
            let message = format!("names {other}; known are full_attention, sliding_attention{linear}");
            Err(check.error("layer_types", message))
        }
    };
    types.iter().map(layer).collect()
}

fn experts(raw: &Raw, num_layers: usize, check: &Checker) -> Result<Experts, ModelError> {
    let num = check.size("num_experts", raw.num_experts.or(raw.num_local_experts))?;
    let per_token = check.size("num_experts_per_tok", raw.num_experts_per_tok)?;
    if per_token > num {
        return Err(check.error("num_experts_per_tok", format!("is {per_token}; there are {num} experts")));
    }
    let step = check.size("decoder_sparse_step", raw.decoder_sparse_step.or(Some(1)))?;
    let named = raw.mlp_only_layers.clone().unwrap_or_default();
    let dense = |layer: &usize| named.contains(layer) || !(layer + 1).is_multiple_of(step);
    Ok(Experts {
        num,
        per_token,
        intermediate_size: check.size("moe_intermediate_size", raw.moe_intermediate_size)?,
        normalized: raw.norm_topk_prob.unwrap_or(false),
        dense_layers: (0..num_layers).filter(dense).collect(),
    })
}

fn linear_attention(raw: &Raw, check: &Checker) -> Result<LinearAttention, ModelError> {
    let sizes = LinearAttention {
        key_heads: check.size("linear_num_key_heads", raw.linear_num_key_heads)?,
        value_heads: check.size("linear_num_value_heads", raw.linear_num_value_heads)?,
        key_dim: check.size("linear_key_head_dim", raw.linear_key_head_dim)?,
        value_dim: check.size("linear_value_head_dim", raw.linear_value_head_dim)?,
        conv_kernel: check.size("linear_conv_kernel_dim", raw.linear_conv_kernel_dim)?,
    };
    if !sizes.value_heads.is_multiple_of(sizes.key_heads) {
        let message = format!("is {}; it must divide linear_num_value_heads, {}", sizes.key_heads, sizes.value_heads);
        return Err(check.error("linear_num_key_heads", message));
    }
    Ok(sizes)
}

pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, ModelError> {
    let text = std::fs::read_to_string(path).map_err(|e| ModelError::file(path, e))?;
    serde_json::from_str(&text).map_err(|e| ModelError::file(path, e))
}

#[cfg(test)]
mod tests;
