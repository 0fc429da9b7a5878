//! Model folders with something wrong: an error that names file and tensor, never a panic.
#![allow(clippy::unwrap_used)] // helpers of tests
use engine::{EngineConfig, KvOptions, load, start};
use std::path::Path;
use testkit::repo;
use turboquant::{Format, KvPair};

const FILES: [&str; 5] =
    ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

/// A changed copy of the tiny model.
fn changed(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in FILES {
        std::fs::copy(repo("models/tiny-mistral").join(file), folder.path().join(file)).unwrap();
    }
    change(folder.path());
    folder
}

/// What loading it says.
fn error(change: impl FnOnce(&Path)) -> String {
    let folder = changed(change);
    match load(&EngineConfig::new(folder.path())) {
        Ok(_) => panic!("the model was loaded"),
        Err(error) => error.to_string(),
    }
}

fn rewrite(folder: &Path, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(folder.join(file)).unwrap();
    change(&mut bytes);
    std::fs::write(folder.join(file), bytes).unwrap();
}

fn replace(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
}

fn says(message: &str, words: &[&str]) {
    assert!(words.iter().all(|w| message.contains(w)), "{message}");
}

#[test]
fn safetensors_that_are_not_whole() {
    for keep in [0, 7, 8, 100, 200_000] {
        says(&error(|f| rewrite(f, "model.safetensors", |b| b.truncate(keep))), &["model.safetensors"]);
    }
    let message = error(|f| rewrite(f, "model.safetensors", |b| b[..8].copy_from_slice(&u64::MAX.to_le_bytes())));
    says(&message, &["model.safetensors"]);
    says(&error(|f| std::fs::remove_file(f.join("model.safetensors")).unwrap()), &["model.safetensors"]);
}

#[test]
fn tensors_that_are_missing_or_of_another_shape() {
    let message =
        error(|f| rewrite(f, "model.safetensors", |b| replace(b, "layers.1.mlp.up_proj", "layers.1.mlp.xp_proj")));
    says(&message, &["model.layers.1.mlp.up_proj.weight", "missing"]);
    let message = error(|f| rewrite(f, "config.json", |b| replace(b, "\"hidden_size\": 64", "\"hidden_size\": 48")));
    says(&message, &["model.safetensors", "model.layers.0.input_layernorm.weight", "[64]", "[48]"]);
    let message = error(|f| rewrite(f, "model.safetensors", |b| replace(b, "\"BF16\"", "\"I16\" ")));
    says(&message, &["is of type I16", "BF16"]);
}

#[test]
fn an_index_that_names_what_is_not_there_or_elsewhere() {
    let index = |name: &str| format!(r#"{{"weight_map": {{"x": "{name}"}}}}"#);
    let with = |name: &str| error(|f| std::fs::write(f.join("model.safetensors.index.json"), index(name)).unwrap());
    says(&with("model-00001-of-00001.safetensors"), &["model-00001-of-00001.safetensors"]);
    says(&with("../model.safetensors"), &["model.safetensors.index.json", "../model.safetensors"]);
}

#[test]
fn folders_without_tokenizer_or_configuration() {
    says(&error(|f| std::fs::remove_file(f.join("tokenizer.json")).unwrap()), &["tokenizer.json"]);
    says(&error(|f| std::fs::remove_file(f.join("config.json")).unwrap()), &["config.json"]);
    says(&error(|f| rewrite(f, "tokenizer.json", |b| b.truncate(300))), &["tokenizer.json"]);
    let Err(message) = load(&EngineConfig::new("/no/such/model")) else { panic!("a model was loaded") };
    says(&message.to_string(), &["/no/such/model", "neither"]);
}

/// Heads of 8 in place of 32, four times as many: tensors of the same shapes.
#[test]
fn a_head_size_that_the_format_does_not_hold() {
    let folder = changed(|f| {
        rewrite(f, "config.json", |b| {
            let text = String::from_utf8(std::mem::take(b)).unwrap();
            let text = text.replace("\"head_dim\": 32", "\"head_dim\": 8");
            let text = text.replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 16");
            *b = text.replace("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 8").into_bytes();
        })
    });
    let kv = KvOptions::pair(KvPair::both(Format::Tq4), 32);
    let Err(error) = start(&EngineConfig { kv, ..EngineConfig::new(folder.path()) }) else { panic!("it started") };
    says(&error.to_string(), &["type mistral", "head_dim 8", "tq4", "16, 32, 64"]);
}
