//! Reading the metadata of a GGUF file. The keys are those of llama.cpp (`gguf-py/gguf/constants.py`).
use super::pooling::bidirectional_reason;
use super::rope::{Scaling, Yarn, frequencies};
use super::{LayerKind, ModelConfig, Pooling};
use crate::checkpoint::{Tensors, size_of_layers};
use crate::error::ModelError;
use attention::Rope;
use gguf::{GgufError, Metadata, Value};
use std::path::Path;

/// The metadata of a file; keys are named without the architecture that they begin with.
pub(crate) struct GgufKeys<'a> {
    pub architecture: &'a str,
    metadata: &'a Metadata<'a>,
    /// Where the file lies, for errors.
    pub path: &'a Path,
}

impl<'a> GgufKeys<'a> {
    /// Errors: a file that does not name its architecture.
    pub fn new(metadata: &'a Metadata<'a>, path: &'a Path) -> Result<Self, ModelError> {
        let architecture = metadata.string("general.architecture").map_err(|e| ModelError::file(path, e))?;
        Ok(GgufKeys { architecture, metadata, path })
    }

    /// Whether there is such a key, of any type.
    pub fn has(&self, name: &str) -> bool {
        self.metadata.get(&self.key(name)).is_some()
    }

    /// The value of a key, whatever its type.
    pub fn value(&self, name: &str) -> Option<Value<'a>> {
        self.metadata.get(&self.key(name)).copied()
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// An error about a key. `message` continues the sentence that the key begins.
    pub fn error(&self, name: &str, message: String) -> ModelError {
        ModelError::file(self.path, GgufError::Metadata { key: self.key(name), message })
    }

    fn named<T>(&self, value: Result<Option<T>, GgufError>) -> Result<Option<T>, ModelError> {
        value.map_err(|e| ModelError::file(self.path, e))
    }

    /// A size from 1 to 2^28, or `None` where the key is missing: no model is larger, and products of two such sizes
    /// stay exact.
    pub fn optional_size(&self, name: &str) -> Result<Option<usize>, ModelError> {
        let value = self.named(self.metadata.optional(&self.key(name), size_of_layers))?;
        const MOST: usize = 1 << 28;
        match value {
            Some(n) if !(1..=MOST).contains(&n) => Err(self.error(name, format!("is {n}; it must lie in [1, {MOST}]"))),
            value => Ok(value),
        }
    }

    /// [`Self::optional_size`], or `None` where the value is 0 or less, by which some files mean that there is none.
    fn size_above_zero(&self, name: &str) -> Result<Option<usize>, ModelError> {
        match self.metadata.get(&self.key(name)).and_then(Value::as_f64) {
            Some(n) if n <= 0.0 => {
                tracing::info!("{}: {} is {n}, which is read as none", self.path.display(), self.key(name));
                Ok(None)
            }
            _ => self.optional_size(name),
        }
    }

    /// [`Self::optional_size`] of a key that must be there.
    pub fn size(&self, name: &str) -> Result<usize, ModelError> {
        let missing = || ModelError::file(self.path, GgufError::Missing { key: self.key(name) });
        self.optional_size(name)?.ok_or_else(missing)
    }

    /// A finite number, or `None` where the key is missing.
    fn float(&self, name: &str) -> Result<Option<f64>, ModelError> {
        let value = self.named(self.metadata.optional(&self.key(name), Metadata::float))?;
        match value {
            Some(x) if !x.is_finite() => Err(self.error(name, format!("is {x}; it must be a number"))),
            value => Ok(value),
        }
    }
}

/// The configuration of any model: what the metadata and the tensors say that families have in common. `tensors` have
/// the names of Hugging Face's checkpoints; `family` is the model type.
///
/// Errors: missing keys, and values that no model can have.
pub(crate) fn config_of_gguf(keys: &GgufKeys<'_>, tensors: &Tensors, family: &str) -> Result<ModelConfig, ModelError> {
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
    if !(1..=1 << 16).contains(&head_dim) {
        return Err(keys.error("attention.key_length", format!("is {head_dim}; it must lie in [1, 65536]")));
    }
    // Every layer has tensors. Those that predict further tokens follow the decoder's, which does without them.
    let all_layers = keys.size("block_count")?;
    if all_layers > tensors.len() {
        return Err(keys.error("block_count", format!("is {all_layers}; there are {} tensors", tensors.len())));
    }
    let predicting = keys.size_above_zero("nextn_predict_layers")?.unwrap_or(0);
    let Some(num_layers) = all_layers.checked_sub(predicting).filter(|n| *n > 0) else {
        let message = format!("is {predicting}; there are {all_layers} layers");
        return Err(keys.error("nextn_predict_layers", message));
    };
    let positions = keys.size("context_length")?;
    let window = keys.size_above_zero("attention.sliding_window")?;
    let has = |name: &str| tensors.contains_key(name);
    Ok(ModelConfig {
        path: keys.path.to_owned(),
        model_type: family.to_owned(),
        vocab_size: vocab_size(keys, tensors)?,
        hidden_size,
        intermediate_size: keys.optional_size("feed_forward_length")?,
        num_heads,
        kv_heads,
        head_dim,
        max_position_embeddings: positions,
        rms_norm_eps: keys.float("attention.layer_norm_rms_epsilon")?.filter(|e| *e > 0.0).unwrap_or(1e-5),
        // llama.cpp's converter adds the 1 to the weights of the families that store them less 1.
        one_plus_norm: false,
        tie_word_embeddings: !has("lm_head.weight"),
        attention_bias: has("model.layers.0.self_attn.q_proj.bias"),
        mlp_bias: has("model.layers.0.mlp.gate_proj.bias"),
        layers: vec![LayerKind::Attention { window, rope: true }; num_layers],
        experts: None,
        delta_net: None,
        rope: rope(keys, tensors, head_dim, positions)?,
        eos: eos(keys),
        pooling: pooling(keys),
    })
}

fn vocab_size(keys: &GgufKeys<'_>, tensors: &Tensors) -> Result<usize, ModelError> {
    // The embedding may have more rows than the tokenizer has tokens.
    let rows = tensors.get("model.embed_tokens.weight").and_then(|e| e.shape.first().copied());
    let tensor = "token_embd.weight".to_owned();
    rows.ok_or_else(|| ModelError::MissingTensor { path: keys.path.to_owned(), tensor })
}

fn rope(keys: &GgufKeys<'_>, tensors: &Tensors, head_dim: usize, positions: usize) -> Result<Rope, ModelError> {
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
    let (mut inv_freq, attention_factor) = frequencies(theta, rotary / 2, &scaling);
    if let Some(entry) = tensors.get("rope_freqs.weight") {
        // llama3 scaling, computed when the file was made.
        let factors = entry.floats(rotary / 2)?;
        inv_freq.iter_mut().zip(factors).for_each(|(f, factor)| *f /= factor);
    }
    let error = |e| keys.error("rope.freq_base", format!("and what scales it give no RoPE: {e}"));
    Rope::new(inv_freq, attention_factor).map_err(error)
}

/// How the vector of a text is made.
///
/// Errors: the reason why there is no pooling, as the rest of a sentence that begins with the model.
fn pooling(keys: &GgufKeys<'_>) -> Result<Pooling, String> {
    let key = format!("{}.pooling_type", keys.architecture);
    let Some(value) = keys.value("pooling_type") else {
        return Err(format!("has no {key} in its GGUF file, which tells how the vector of a text is made"));
    };
    let pooling = match value.as_u64() {
        Some(1) => Pooling::Mean,
        Some(2) => Pooling::First,
        Some(3) => Pooling::Last,
        _ => return Err(format!("has {key} {value}; known are 1 (mean), 2 (first token) and 3 (last token)")),
    };
    if let Some(Value::Bool(false)) = keys.value("attention.causal") {
        return Err(bidirectional_reason(&format!("{}.attention.causal is false", keys.architecture)));
    }
    Ok(pooling)
}

/// The ids of the tokens that end a text, a turn and a message. A value that is no id, such as -1, is left out.
fn eos(keys: &GgufKeys<'_>) -> Vec<u32> {
    let mut ids = Vec::new();
    for name in ["eos_token_id", "eot_token_id", "eom_token_id"] {
        let key = format!("tokenizer.ggml.{name}");
        let Some(value) = keys.metadata.get(&key) else { continue };
        match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(id) => ids.push(id),
            None => tracing::info!("{}: {key} is {value}, which is no token id; it is left out", keys.path.display()),
        }
    }
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::GenerationDefaults;
    use gguf::Gguf;

    /// The types of metadata values, as a GGUF file numbers them.
    const U32: u32 = 4;
    const I32: u32 = 5;
    const STRING: u32 = 8;
    const ARRAY: u32 = 9;

    /// A file without tensors.
    fn file(entries: &[(&str, u32, Vec<u8>)]) -> Vec<u8> {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes()].concat();
        bytes.extend((entries.len() as u64 + 1).to_le_bytes());
        let architecture = ("general.architecture", STRING, text("llama"));
        for (key, kind, value) in [architecture].iter().chain(entries) {
            bytes.extend([text(key), kind.to_le_bytes().to_vec(), value.clone()].concat());
        }
        bytes
    }

    fn list(sizes: &[u32]) -> Vec<u8> {
        let head = [&U32.to_le_bytes()[..], &(sizes.len() as u64).to_le_bytes()].concat();
        sizes.iter().fold(head, |mut bytes, size| {
            bytes.extend(size.to_le_bytes());
            bytes
        })
    }

    #[test]
    fn odd_values_of_gguf_files_are_read_as_none() {
        let bytes = file(&[
            ("llama.attention.head_count_kv", ARRAY, list(&[2, 2, 2])),
            ("llama.attention.head_count", ARRAY, list(&[4, 8])),
            ("llama.attention.sliding_window", U32, 0u32.to_le_bytes().to_vec()),
            ("llama.block_count", U32, 0u32.to_le_bytes().to_vec()),
            ("tokenizer.ggml.eos_token_id", I32, (-1i32).to_le_bytes().to_vec()),
            ("tokenizer.ggml.eot_token_id", U32, 7u32.to_le_bytes().to_vec()),
        ]);
        let metadata = Gguf::parse(&bytes).unwrap().metadata;
        let keys = GgufKeys::new(&metadata, Path::new("odd.gguf")).unwrap();
        assert_eq!(keys.optional_size("attention.head_count_kv").unwrap(), Some(2));
        let unlike = keys.optional_size("attention.head_count").unwrap_err().to_string();
        assert!(unlike.contains("odd.gguf") && unlike.contains("llama.attention.head_count is a list"), "{unlike}");
        assert_eq!(keys.size_above_zero("attention.sliding_window").unwrap(), None);
        assert_eq!(keys.size_above_zero("no.such.key").unwrap(), None);
        assert!(keys.size("block_count").unwrap_err().to_string().contains("llama.block_count is 0"));
        assert_eq!(eos(&keys), [7]);
    }

    #[test]
    fn a_file_samples_as_it_says_or_else_as_llama_cpp() {
        const F32: u32 = 6;
        let read = |entries: &[(&str, u32, Vec<u8>)]| {
            let bytes = file(entries);
            let metadata = Gguf::parse(&bytes).unwrap().metadata;
            GenerationDefaults::of_gguf(&metadata, Path::new("x.gguf"), &[7]).unwrap()
        };
        let plain = GenerationDefaults {
            eos_token_ids: vec![7],
            temperature: Some(0.8),
            top_k: Some(40),
            top_p: Some(0.95),
            min_p: Some(0.05),
            repetition_penalty: None,
        };
        assert_eq!(read(&[]), plain);
        let said = read(&[
            ("general.sampling.temp", F32, 0.6f32.to_le_bytes().to_vec()),
            // No limit.
            ("general.sampling.top_k", I32, (-1i32).to_le_bytes().to_vec()),
            ("general.sampling.penalty_repeat", F32, 1.1f32.to_le_bytes().to_vec()),
        ]);
        let repetition_penalty = Some(1.1);
        assert_eq!(said, GenerationDefaults { temperature: Some(0.6), top_k: Some(0), repetition_penalty, ..plain });
    }

    #[test]
    fn pooling_is_what_the_file_says() {
        let read = |entries: &[(&str, u32, Vec<u8>)]| {
            let bytes = file(entries);
            let metadata = Gguf::parse(&bytes).unwrap().metadata;
            pooling(&GgufKeys::new(&metadata, Path::new("x.gguf")).unwrap())
        };
        let kind = |kind: u32| ("llama.pooling_type", U32, kind.to_le_bytes().to_vec());
        for (number, want) in [(1, Pooling::Mean), (2, Pooling::First), (3, Pooling::Last)] {
            assert_eq!(read(&[kind(number)]), Ok(want));
        }
        assert!(read(&[]).unwrap_err().contains("has no llama.pooling_type"));
        assert!(read(&[kind(4)]).unwrap_err().contains("has llama.pooling_type 4; known are"));
        const BOOL: u32 = 7;
        let bidirectional = ("llama.attention.causal", BOOL, vec![0]);
        assert!(read(&[kind(3), bidirectional]).unwrap_err().contains("llama.attention.causal is false"));
    }
}
