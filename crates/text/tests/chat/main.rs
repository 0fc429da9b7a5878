//! From messages to a prompt: Jinja2's semantics, what templates are given, and the tokens that come of it.
#![allow(clippy::unwrap_used)] // helpers of tests
mod apart;
#[path = "../common/mod.rs"]
mod common;
mod corpus;
mod jinja;
mod messages;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use text::{ChatTemplate, Conversation, TextError};

fn repo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn with_template(source: &str) -> ChatTemplate {
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": source});
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    ChatTemplate::from_dir(dir.path()).unwrap().unwrap()
}

fn render(template: &ChatTemplate, messages: &Value) -> Result<String, TextError> {
    template.render(&Conversation::of(messages))
}
