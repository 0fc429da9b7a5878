//! Tokenizers from GGUF metadata against the libraries they come from (`scripts/goldens/gguf_tokenizers.py`).
#![allow(clippy::unwrap_used)] // helpers of tests
use gguf::Gguf;
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use text::{ChatTemplate, TextError, Tokenizer};

#[derive(Deserialize)]
struct Golden {
    by: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    decoded: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf")
}

fn bytes(name: &str) -> (PathBuf, Vec<u8>) {
    let path = folder().join(name).with_extension("gguf");
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

fn tokenizer(path: &Path, bytes: &[u8]) -> Result<Tokenizer, TextError> {
    Tokenizer::from_gguf(&Gguf::parse(bytes).unwrap().metadata, path)
}

#[test]
fn texts_are_tokenized_as_by_their_own_libraries() {
    for name in ["bpe", "spm"] {
        let (path, bytes) = bytes(name);
        let tokenizer = tokenizer(&path, &bytes).unwrap();
        let golden = std::fs::read_to_string(folder().join(name).with_extension("json")).unwrap();
        let golden: Golden = serde_json::from_str(&golden).unwrap();
        assert!(golden.cases.len() >= 10);
        for case in golden.cases {
            let ids = tokenizer.encode(&case.text, false).unwrap();
            assert_eq!(ids, case.ids, "{name}: {:?}, {}", case.text, golden.by);
            assert_eq!(tokenizer.decode(&ids, false), case.decoded, "{name}: {:?}", case.text);
        }
    }
}

/// Both kinds begin a text with BOS where the file does not say otherwise, as llama.cpp does.
#[test]
fn special_tokens_and_template_come_from_the_file() {
    for (name, bos, eos) in [("bpe", "<|begin_of_text|>", "<|end_of_text|>"), ("spm", "<s>", "</s>")] {
        let (path, bytes) = bytes(name);
        let metadata = Gguf::parse(&bytes).unwrap().metadata;
        let tokenizer = Tokenizer::from_gguf(&metadata, &path).unwrap();
        assert!(tokenizer.adds_bos(), "{name}");
        let bos_id = tokenizer.bos_id().unwrap();
        assert_eq!(tokenizer.encode("x", true).unwrap()[0], bos_id);
        assert!(tokenizer.is_special(bos_id));
        let template = ChatTemplate::from_gguf(&metadata, &path).unwrap().unwrap();
        let messages = json!([{"role": "user", "content": "hi"}]);
        let text = template.render(&messages, None, true, &Default::default()).unwrap();
        assert_eq!(text, format!("{bos}[user] hi{eos}"));
    }
}

/// A changed copy of the metadata's bytes: `from` becomes `to`, of the same length.
fn changed(name: &str, from: &str, to: &str) -> String {
    let (path, mut bytes) = bytes(name);
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    tokenizer(&path, &bytes).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_read_names_file_key_and_what_is_known() {
    let message = changed("bpe", "llama-bpe", "lambs-bpe");
    assert!(message.contains("bpe.gguf") && message.contains("lambs-bpe") && message.contains("qwen2"), "{message}");
    let message = changed("bpe", "gpt2", "bert");
    assert!(
        message.contains("tokenizer.ggml.model") && message.contains("bert") && message.contains("llama"),
        "{message}"
    );
    let message = changed("bpe", "tokenizer.ggml.merges", "tokenizer.ggml.nerges");
    assert!(message.contains("tokenizer.ggml.merges is missing"), "{message}");
    let message = changed("spm", "tokenizer.ggml.scores", "tokenizer.ggml.skores");
    assert!(message.contains("tokenizer.ggml.scores"), "{message}");
    let message = changed("spm", "tokenizer.ggml.tokens", "tokenizer.ggml.tekens");
    assert!(message.contains("tokenizer.ggml.tokens is missing"), "{message}");
}
