//! Multimodal wrappers load their text part: under every name that `transformers` has given it, it is the plain model
//! bit by bit.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{Setup, alone};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use testkit::{Golden, repo};
use turboquant::Format::F32;

/// The model in a wrapper: its configuration as `text_config`, its tensors renamed, a tower beside them, in two shards.
fn wrapped(model: &str, rename: impl Fn(&str) -> String) -> tempfile::TempDir {
    let (from, to) = (repo(&format!("models/{model}")), tempfile::tempdir().unwrap());
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(from.join(file), to.path().join(file)).unwrap();
    }
    let mut text: Value = serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
    let tied = text.as_object_mut().unwrap().remove("tie_word_embeddings").unwrap();
    let config = json!({
        "architectures": ["AWrapper"], "model_type": "a_wrapper", "text_config": text, "tie_word_embeddings": tied,
        "vision_config": {"hidden_size": 8},
    });
    std::fs::write(to.path().join("config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file.iter().map(|(name, view)| (rename(name), view)).collect();
    let (_, tower) = file.iter().next().unwrap();
    tensors.push(("vision_tower.weight".into(), tower));
    let mut index = serde_json::Map::new();
    for (i, part) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
        let shard = format!("model-0000{}-of-00002.safetensors", i + 1);
        index.extend(part.iter().map(|(name, _)| (name.clone(), shard.clone().into())));
        let part = part.iter().map(|(name, view)| (name, view));
        safetensors::serialize_to_file(part, None, &to.path().join(shard)).unwrap();
    }
    std::fs::write(to.path().join("model.safetensors.index.json"), json!({"weight_map": index}).to_string()).unwrap();
    to
}

#[test]
fn the_text_part_is_the_plain_model() {
    let inner = |name: &str| name.replacen("model.", "model.language_model.", 1);
    let outer = |name: &str| format!("language_model.{name}");
    for (model, like, folder) in [
        ("tiny-qwen35", "Qwen3_5ForConditionalGeneration", wrapped("tiny-qwen35", inner)),
        ("tiny-qwen35moe", "Qwen3_5MoeForConditionalGeneration", wrapped("tiny-qwen35moe", inner)),
        ("tiny-mistral", "Mistral3ForConditionalGeneration", wrapped("tiny-mistral", inner)),
        ("tiny-mistral", "LlavaForConditionalGeneration", wrapped("tiny-mistral", outer)),
    ] {
        let prompt = &Golden::read(model).prompts[0].ids;
        let want = alone(&Setup::new(&format!("models/{model}"), F32, F32), prompt, 8);
        let got = alone(&Setup::new(folder.path().to_str().unwrap(), F32, F32), prompt, 8);
        assert_eq!(want, got, "as in {like}");
    }
}

/// Some checkpoints have one tensor for gate and up, and one for down, of all experts of a layer.
#[test]
fn packed_experts_are_those_of_single_tensors() {
    let (from, to) = (repo("models/tiny-qwen35moe"), tempfile::tempdir().unwrap());
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(from.join(file), to.path().join(file)).unwrap();
    }
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (experts, others): (Vec<_>, Vec<_>) = file.iter().partition(|(name, _)| name.contains(".mlp.experts."));
    let mut packed = Vec::new();
    for layer in 0..2 {
        let prefix = format!("model.layers.{layer}.mlp.experts");
        for (to, parts) in [("gate_up_proj", &["gate_proj", "up_proj"][..]), ("down_proj", &["down_proj"])] {
            let names = (0..4).flat_map(|i| parts.iter().map(move |part| (i, part)));
            let views: Vec<_> = names
                .map(|(i, part)| &experts.iter().find(|(n, _)| *n == format!("{prefix}.{i}.{part}.weight")).unwrap().1)
                .collect();
            let data: &[u8] = Box::leak(views.iter().flat_map(|view| view.data()).copied().collect::<Box<[u8]>>());
            let shape = vec![4, parts.len() * views[0].shape()[0], views[0].shape()[1]];
            let view = safetensors::tensor::TensorView::new(views[0].dtype(), shape, data).unwrap();
            packed.push((format!("{prefix}.{to}"), view));
        }
    }
    let others = others.into_iter().map(|(name, view)| (name.to_owned(), view));
    safetensors::serialize_to_file(others.chain(packed), None, &to.path().join("model.safetensors")).unwrap();
    let prompt = &Golden::read("tiny-qwen35moe").prompts[0].ids;
    let want = alone(&Setup::new("models/tiny-qwen35moe", F32, F32), prompt, 8);
    assert_eq!(want, alone(&Setup::new(to.path().to_str().unwrap(), F32, F32), prompt, 8));
}
