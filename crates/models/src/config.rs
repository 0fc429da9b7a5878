//! `config.json` and `generation_config.json`, validated.
use crate::error::ModelError;
use attention::{LayerGeometry, ModelGeometry, Rope, RopeConvention};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What a dense decoder's `config.json` says, as the families need it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Where it was read, for errors.
    pub(crate) path: PathBuf,
    pub architecture: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    pub tie_word_embeddings: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    /// Window of each layer; `None` sees everything.
    pub sliding_windows: Vec<Option<usize>>,
    pub rope: Rope,
    pub(crate) eos: Vec<u32>,
}

#[derive(Deserialize)]
struct Raw {
    architectures: Option<Vec<String>>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    /// Qwen: layers below this one see everything even where a window is used.
    max_window_layers: Option<usize>,
    /// transformers 5 lists what each layer does.
    layer_types: Option<Vec<String>>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    /// transformers 5 writes theta and scaling here.
    rope_parameters: Option<Value>,
    eos_token_id: Option<Ids>,
}

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    fn list(self) -> Vec<u32> {
        match self {
            Ids::One(id) => vec![id],
            Ids::Many(ids) => ids,
        }
    }
}

/// Sampling and stopping where a request leaves them open.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationDefaults {
    pub eos_token_ids: Vec<u32>,
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
}

impl ModelConfig {
    /// Reads `config.json` of a model folder.
    ///
    /// Errors: a missing or unreadable file, missing fields, values that no model can have.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let raw: Raw = read_json(&path)?;
        let check = Checker { path: &path };
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
        let head_dim = check.size("head_dim", raw.head_dim.or(Some(hidden_size / num_heads)))?;
        let eps = raw.rms_norm_eps.unwrap_or(1e-6);
        if !(eps > 0.0 && eps < 1.0) {
            return Err(check.error("rms_norm_eps", format!("is {eps}; it must lie between 0 and 1")));
        }
        let rope = rope(&raw, head_dim, &check)?;
        let num_layers = check.size("num_hidden_layers", raw.num_hidden_layers)?;
        let sliding_windows = sliding_windows(&raw, num_layers, &check)?;
        let architecture = raw.architectures.into_iter().flatten().next();
        Ok(ModelConfig {
            architecture: architecture.ok_or_else(|| check.error("architectures", "is missing".into()))?,
            vocab_size: check.size("vocab_size", raw.vocab_size)?,
            hidden_size,
            intermediate_size: check.size("intermediate_size", raw.intermediate_size)?,
            num_layers,
            num_heads,
            kv_heads,
            head_dim,
            max_position_embeddings: check.size("max_position_embeddings", raw.max_position_embeddings)?,
            rms_norm_eps: eps,
            tie_word_embeddings: raw.tie_word_embeddings,
            attention_bias: raw.attention_bias,
            mlp_bias: raw.mlp_bias,
            sliding_windows,
            rope,
            eos: raw.eos_token_id.map(Ids::list).unwrap_or_default(),
            path,
        })
    }

    /// A dense decoder: every layer owns a KV cache.
    pub fn geometry(&self) -> ModelGeometry {
        let layer = |window: &Option<usize>| LayerGeometry {
            num_heads: self.num_heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            sliding_window: *window,
        };
        ModelGeometry { layers: self.sliding_windows.iter().map(layer).collect(), rope: self.rope.clone() }
    }
}

fn sliding_windows(raw: &Raw, num_layers: usize, check: &Checker<'_>) -> Result<Vec<Option<usize>>, ModelError> {
    // Qwen writes a window's size even where it is not used, and says so beside it.
    let window = raw.sliding_window.filter(|_| raw.use_sliding_window.unwrap_or(true));
    let Some(types) = &raw.layer_types else {
        let first = if raw.use_sliding_window.is_some() { raw.max_window_layers.unwrap_or(0) } else { 0 };
        return Ok((0..num_layers).map(|layer| window.filter(|_| layer >= first)).collect());
    };
    if types.len() != num_layers {
        let message = format!("has {} entries for num_hidden_layers {num_layers}", types.len());
        return Err(check.error("layer_types", message));
    }
    let layer = |kind: &String| match (kind.as_str(), window) {
        ("full_attention", _) => Ok(None),
        ("sliding_attention", Some(window)) => Ok(Some(window)),
        ("sliding_attention", None) => Err(check.error("sliding_window", "is missing; a layer asks for it".into())),
        (other, _) => {
            Err(check.error("layer_types", format!("names {other}; known are full_attention, sliding_attention")))
        }
    };
    types.iter().map(layer).collect()
}

struct Checker<'a> {
    path: &'a Path,
}

impl Checker<'_> {
    fn error(&self, field: &'static str, message: String) -> ModelError {
        ModelError::Config { path: self.path.to_owned(), field, message }
    }

    fn size(&self, field: &'static str, value: Option<usize>) -> Result<usize, ModelError> {
        // Larger than any model, and small enough that products of two stay exact.
        const MOST: usize = 1 << 28;
        match value {
            Some(n) if (1..=MOST).contains(&n) => Ok(n),
            Some(n) => Err(self.error(field, format!("is {n}; it must lie in [1, {MOST}]"))),
            None => Err(self.error(field, "is missing".into())),
        }
    }
}

/// Frequencies of the RoPE pairs, with context scaling as `transformers` computes it.
fn rope(raw: &Raw, head_dim: usize, check: &Checker<'_>) -> Result<Rope, ModelError> {
    let scaling = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref()).unwrap_or(&Value::Null);
    let number = |name: &str| scaling.get(name).and_then(Value::as_f64);
    let theta = raw.rope_theta.or_else(|| number("rope_theta")).unwrap_or(10_000.0);
    if !(theta.is_finite() && theta > 1.0) {
        return Err(check.error("rope_theta", format!("is {theta}; it must be larger than 1")));
    }
    if !head_dim.is_multiple_of(2) {
        return Err(check.error("head_dim", format!("is {head_dim}; RoPE needs an even number")));
    }
    // f32 throughout, as the models were trained: the angle of a far position differs otherwise.
    let mut inv_freq: Vec<f32> =
        (0..head_dim / 2).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32)).collect();
    let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str).unwrap_or("default");
    match kind {
        "default" => {}
        "linear" => {
            let factor = number("factor").ok_or_else(|| check.error("rope_scaling", "has no factor".into()))? as f32;
            inv_freq.iter_mut().for_each(|f| *f /= factor);
        }
        "llama3" => llama3_scaling(&mut inv_freq, &number, check)?,
        other => {
            return Err(check.error("rope_scaling", format!("is of type {other}; known are default, linear, llama3")));
        }
    }
    Ok(Rope { inv_freq, convention: RopeConvention::Half, attention_factor: 1.0 })
}

/// Llama 3.1's scaling: slow frequencies divided by `factor`, fast ones kept, a blend between
/// (`transformers`, `modeling_rope_utils._compute_llama3_parameters`).
fn llama3_scaling(
    inv_freq: &mut [f32],
    number: &impl Fn(&str) -> Option<f64>,
    check: &Checker<'_>,
) -> Result<(), ModelError> {
    let need = |name: &str| {
        let value = number(name).filter(|v| v.is_finite() && *v > 0.0);
        value.map(|v| v as f32).ok_or_else(|| check.error("rope_scaling", format!("needs a positive {name}")))
    };
    let (factor, low, high) = (need("factor")?, need("low_freq_factor")?, need("high_freq_factor")?);
    let context = need("original_max_position_embeddings")?;
    for f in inv_freq {
        let wavelen = 2.0 * std::f32::consts::PI / *f;
        if wavelen > context / low {
            *f /= factor;
        } else if wavelen >= context / high {
            let smooth = (context / wavelen - low) / (high - low);
            *f = (1.0 - smooth) * *f / factor + smooth * *f;
        }
    }
    Ok(())
}

impl GenerationDefaults {
    /// Reads `generation_config.json` if there is one; EOS ids otherwise come from `config.json`.
    pub fn read(folder: &Path, config: &ModelConfig) -> Result<Self, ModelError> {
        #[derive(Deserialize, Default)]
        struct Raw {
            eos_token_id: Option<Ids>,
            do_sample: Option<bool>,
            temperature: Option<f32>,
            top_k: Option<usize>,
            top_p: Option<f32>,
            min_p: Option<f32>,
            repetition_penalty: Option<f32>,
        }
        let path = folder.join("generation_config.json");
        let raw: Raw = if path.exists() { read_json(&path)? } else { Raw::default() };
        let greedy = raw.do_sample == Some(false);
        Ok(GenerationDefaults {
            eos_token_ids: raw.eos_token_id.map(Ids::list).unwrap_or_else(|| config.eos.clone()),
            temperature: if greedy { Some(0.0) } else { raw.temperature },
            top_k: raw.top_k,
            top_p: raw.top_p,
            min_p: raw.min_p,
            repetition_penalty: raw.repetition_penalty,
        })
    }
}

pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, ModelError> {
    let text = std::fs::read_to_string(path).map_err(|e| ModelError::file(path, e))?;
    serde_json::from_str(&text).map_err(|e| ModelError::file(path, e))
}
