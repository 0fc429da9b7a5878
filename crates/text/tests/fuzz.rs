//! A broken tokenizer gives an error or a tokenizer, never a panic.
#![allow(clippy::unwrap_used)] // helpers of tests
use gguf::Gguf;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use text::{ChatTemplate, Tokenizer};

fn repo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn use_it(tokenizer: &Tokenizer, text: &str) {
    if let Ok(ids) = tokenizer.encode(text, true) {
        tokenizer.decode(&ids, false);
    }
}

/// Pointers to all values below `value`.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| places(v, format!("{at}/{i}"), found)),
        Value::Object(map) => map.iter().for_each(|(key, v)| places(v, format!("{at}/{key}"), found)),
        _ => {}
    }
    found.push(at);
}

fn other_values() -> Vec<Value> {
    let strings = ["", "a", "▁", "(((a*)*)*)*b"].map(Value::from);
    let numbers = [json!(0), json!(-1), json!(1u32 << 20), json!(u32::MAX), json!(1e300)];
    let shapes = [Value::Null, json!(true), json!([]), json!({}), json!([["a", "b"]]), json!({"String": ""})];
    strings.into_iter().chain(numbers).chain(shapes).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn tokenizer_folders_never_panic(
        changes in prop::collection::vec((any::<Index>(), select(other_values())), 1..4),
        text in any::<String>(),
    ) {
        let from = repo("models/tiny-mistral");
        let bytes = std::fs::read(from.join("tokenizer.json")).unwrap();
        let mut tokenizer: Value = serde_json::from_slice(&bytes).unwrap();
        let mut found = Vec::new();
        places(&tokenizer, String::new(), &mut found);
        for (at, value) in changes {
            if let Some(place) = tokenizer.pointer_mut(&found[at.index(found.len())]) {
                *place = value;
            }
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        std::fs::copy(from.join("tokenizer_config.json"), folder.path().join("tokenizer_config.json")).unwrap();
        if let Ok(tokenizer) = Tokenizer::from_dir(folder.path()) {
            use_it(&tokenizer, &text);
        }
    }

    #[test]
    fn gguf_tokenizers_never_panic(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6),
        text in any::<String>(),
    ) {
        for file in ["tiny-llama31-bf16.gguf", "tiny-mistral-q8_0-00001-of-00002.gguf"] {
            let path = repo("fixtures/gguf").join(file);
            let mut bytes = std::fs::read(&path).unwrap();
            let place = |key: &str| bytes.windows(key.len()).position(|w| w == key.as_bytes()).unwrap();
            let part = place("tokenizer.ggml.model")..place("token_embd.weight");
            for (at, byte) in &changes {
                bytes[part.start + at.index(part.len())] = *byte;
            }
            let Ok(header) = Gguf::parse(&bytes) else { continue };
            if let Ok(tokenizer) = Tokenizer::from_gguf(&header.metadata, &path) {
                use_it(&tokenizer, &text);
            }
            let _ = ChatTemplate::from_gguf(&header.metadata, &path);
        }
    }
}
