//! Finds the family of a checkpoint by the names that its configuration has.
use crate::checkpoint::GgufNames;
use crate::config::{ConfigJson, GgufKeys};
use crate::error::ModelError;
use crate::families::FAMILIES;
use crate::family::Family;
use std::path::Path;

/// Model types with multi-head latent attention, beside all whose configuration has a `kv_lora_rank`.
const LATENT: [&str; 7] =
    ["deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "kimi_k2", "longcat_flash", "minicpm3"];

const LATENT_REASON: &str = "its multi-head latent attention (kv_lora_rank) caches one latent vector for all heads, \
                             not K and V; there are no formats and no kernels for that here";

/// The family of a model folder: of a multimodal model by the text part's `model_type`, else by the architecture, which
/// may be named as a model with a head (`Qwen3ForCausalLM`) or without one (`Qwen3Model`).
///
/// Errors: an architecture that is not known (the known ones are named), or that cannot be served, with the reason.
pub(crate) fn family_of_json(json: &ConfigJson) -> Result<&'static Family, ModelError> {
    let model_type = json.get::<&str>("model_type")?.unwrap_or_default();
    if json.get::<usize>("kv_lora_rank")?.is_some() || LATENT.contains(&model_type) {
        return Err(refused(&json.path, model_type, LATENT_REASON.to_owned()));
    }
    let architectures = json.get::<Vec<&str>>("architectures")?.unwrap_or_default();
    let architecture = architectures.first().copied();
    let is_it = |(name, kind): &(&str, &str)| match json.is_wrapper {
        true => *kind == model_type,
        false => Some(*name) == architecture || headless(name).is_some_and(|name| Some(name.as_str()) == architecture),
    };
    let found = FAMILIES.iter().find(|family| family.names.iter().any(is_it));
    found.copied().ok_or_else(|| {
        let known = FAMILIES.iter().flat_map(|family| family.names).map(|(name, _)| *name);
        let name = if json.is_wrapper { model_type } else { architecture.unwrap_or("missing") };
        unknown(&json.path, name, known)
    })
}

/// The family of a GGUF file, and its names there.
///
/// Errors: as [`family_of_json`]'s, and a mixture of experts of an architecture that is known as a dense one.
pub(crate) fn family_of_gguf(keys: &GgufKeys<'_>) -> Result<(&'static Family, &'static GgufNames), ModelError> {
    if keys.has("attention.kv_lora_rank") {
        return Err(refused(keys.path, keys.architecture, LATENT_REASON.to_owned()));
    }
    let known = || FAMILIES.iter().filter_map(|family| Some((*family, family.gguf.as_ref()?)));
    let Some((family, names)) = known().find(|(_, names)| names.architecture == keys.architecture) else {
        return Err(unknown(keys.path, keys.architecture, known().map(|(_, names)| names.architecture)));
    };
    if names.experts.is_empty() && keys.optional_size("expert_count").unwrap_or(None).is_some() {
        let mixtures = known().filter(|(_, names)| !names.experts.is_empty()).map(|(_, names)| names.architecture);
        let reason = format!("it is a mixture of experts; of these, known are {}", join(mixtures));
        return Err(refused(keys.path, keys.architecture, reason));
    }
    Ok((family, names))
}

/// The name that an architecture has without its head.
fn headless(name: &str) -> Option<String> {
    Some(format!("{}Model", name.strip_suffix("ForCausalLM")?))
}

fn refused(path: &Path, model_type: &str, reason: String) -> ModelError {
    ModelError::Refused { path: path.to_owned(), model_type: model_type.to_owned(), reason }
}

fn unknown<'a>(path: &Path, architecture: &str, known: impl Iterator<Item = &'a str>) -> ModelError {
    ModelError::UnknownArchitecture { path: path.to_owned(), architecture: architecture.to_owned(), known: join(known) }
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
