//! The files of a repository that a model needs.
use crate::cache::is_below;
use crate::{HubError, ModelName};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The index of a model whose weights are in several files.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The weights of a model that has them in one file.
const SINGLE: &str = "model.safetensors";

/// Files that a model may have beside `config.json` and the weights.
const OPTIONAL: [&str; 6] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    // What an embedding model pools.
    "modules.json",
    "1_Pooling/config.json",
];

/// Chooses among `all` files those that the model needs, small ones first. If the weights are in several files, only
/// their index is chosen, which [`shards`] reads.
///
/// Errors: no model, a quantisation that no file has or that several have, with those that there are.
pub(crate) fn choose(model: &ModelName, all: &[String]) -> Result<Vec<String>, HubError> {
    let has = |name: &str| all.iter().any(|file| file == name);
    let weights = if has(INDEX) { INDEX } else { SINGLE };
    if model.quant.is_none() && has("config.json") && has(weights) {
        let optional = OPTIONAL.into_iter().filter(|name| has(name));
        return Ok(["config.json"].into_iter().chain(optional).chain([weights]).map(str::to_owned).collect());
    }
    let models = gguf_models(all);
    if models.is_empty() {
        return Err(HubError::NoModel { model: model.to_string() });
    }
    let wrong = |message: &str| {
        let known = models.keys().map(|stem| label(stem).to_owned()).collect();
        HubError::Quant { model: model.repo.clone(), message: message.to_owned(), known }
    };
    let mut found = models.iter().filter(|(stem, _)| model.quant.as_deref().is_none_or(|quant| has_quant(stem, quant)));
    match (found.next(), found.next(), &model.quant) {
        (Some((_, files)), None, _) => Ok(files.clone()),
        (None, _, Some(quant)) => Err(wrong(&format!("no GGUF file is of {quant}"))),
        (_, _, Some(quant)) => Err(wrong(&format!("several GGUF files are of {quant}"))),
        (_, _, None) => Err(wrong("name one of several GGUF files, as NAME:QUANT")),
    }
}

/// The names of the models among `all` files of a repository.
pub(crate) fn models(repo: &str, all: &[String]) -> Vec<ModelName> {
    let name = |quant: Option<&str>| ModelName { repo: repo.to_owned(), quant: quant.map(str::to_owned) };
    let has = |name: &str| all.iter().any(|file| file == name);
    let folder = (has("config.json") && (has(INDEX) || has(SINGLE))).then(|| name(None));
    folder.into_iter().chain(gguf_models(all).keys().map(|stem| name(Some(label(stem))))).collect()
}

/// The GGUF models among `all` files by their stems, each with its files in order. The stem of a model in several files
/// ends before their numbers.
fn gguf_models(all: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut models = BTreeMap::new();
    for file in all.iter().filter(|file| file.ends_with(".gguf") && !file.contains("mmproj")) {
        let shards: Vec<String> =
            gguf::shards(Path::new(file)).iter().map(|p| p.to_string_lossy().into_owned()).collect();
        let first = Path::new(&shards[0]).file_stem().unwrap_or_default().to_string_lossy();
        let stem = match first.rsplit_once("-00001-of-") {
            Some((stem, _)) if shards.len() > 1 => stem.to_owned(),
            _ => first.into_owned(),
        };
        models.insert(stem, shards);
    }
    models
}

/// Whether a model's stem ends in the name of the quantisation.
fn has_quant(stem: &str, quant: &str) -> bool {
    let (stem, quant) = (stem.to_lowercase(), quant.to_lowercase());
    stem.strip_suffix(&quant).is_some_and(|before| !before.ends_with(|c: char| c.is_ascii_alphanumeric()))
}

/// The last part of a stem, which mostly is the name of the quantisation.
fn label(stem: &str) -> &str {
    stem.rsplit(['-', '.']).next().unwrap_or(stem)
}

/// The files that an index of weights names.
///
/// Errors: an index that cannot be read, or that names a file elsewhere.
pub(crate) fn shards(index: &Path) -> Result<BTreeSet<String>, HubError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(index).map_err(|e| HubError::file(index, e))?;
    let parsed: Index = serde_json::from_str(&text).map_err(|e| HubError::file(index, e))?;
    let files: BTreeSet<String> = parsed.weight_map.into_values().collect();
    match files.iter().find(|file| !is_below(file)) {
        Some(file) => Err(HubError::file(index, format!("{file} is not the name of a file beside it"))),
        None => Ok(files),
    }
}

/// The path by which a model is loaded: its folder, or its first GGUF file.
pub(crate) fn model_path(folder: &Path, wanted: &[String]) -> PathBuf {
    match wanted.first() {
        Some(file) if file.ends_with(".gguf") => folder.join(file),
        _ => folder.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(name: &str, files: &[&str]) -> Result<Vec<String>, HubError> {
        let files: Vec<String> = files.iter().map(|f| (*f).to_owned()).collect();
        choose(&ModelName::parse(name).unwrap(), &files)
    }

    const GGUF: [&str; 7] = [
        "README.md",
        "m-Q4_K.gguf",
        "m-Q4_K_M.gguf",
        "m-IQ4_XS.gguf",
        "mmproj-f16.gguf",
        "big/m-Q8_0-00001-of-00002.gguf",
        "big/m-Q8_0-00002-of-00002.gguf",
    ];

    #[test]
    fn only_what_is_needed_is_chosen() {
        let files =
            ["README.md", "config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json", "onnx/model.onnx"];
        assert_eq!(pick("a/b", &files).unwrap(), ["config.json", "tokenizer.json", "model.safetensors"]);
        let files = ["config.json", INDEX, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        assert_eq!(pick("a/b", &files).unwrap(), ["config.json", INDEX]);
        let files = ["1_Pooling/config.json", "config.json", "model.safetensors", "modules.json"];
        let chosen = ["config.json", "modules.json", "1_Pooling/config.json", "model.safetensors"];
        assert_eq!(pick("a/b", &files).unwrap(), chosen);
    }

    #[test]
    fn a_quantisation_picks_one_file_or_its_shards() {
        assert_eq!(pick("a/b:q4_k_m", &GGUF).unwrap(), ["m-Q4_K_M.gguf"]);
        assert_eq!(pick("a/b:Q4_K", &GGUF).unwrap(), ["m-Q4_K.gguf"]);
        assert_eq!(pick("a/b:Q8_0", &GGUF).unwrap(), GGUF[5..]);
        assert_eq!(pick("a/b", &["x.gguf"]).unwrap(), ["x.gguf"]);
    }

    #[test]
    fn what_cannot_be_chosen_names_what_there_is() {
        let message = pick("a/b:Q5_K_M", &GGUF).unwrap_err().to_string();
        assert!(message.contains("Q5_K_M") && message.contains("IQ4_XS") && message.contains("Q8_0"), "{message}");
        // XS is of IQ4_XS, but Q4_XS is not.
        assert!(pick("a/b:Q4_XS", &GGUF).is_err());
        let message = pick("a/b", &GGUF).unwrap_err().to_string();
        assert!(message.contains("NAME:QUANT") && message.contains("Q4_K_M"), "{message}");
        assert!(pick("a/b", &["README.md"]).unwrap_err().to_string().contains("neither"));
    }
}
