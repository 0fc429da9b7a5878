//! Tokenizers from GGUF metadata against the libraries they come from (`scripts/goldens/gguf_tokenizers.py`).
#![allow(clippy::unwrap_used)] // helpers of tests
use gguf::Gguf;
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use text::{ChatTemplate, Conversation, TextError, Tokenizer};

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
        assert!(tokenizer.added_bos().is_some(), "{name}");
        let bos_id = tokenizer.bos_id().unwrap();
        assert_eq!(tokenizer.encode("x", true).unwrap()[0], bos_id);
        assert!(tokenizer.is_special(bos_id));
        let template = ChatTemplate::from_gguf(&metadata, &path).unwrap().unwrap();
        let messages = json!([{"role": "user", "content": "hi"}]);
        let text = template.render(&Conversation::of(&messages)).unwrap();
        assert_eq!(text, format!("{bos}[user] hi{eos}"));
    }
}

/// Metadata with one entry more. `kind`: the value's type, as a file numbers it.
fn with_entry(bytes: &[u8], key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    // The number of entries, and a new first one.
    let entries = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) + 1;
    bytes[16..24].copy_from_slice(&entries.to_le_bytes());
    let entry = [&(key.len() as u64).to_le_bytes()[..], key.as_bytes(), &kind.to_le_bytes(), value].concat();
    bytes.splice(24..24, entry);
    bytes
}

#[test]
fn a_conversation_with_tools_has_the_template_that_the_file_has_for_them() {
    const STRING: u32 = 8;
    let (path, bytes) = bytes("bpe");
    let source = "tools: {{ tools[0].name }}";
    let value = [&(source.len() as u64).to_le_bytes()[..], source.as_bytes()].concat();
    let bytes = with_entry(&bytes, "tokenizer.chat_template.tool_use", STRING, &value);
    let template = ChatTemplate::from_gguf(&Gguf::parse(&bytes).unwrap().metadata, &path).unwrap().unwrap();
    let (messages, tools) = (json!([{"role": "user", "content": "hi"}]), json!([{"name": "now"}]));
    let plain = template.render(&Conversation::of(&messages)).unwrap();
    assert!(plain.contains("[user] hi"), "{plain}");
    let with_tools = Conversation { tools: Some(&tools), ..Conversation::of(&messages) };
    assert_eq!(template.render(&with_tools).unwrap(), "tools: now");
}

/// Files of embedding models have texts end in EOS.
#[test]
fn a_file_that_adds_eos_ends_texts_in_it() {
    const BOOL: u32 = 7;
    for name in ["bpe", "spm"] {
        let (path, bytes) = bytes(name);
        let plain = tokenizer(&path, &bytes).unwrap();
        let bytes = with_entry(&bytes, "tokenizer.ggml.add_eos_token", BOOL, &[1]);
        let ending = tokenizer(&path, &bytes).unwrap();
        let want = [plain.encode("x", true).unwrap(), vec![plain.eos_id().unwrap()]].concat();
        assert_eq!(ending.encode("x", true).unwrap(), want, "{name}");
        assert_eq!(ending.encode("x", false).unwrap(), plain.encode("x", false).unwrap(), "{name}");
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

/// A file with another list of tokens, which stands before the old one under a name that nobody reads.
fn with_tokens(bytes: &[u8], change: impl FnOnce(&mut Vec<String>)) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let metadata = Gguf::parse(bytes).unwrap().metadata;
    let mut tokens: Vec<String> =
        metadata.array("tokenizer.ggml.tokens").unwrap().strings().unwrap().into_iter().map(str::to_owned).collect();
    change(&mut tokens);
    // An array (9) of strings (8).
    let mut entry = [text("tokenizer.ggml.tokens"), vec![9, 0, 0, 0, 8, 0, 0, 0]].concat();
    entry.extend((tokens.len() as u64).to_le_bytes());
    tokens.iter().for_each(|token| entry.extend(text(token)));
    let mut bytes = bytes.to_vec();
    let old = bytes.windows(21).position(|w| w == b"tokenizer.ggml.tokens").unwrap();
    bytes[old..old + 21].copy_from_slice(b"tokenizer.ggml.tekens");
    let count = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) + 1;
    bytes[16..24].copy_from_slice(&count.to_le_bytes());
    bytes.splice(24..24, entry);
    bytes
}

#[test]
fn a_token_that_stands_twice_has_its_first_id() {
    for name in ["bpe", "spm"] {
        let (path, bytes) = bytes(name);
        let plain = tokenizer(&path, &bytes).unwrap();
        let ids = plain.encode("Hello there", false).unwrap();
        let last = plain.vocab_size() as u32;
        // The last one: a copy of a token of the text. Two more are empty.
        let twice = with_tokens(&bytes, |tokens| {
            tokens[last as usize - 1] = tokens[ids[0] as usize].clone();
            tokens[last as usize - 2] = String::new();
            tokens[last as usize - 3] = String::new();
        });
        let twice = tokenizer(&path, &twice).unwrap();
        assert_eq!(twice.encode("Hello there", false).unwrap(), ids, "{name}");
        assert_eq!(twice.vocab_size(), plain.vocab_size(), "{name}");
        assert_eq!(twice.token_bytes(last - 1), plain.token_bytes(ids[0]), "{name}");
        assert_eq!(twice.token_bytes(last - 2), b"", "{name}");
    }
}
