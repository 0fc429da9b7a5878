//! A broken tokenizer or template gives an error or something that works, never a panic.
#![allow(clippy::unwrap_used)] // helpers of tests
use gguf::Gguf;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use text::{ChatTemplate, Conversation, PromptEnd, Tokenizer};

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

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_dir(&repo("models/tiny-mistral")).unwrap());

/// What Jinja has, whole and broken.
const SNIPPETS: [&str; 24] = [
    "",
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "'",
    "\"",
    "(",
    ")",
    "['",
    "|",
    "| tojson",
    "| indent(99999999)",
    " % ",
    "'%s' % (",
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if",
    "{% set x = x ~ x %}",
    "loop.",
    ".rsplit(none, -1)",
    "{% raw %}",
    "'%999999999s' % 1",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(testkit::cases(200)))]

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

    /// A template is a file that somebody made; a broken one is refused, or renders something.
    #[test]
    fn templates_never_panic(
        file in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), 0usize..40, select(SNIPPETS.to_vec())), 1..4),
        content in "(<[|]?|end|[|]>|None|%s|\\{\\{| |é|\u{fdd0}){0,6}",
        open: bool,
    ) {
        let folder = repo("crates/text/tests/templates/corpus");
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        let mut source: Vec<char> = std::fs::read_to_string(&files[file.index(files.len())]).unwrap().chars().collect();
        for (at, cut, with) in &changes {
            let at = at.index(source.len());
            source.splice(at..(at + cut).min(source.len()), with.chars());
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("chat_template.jinja"), String::from_iter(source)).unwrap();
        let template = ChatTemplate::from_dir(folder.path()).unwrap().unwrap();
        let call = json!({"id": content, "function": {"name": content, "arguments": {"a": content}}});
        let messages = json!([
            {"role": "user", "content": content}, {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "content": content},
        ]);
        let end = if open { PromptEnd::OpenMessage } else { PromptEnd::Answer };
        let _ = template.encode(&Conversation { end, ..Conversation::of(&messages) }, &TOKENIZER, true);
        template.turn_end(&TOKENIZER);
    }

    #[test]
    fn gguf_tokenizers_never_panic(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6),
        text in any::<String>(),
    ) {
        for file in ["tiny-smollm3-bf16.gguf", "tiny-mistral-q8_0-00001-of-00002.gguf"] {
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
