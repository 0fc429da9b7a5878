//! `generation_config.json`.
use super::raw::Ids;
use super::{ModelConfig, read_json};
use crate::error::ModelError;
use serde::Deserialize;
use std::path::Path;

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
