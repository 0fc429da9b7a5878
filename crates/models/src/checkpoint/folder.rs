//! A folder that a user names: a model folder, one with a GGUF file, or what other programs keep.
use super::content::{check_json, check_template, head};
use super::{Checkpoint, GgufFiles, Reading};
use crate::error::ModelError;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A model folder's JSON files.
const JSON_FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors.index.json",
    "modules.json",
    "1_Pooling/config.json",
];
/// Most names that an error lists.
const MAX_LISTED: usize = 12;

/// Opens the model in a folder.
///
/// Errors: a folder with no model or with several, with what there is; files that are not a model's.
pub(super) fn open(folder: &Path, reading: Reading) -> Result<Checkpoint, ModelError> {
    if folder.join("config.json").exists() {
        JSON_FILES.iter().try_for_each(|name| check_json(&folder.join(name)))?;
        check_template(&folder.join("chat_template.jinja"))?;
        return Ok(Checkpoint::Folder(folder.to_owned(), reading));
    }
    let models = gguf_models(folder);
    match &models.iter().collect::<Vec<_>>()[..] {
        [] => Err(ModelError::file(folder, describe(folder))),
        [one] => Ok(Checkpoint::Gguf(GgufFiles::open(one, reading)?)),
        several => Err(ModelError::file(folder, format!("has several GGUF files; name one: {}", list(several)))),
    }
}

/// What a folder is that has neither a configuration nor a GGUF file.
fn describe(folder: &Path) -> String {
    let has = |name: &str| folder.join(name).is_dir();
    let ends = |ends: &[&str]| names(folder).iter().any(|path| ends.iter().any(|end| has_extension(path, end)));
    if has("snapshots") && has("blobs") {
        return "is a model in the cache of the hub; name it as ORG/NAME, or name a folder in snapshots".into();
    }
    let blobs = if has("manifests") && has("blobs") { folder.join("blobs") } else { folder.to_owned() };
    let is_model = |path: &&PathBuf| path.is_file() && head(path).is_ok_and(|head| head.starts_with(b"GGUF"));
    let files = names(&blobs);
    let found: Vec<_> = files.iter().filter(is_model).collect();
    if !found.is_empty() {
        return format!("holds GGUF files under other names (Ollama's blobs are such); name one: {}", list(&found));
    }
    let below: Vec<PathBuf> = names(folder).iter().flat_map(|one| names(one)).collect();
    let below: BTreeSet<PathBuf> = names(folder)
        .into_iter()
        .chain(below)
        .filter(|path| path.is_dir())
        .flat_map(|path| gguf_models(&path))
        .collect();
    if !below.is_empty() {
        return format!(
            "has GGUF files in the folders below it; name one: {}",
            list(&below.iter().collect::<Vec<_>>())
        );
    }
    if ends(&["safetensors"]) {
        return "has weights and no config.json; fetch the model whole".into();
    }
    if ends(&["bin", "pt", "pth"]) {
        return "has no config.json, and PyTorch's files alone are not read; take the model's safetensors".into();
    }
    "has neither a config.json nor a GGUF file".into()
}

/// The GGUF models in a folder: their files, or the first of their shards. Vision projectors are none.
fn gguf_models(folder: &Path) -> BTreeSet<PathBuf> {
    let is_model = |path: &PathBuf| {
        let projector = path.file_name().is_some_and(|name| name.to_string_lossy().contains("mmproj"));
        has_extension(path, "gguf") && !projector && path.is_file()
    };
    let first = |path: PathBuf| gguf::shards(&path).into_iter().next().unwrap_or(path);
    names(folder).into_iter().filter(is_model).map(first).collect()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

/// The paths in a folder; none where it cannot be read.
fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn list(paths: &[&PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().take(MAX_LISTED).map(|path| path.display().to_string()).collect();
    let more = if paths.len() > MAX_LISTED { ", ..." } else { "" };
    shown.join(", ") + more
}
