//! The configuration of a Hugging Face checkpoint, from its `config.json`.
use super::json::ConfigJson;
use super::rope::rope_of_json;
use super::{LayerKind, ModelConfig, Pooling};
use crate::error::ModelError;

/// The configuration of any model: what the fields say that families have in common. `family` stands for a `model_type`
/// that is missing.
///
/// Errors: missing fields, and values that no model can have.
pub(crate) fn config_of_json(json: &ConfigJson, family: &str) -> Result<ModelConfig, ModelError> {
    let hidden_size = json.size("hidden_size")?;
    let num_heads = json.size("num_attention_heads")?;
    let kv_heads = json.size_or("num_key_value_heads", num_heads)?;
    if !num_heads.is_multiple_of(kv_heads) {
        let message = format!("is {kv_heads}; it must divide num_attention_heads, {num_heads}");
        return Err(json.error("num_key_value_heads", message));
    }
    if let Some(act) = json.get::<&str>("hidden_act")?.filter(|act| *act != "silu") {
        return Err(json.error("hidden_act", format!("is {act}; only silu is known")));
    }
    let head_dim = json.get("head_dim")?.or(Some(hidden_size / num_heads));
    let head_dim = json.check_size("head_dim", head_dim, 1 << 16)?;
    let eps = json.get("rms_norm_eps")?.unwrap_or(1e-6);
    if !(eps > 0.0 && eps < 1.0) {
        return Err(json.error("rms_norm_eps", format!("is {eps}; it must lie between 0 and 1")));
    }
    let (rope, context_factor) = rope_of_json(json, head_dim)?;
    let positions = json.size("max_position_embeddings")?;
    Ok(ModelConfig {
        path: json.path.clone(),
        model_type: json.get::<String>("model_type")?.unwrap_or_else(|| family.to_owned()),
        vocab_size: json.size("vocab_size")?,
        hidden_size,
        intermediate_size: json.get("intermediate_size")?,
        num_heads,
        kv_heads,
        head_dim,
        max_position_embeddings: (positions as f64 * context_factor) as usize,
        rms_norm_eps: eps,
        one_plus_norm: false,
        tie_word_embeddings: json.flag("tie_word_embeddings")?,
        attention_bias: json.flag("attention_bias")?,
        mlp_bias: json.flag("mlp_bias")?,
        layers: layers(json)?,
        experts: None,
        delta_net: None,
        rope,
        eos: json.ids("eos_token_id")?.unwrap_or_default(),
        pooling: Pooling::of_folder(json),
    })
}

/// The kind of each layer, from `layer_types` or, in older files, from the fields of the sliding window alone.
fn layers(json: &ConfigJson) -> Result<Vec<LayerKind>, ModelError> {
    let num_layers = json.check_size("num_hidden_layers", json.get("num_hidden_layers")?, 1 << 16)?;
    // Qwen's files give a window's size even where it is not used, and say so in `use_sliding_window`.
    let uses_window = json.get::<bool>("use_sliding_window")?;
    let window = json.positive("sliding_window")?.filter(|_| uses_window.unwrap_or(true));
    let Some(types) = json.get::<Vec<&str>>("layer_types")? else {
        // In Qwen's files, layers below `max_window_layers` see all tokens even where a window is used.
        let first = if uses_window.is_some() { json.get("max_window_layers")?.unwrap_or(0) } else { 0 };
        let kind = |layer: usize| LayerKind::Attention { window: window.filter(|_| layer >= first), rope: true };
        return Ok((0..num_layers).map(kind).collect());
    };
    if types.len() != num_layers {
        let message = format!("has {} entries for num_hidden_layers {num_layers}", types.len());
        return Err(json.error("layer_types", message));
    }
    let layer = |kind: &&str| match (*kind, window) {
        ("full_attention", _) => Ok(LayerKind::Attention { window: None, rope: true }),
        ("sliding_attention", Some(_)) => Ok(LayerKind::Attention { window, rope: true }),
        ("sliding_attention", None) => Err(json.error("sliding_window", "is missing; a layer asks for it")),
        ("linear_attention", _) => Ok(LayerKind::Linear),
        (other, _) => {
            let message = format!("names {other}; known are full_attention, sliding_attention, linear_attention");
            Err(json.error("layer_types", message))
        }
    };
    types.iter().map(layer).collect()
}
