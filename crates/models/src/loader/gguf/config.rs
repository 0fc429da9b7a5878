//! The configuration of a model from its GGUF metadata.
use crate::config::rope::{Scaling, Yarn, frequencies};
use crate::config::{Experts, Family, GenerationDefaults, LayerKind, ModelConfig};
use crate::error::ModelError;
use crate::loader::tensors::Tensors;
use attention::Rope;
use gguf::{GgufError, Metadata};
use std::path::Path;

/// Architectures as llama.cpp names them.
const KNOWN: [(&str, Family); 4] =
    [("llama", Family::Llama), ("qwen2", Family::Qwen2), ("qwen3", Family::Qwen3), ("qwen3moe", Family::Qwen3Moe)];

/// Keys below the architecture's name.
struct Keys<'a> {
    architecture: &'a str,
    metadata: &'a Metadata<'a>,
    path: &'a Path,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn error(&self, name: &str, message: String) -> ModelError {
        ModelError::file(self.path, GgufError::Metadata { key: self.key(name), message })
    }

    fn named<T>(&self, value: Result<Option<T>, GgufError>) -> Result<Option<T>, ModelError> {
        value.map_err(|e| ModelError::file(self.path, e))
    }

    fn optional_size(&self, name: &str) -> Result<Option<usize>, ModelError> {
        let value = self.named(self.metadata.optional(&self.key(name), Metadata::size))?;
        // As in `config.json`: larger than any model, and small enough that products of two stay exact.
        const MOST: usize = 1 << 28;
        match value {
            Some(n) if !(1..=MOST).contains(&n) => Err(self.error(name, format!("is {n}; it must lie in [1, {MOST}]"))),
            value => Ok(value),
        }
    }

    fn size(&self, name: &str) -> Result<usize, ModelError> {
        let missing = || ModelError::file(self.path, GgufError::Missing { key: self.key(name) });
        self.optional_size(name)?.ok_or_else(missing)
    }

    fn float(&self, name: &str) -> Result<Option<f64>, ModelError> {
        let value = self.named(self.metadata.optional(&self.key(name), Metadata::float))?;
        match value {
            Some(x) if !x.is_finite() => Err(self.error(name, format!("is {x}; it must be a number"))),
            value => Ok(value),
        }
    }
}

/// Errors: an architecture that is not known, missing keys, values that no model can have.
pub(crate) fn config(metadata: &Metadata<'_>, tensors: &Tensors, path: &Path) -> Result<ModelConfig, ModelError> {
    let architecture = metadata.string("general.architecture").map_err(|e| ModelError::file(path, e))?;
    let keys = Keys { architecture, metadata, path };
    let family = family(&keys)?;
    let (hidden_size, num_heads) = (keys.size("embedding_length")?, keys.size("attention.head_count")?);
    let kv_heads = keys.optional_size("attention.head_count_kv")?.unwrap_or(num_heads);
    if !num_heads.is_multiple_of(kv_heads) {
        let message = format!("is {kv_heads}; it must divide attention.head_count, {num_heads}");
        return Err(keys.error("attention.head_count_kv", message));
    }
    let head_dim = keys.optional_size("attention.key_length")?.unwrap_or(hidden_size / num_heads);
    if let Some(value) = keys.optional_size("attention.value_length")?.filter(|value| *value != head_dim) {
        return Err(keys.error("attention.value_length", format!("is {value}; it must be that of keys, {head_dim}")));
    }
    // Every layer has tensors.
    let num_layers = keys.size("block_count")?;
    if num_layers > tensors.len() {
        return Err(keys.error("block_count", format!("is {num_layers}; there are {} tensors", tensors.len())));
    }
    if head_dim > 1 << 16 {
        return Err(keys.error("attention.key_length", format!("is {head_dim}; it must lie in [1, 65536]")));
    }
    let positions = keys.size("context_length")?;
    let window = keys.optional_size("attention.sliding_window")?;
    let has = |name: &str| tensors.contains_key(name);
    let experts = if family == Family::Qwen3Moe { Some(experts(&keys)?) } else { None };
    Ok(ModelConfig {
        path: path.to_owned(),
        family,
        model_type: family.name().to_owned(),
        vocab_size: vocab_size(&keys, tensors)?,
        hidden_size,
        intermediate_size: match &experts {
            Some(_) => keys.optional_size("feed_forward_length")?.unwrap_or_default(),
            None => keys.size("feed_forward_length")?,
        },
        num_heads,
        kv_heads,
        head_dim,
        max_position_embeddings: positions,
        rms_norm_eps: keys.float("attention.layer_norm_rms_epsilon")?.filter(|e| *e > 0.0).unwrap_or(1e-5),
        tie_word_embeddings: !has("lm_head.weight"),
        attention_bias: has("model.layers.0.self_attn.q_proj.bias"),
        mlp_bias: has("model.layers.0.mlp.gate_proj.bias"),
        layers: vec![LayerKind::Attention { window }; num_layers],
        experts,
        linear_attention: None,
        rope: rope(&keys, tensors, head_dim, positions)?,
        eos: eos(metadata, path)?,
    })
}

fn family(keys: &Keys<'_>) -> Result<Family, ModelError> {
    let (architecture, path) = (keys.architecture, keys.path.to_owned());
    let refuse = |reason: &str| ModelError::Refused {
        path: path.clone(),
        model_type: architecture.to_owned(),
        reason: reason.to_owned(),
    };
    if keys.metadata.get(&keys.key("attention.kv_lora_rank")).is_some() {
        return Err(refuse(
            "its multi-head latent attention (kv_lora_rank) caches one latent vector for all heads, not K and V",
        ));
    }
    let Some((_, family)) = KNOWN.iter().find(|(name, _)| *name == architecture) else {
        let known = KNOWN.map(|(name, _)| name).join(", ");
        return Err(ModelError::UnknownArchitecture { path, architecture: architecture.to_owned(), known });
    };
    if *family != Family::Qwen3Moe && keys.optional_size("expert_count").unwrap_or(None).is_some() {
        return Err(refuse("it is a mixture of experts; of these qwen3moe is known"));
    }
    Ok(*family)
}

fn vocab_size(keys: &Keys<'_>, tensors: &Tensors) -> Result<usize, ModelError> {
    // The embedding may have more rows than the tokenizer tokens.
    let rows = tensors.get("model.embed_tokens.weight").and_then(|e| e.shape.first().copied());
    let tensor = "token_embd.weight".to_owned();
    rows.ok_or_else(|| ModelError::MissingTensor { path: keys.path.to_owned(), tensor })
}

fn experts(keys: &Keys<'_>) -> Result<Experts, ModelError> {
    let (num, per_token) = (keys.size("expert_count")?, keys.size("expert_used_count")?);
    if per_token > num {
        return Err(keys.error("expert_used_count", format!("is {per_token}; there are {num} experts")));
    }
    Ok(Experts {
        num,
        per_token,
        intermediate_size: keys.size("expert_feed_forward_length")?,
        // llama.cpp does so for all of this architecture.
        normalized: true,
        dense_layers: Vec::new(),
    })
}

fn rope(keys: &Keys<'_>, tensors: &Tensors, head_dim: usize, positions: usize) -> Result<Rope, ModelError> {
    let theta = keys.float("rope.freq_base")?.unwrap_or(10_000.0);
    if theta <= 1.0 {
        return Err(keys.error("rope.freq_base", format!("is {theta}; it must be larger than 1")));
    }
    let rotary = keys.optional_size("rope.dimension_count")?.unwrap_or(head_dim);
    if rotary > head_dim || !rotary.is_multiple_of(2) {
        let message = format!("is {rotary}; it must be even and at most the head's {head_dim}");
        return Err(keys.error("rope.dimension_count", message));
    }
    let kind = keys.named(keys.metadata.optional(&keys.key("rope.scaling.type"), Metadata::string))?;
    let factor = || {
        let factor = keys.float("rope.scaling.factor")?.filter(|f| *f > 0.0);
        factor.ok_or_else(|| keys.error("rope.scaling.factor", "must be there and positive".into()))
    };
    let scaling = match kind.unwrap_or("none") {
        "none" => Scaling::None,
        "linear" => Scaling::Linear { factor: factor()? },
        "yarn" => {
            let (factor, original) = (factor()?, keys.optional_size("rope.scaling.original_context_length")?);
            let extra = keys.float("rope.scaling.attn_factor")?.unwrap_or(1.0);
            Scaling::Yarn(Yarn {
                factor,
                original: original.unwrap_or(positions) as f64,
                beta_fast: keys.float("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: keys.float("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                truncate: true,
                attention_factor: extra * Yarn::magnitude(factor, 1.0),
            })
        }
        other => return Err(keys.error("rope.scaling.type", format!("is {other}; known are none, linear, yarn"))),
    };
    let mut rope = frequencies(theta, rotary / 2, &scaling);
    if let Some(entry) = tensors.get("rope_freqs.weight") {
        // llama3 scaling, computed when the file was made.
        let factors = entry.floats(rotary / 2)?;
        rope.inv_freq.iter_mut().zip(factors).for_each(|(f, factor)| *f /= factor);
    }
    Ok(rope)
}

/// End of text, of a turn and of a message.
fn eos(metadata: &Metadata<'_>, path: &Path) -> Result<Vec<u32>, ModelError> {
    let keys = ["eos_token_id", "eot_token_id", "eom_token_id"].map(|name| format!("tokenizer.ggml.{name}"));
    let mut ids = Vec::new();
    for key in keys {
        let id = metadata.optional(&key, Metadata::size).map_err(|e| ModelError::file(path, e))?;
        ids.extend(id.and_then(|id| u32::try_from(id).ok()));
    }
    ids.dedup();
    Ok(ids)
}

/// What newer files say about sampling.
pub(crate) fn generation(metadata: &Metadata<'_>, config: &ModelConfig) -> Result<GenerationDefaults, ModelError> {
    let float = |name: &str| {
        let value = metadata.optional(&format!("general.sampling.{name}"), Metadata::float);
        value.map_err(|e| ModelError::file(&config.path, e))
    };
    Ok(GenerationDefaults {
        eos_token_ids: config.eos.clone(),
        temperature: float("temp")?.map(|x| x as f32),
        top_k: float("top_k")?.map(|x| x as usize),
        top_p: float("top_p")?.map(|x| x as f32),
        min_p: float("min_p")?.map(|x| x as f32),
        repetition_penalty: float("penalty_repeat")?.map(|x| x as f32),
    })
}
