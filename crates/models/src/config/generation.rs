//! The sampling that a checkpoint asks for: `generation_config.json`, or GGUF metadata.
use super::{ConfigJson, ModelConfig};
use crate::error::ModelError;
use gguf::Metadata;
use std::path::Path;

/// How to sample and when to stop where a request does not say. A field is `None` where the checkpoint does not say
/// either.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationDefaults {
    /// The tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// Divides the logits; 0 takes the largest logit, as does `do_sample: false`.
    pub temperature: Option<f32>,
    /// Sampling is limited to this many of the most probable tokens.
    pub top_k: Option<usize>,
    /// Sampling is limited to the most probable tokens whose probabilities sum to this.
    pub top_p: Option<f32>,
    /// Sampling is limited to tokens at least this times as probable as the most probable one.
    pub min_p: Option<f32>,
    /// Divides positive logits, and multiplies negative ones, of tokens that stand in the text already.
    pub repetition_penalty: Option<f32>,
}

/// How llama.cpp samples where neither a request nor a file says it: temperature, `top_k`, `top_p`, `min_p`. Those who
/// publish GGUF files try them with these values, and quantised weights make unlikely tokens likelier than they should
/// be, so that a temperature of 1 without a limit goes astray.
const LLAMA_CPP: (f32, usize, f32, f32) = (0.8, 40, 0.95, 0.05);

impl GenerationDefaults {
    /// Reads `generation_config.json` of a model folder if there is one; otherwise the ids of EOS come from `config`.
    ///
    /// Errors: a file that is not a JSON object, a field of a wrong type.
    pub(crate) fn of_folder(folder: &Path, config: &ModelConfig) -> Result<Self, ModelError> {
        let Some(json) = ConfigJson::read_optional(folder.join("generation_config.json"))? else {
            return Ok(GenerationDefaults { eos_token_ids: config.eos.clone(), ..GenerationDefaults::default() });
        };
        let greedy = json.get::<bool>("do_sample")? == Some(false);
        let temperature = json.get("temperature")?;
        Ok(GenerationDefaults {
            eos_token_ids: json
                .ids("eos_token_id")?
                .filter(|ids| !ids.is_empty())
                .unwrap_or_else(|| config.eos.clone()),
            temperature: if greedy { Some(0.0) } else { temperature },
            top_k: json.positive("top_k")?,
            top_p: json.get("top_p")?,
            min_p: json.get("min_p")?,
            repetition_penalty: json.get("repetition_penalty")?,
        })
    }

    /// Reads the keys that newer GGUF files have for sampling. What a file does not say is as llama.cpp has it; the
    /// tokens that end an answer are `eos`. `path`: the file, for errors.
    ///
    /// Errors: a key of a wrong type.
    pub(crate) fn of_gguf(metadata: &Metadata<'_>, path: &Path, eos: &[u32]) -> Result<Self, ModelError> {
        let float = |name: &str| {
            let value = metadata.optional(&format!("general.sampling.{name}"), Metadata::float);
            value.map_err(|e| ModelError::file(path, e))
        };
        let (temperature, top_k, top_p, min_p) = LLAMA_CPP;
        Ok(GenerationDefaults {
            eos_token_ids: eos.to_vec(),
            temperature: Some(float("temp")?.map_or(temperature, |x| x as f32)),
            top_k: Some(float("top_k")?.map_or(top_k, |x| x as usize)),
            top_p: Some(float("top_p")?.map_or(top_p, |x| x as f32)),
            min_p: Some(float("min_p")?.map_or(min_p, |x| x as f32)),
            repetition_penalty: float("penalty_repeat")?.map(|x| x as f32),
        })
    }
}
