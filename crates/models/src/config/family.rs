//! Which families there are, and which are refused.
use super::raw::Raw;
use crate::error::ModelError;
use std::path::Path;

/// A file of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Llama,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Qwen35,
}

/// Architecture as `config.json` names it, `model_type` of its text part, family.
const KNOWN: [(&str, &str, Family); 6] = [
    ("LlamaForCausalLM", "llama", Family::Llama),
    ("MistralForCausalLM", "mistral", Family::Llama),
    ("Qwen2ForCausalLM", "qwen2", Family::Qwen2),
    ("Qwen3ForCausalLM", "qwen3", Family::Qwen3),
    ("Qwen3MoeForCausalLM", "qwen3_moe", Family::Qwen3Moe),
    ("Qwen3_5ForCausalLM", "qwen3_5_text", Family::Qwen35),
];

/// Model types with multi-head latent attention, beside all whose configuration has a `kv_lora_rank`.
const LATENT: [&str; 7] =
    ["deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "kimi_k2", "longcat_flash", "minicpm3"];

impl Family {
    /// Its `model_type`.
    pub fn name(self) -> &'static str {
        KNOWN.iter().find(|known| known.2 == self).map_or("unknown", |known| known.1)
    }

    /// What of it the CPU computes where the rest is on a GPU.
    pub fn part_on_the_cpu(self) -> Option<&'static str> {
        match self {
            Family::Qwen3Moe => {
                Some("the CPU chooses each token's experts, for which the GPU is waited for once a layer")
            }
            Family::Qwen35 => Some(
                "the CPU runs the recurrence of its gated delta nets, for which the GPU is waited for once a layer",
            ),
            Family::Llama | Family::Qwen2 | Family::Qwen3 => None,
        }
    }

    /// Errors: an architecture that is not known (the known ones are named), or that cannot be served, with the reason.
    pub fn of(raw: &Raw, wrapper: bool, path: &Path) -> Result<Self, ModelError> {
        let model_type = raw.model_type.as_deref().unwrap_or_default();
        if raw.kv_lora_rank.is_some() || LATENT.contains(&model_type) {
            return Err(ModelError::Refused {
                path: path.to_owned(),
                model_type: model_type.to_owned(),
                reason: "its multi-head latent attention (kv_lora_rank) caches one latent vector for all heads, not K and V, \
                         for which there are no formats and no kernels here"
                    .into(),
            });
        }
        let architecture = raw.architectures.iter().flatten().next().map(String::as_str);
        let found = KNOWN.iter().find(|(name, kind, _)| match wrapper {
            true => *kind == model_type,
            false => Some(*name) == architecture,
        });
        found.map(|f| f.2).ok_or_else(|| ModelError::UnknownArchitecture {
            path: path.to_owned(),
            architecture: if wrapper { model_type } else { architecture.unwrap_or("missing") }.to_owned(),
            known: KNOWN.map(|(name, ..)| name).join(", "),
        })
    }
}
