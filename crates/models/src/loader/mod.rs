//! From a model folder to a model.
mod mapped;
mod safetensors;
mod weights;

use crate::config::{GenerationDefaults, ModelConfig};
use crate::error::ModelError;
use crate::{Model, llama, qwen2, qwen3};
use candle_core::Device;
use std::path::Path;

pub(crate) use mapped::MappedWeight;
pub(crate) use weights::Weights;

pub struct LoadedModel {
    pub model: Box<dyn Model>,
    pub config: ModelConfig,
    pub generation: GenerationDefaults,
    /// Bytes of the weights as stored.
    pub weight_bytes: u64,
    /// Names the weights.
    pub fingerprint: String,
}

/// Architectures by the name that `config.json` gives them.
const KNOWN: [&str; 4] = ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"];

/// Loads a Hugging Face model folder: `config.json`, `generation_config.json` if there, and one or many safetensors files, which
/// are memory-mapped.
///
/// Errors: an architecture that is not known (the known ones are named); missing or malformed files and tensors, each named.
pub fn load(folder: &Path, device: &Device) -> Result<LoadedModel, ModelError> {
    let config = ModelConfig::read(folder)?;
    let generation = GenerationDefaults::read(folder, &config)?;
    let weights = Weights::open(folder, device)?;
    let model = match config.architecture.as_str() {
        "LlamaForCausalLM" | "MistralForCausalLM" => llama::load(&config, &weights)?,
        "Qwen2ForCausalLM" => qwen2::load(&config, &weights)?,
        "Qwen3ForCausalLM" => qwen3::load(&config, &weights)?,
        other => {
            return Err(ModelError::UnknownArchitecture {
                path: folder.to_owned(),
                architecture: other.to_owned(),
                known: KNOWN.join(", "),
            });
        }
    };
    let (weight_bytes, fingerprint) = (weights.num_bytes(), weights.fingerprint());
    Ok(LoadedModel { model, config, generation, weight_bytes, fingerprint })
}
