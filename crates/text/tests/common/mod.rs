//! A tokenizer of SentencePiece's kind, and loading of one that a test has changed.
#![allow(clippy::unwrap_used, dead_code)] // helpers of tests, of which each binary uses some
use serde_json::{Value, json};
use tempfile::TempDir;
use text::{TextError, Tokenizer};

/// Llama 2's form: SentencePiece's BPE with byte fallback. Ids: <unk> <s> </s>, 256 bytes, then words.
pub fn sentencepiece() -> Value {
    let mut vocab = json!({"<unk>": 0, "<s>": 1, "</s>": 2});
    let bytes = (0..256).map(|b| format!("<0x{b:02X}>"));
    let words = ["▁", "H", "i", "▁H", "▁Hi", "!"].map(str::to_owned);
    for (token, id) in bytes.chain(words).zip(3..) {
        vocab[token] = json!(id);
    }
    let special = |id: u32, token: &str| {
        let mut added = json!({"id": id, "content": token, "special": true, "single_word": false});
        for flag in ["lstrip", "rstrip", "normalized"] {
            added[flag] = json!(false);
        }
        added
    };
    json!({
        "version": "1.0",
        "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "dropout": null,
            "vocab": vocab, "merges": ["▁ H", "▁H i"]},
    })
}

/// The tokenizer of a folder with this `tokenizer.json` and this `tokenizer_config.json`.
pub fn load(tokenizer: &Value, config: &Value) -> Result<Tokenizer, TextError> {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    Tokenizer::from_dir(dir.path())
}
