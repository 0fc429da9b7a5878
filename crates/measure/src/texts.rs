//! The texts that models are judged on, as sequences of tokens. `data/README.md` tells where each comes from.
use engine::{ModelBundle, StartError, text_windows};
use serde_json::{Map, Value};
use std::fmt;
use std::str::FromStr;
use text::{Conversation, PromptEnd};

pub use engine::wikitext;

/// A conversation with an agent: `tools` and `messages` in OpenAI's form. A result that is a file of this repository
/// has its path as `file` in place of `content`.
const AGENT_CHAT: &str = include_str!("../../../data/agent-chat.json");
/// What is told of a chat whose model has no tools.
const NO_TOOLS: &str = "The model's chat template has no way to call tools: they are not listed, and a call is \
                        whatever the template makes of its message.";

macro_rules! repository_files {
    ($($path:literal),* $(,)?) => { [$(($path, include_str!(concat!("../../../", $path)))),*] };
}

/// Source code in the languages of this repository: paths and texts.
const CODE: [(&str, &str); 11] = repository_files![
    "scripts/check-schemas.py",
    "crates/scheduler/src/fair.rs",
    "kernels/rowwise/top.metal",
    "scripts/check-clients.sh",
    "scripts/soak.py",
    "crates/kv/src/sealed.rs",
    "kernels/attend/reduce.metal",
    "scripts/check-agents.sh",
    "crates/text/src/answer/pythonic.rs",
    "crates/server/tests/clients/with_agents.py",
    "crates/hub/src/files.rs",
];

/// What the tools of the conversation read.
const CHAT_FILES: [(&str, &str); 4] = repository_files![
    "scripts/check-size.sh",
    "crates/kv/README.md",
    "kernels/rowwise/gate.metal",
    "scripts/check-text.py",
];

/// A text that comes with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundledText {
    /// Windows of wikitext.
    Wikitext,
    /// Windows of source code in Python, Rust, Metal and shell.
    Code,
    /// One conversation with tool calls, written by the model's chat template.
    Chat,
    /// One long sequence: articles of wikitext, one after the other.
    Document,
}

impl BundledText {
    /// All of them.
    pub const ALL: [BundledText; 4] =
        [BundledText::Wikitext, BundledText::Code, BundledText::Chat, BundledText::Document];

    /// The name that users give.
    pub fn name(self) -> &'static str {
        match self {
            BundledText::Wikitext => "wikitext",
            BundledText::Code => "code",
            BundledText::Chat => "chat",
            BundledText::Document => "document",
        }
    }

    /// The text's sequences for a model.
    ///
    /// Errors: those of [`windows`]; a conversation that the model has no template for, or that its template refuses.
    pub fn sequences(self, bundle: &ModelBundle, lengths: &TextLengths) -> Result<JudgedText, NotJudged> {
        match self {
            BundledText::Wikitext => Ok(JudgedText::of(windows(bundle, wikitext(), lengths.tokens, lengths.window)?)),
            BundledText::Code => Ok(JudgedText::of(windows(bundle, &code(), lengths.tokens, lengths.window)?)),
            BundledText::Chat => chat(bundle),
            BundledText::Document => Ok(JudgedText::of(vec![document(bundle, wikitext(), lengths.document)?])),
        }
    }
}

impl fmt::Display for BundledText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BundledText {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|text| text.name() == name);
        found.ok_or_else(|| format!("{name:?} is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// How much of a text is judged.
#[derive(Debug, Clone, Copy)]
pub struct TextLengths {
    /// Tokens of all windows at most.
    pub tokens: usize,
    /// Tokens of a window, the BOS token that begins each included.
    pub window: usize,
    /// Tokens of a document at most, its BOS token included.
    pub document: usize,
}

/// A text as a model reads it.
#[derive(Debug, Clone)]
pub struct JudgedText {
    /// Sequences of tokens, each of which begins anew.
    pub sequences: Vec<Vec<u32>>,
    /// What a reader has to know of how the text was made for this model.
    pub note: Option<String>,
}

impl JudgedText {
    /// Sequences of which there is nothing to say.
    pub fn of(sequences: Vec<Vec<u32>>) -> Self {
        JudgedText { sequences, note: None }
    }
}

/// Why a model is not judged on a text.
#[derive(Debug, thiserror::Error)]
pub enum NotJudged {
    /// The model cannot be given this text. It can be judged on others.
    #[error("{0}")]
    Unfit(String),
    /// The lengths are wrong, or the model fails.
    #[error(transparent)]
    Failed(#[from] StartError),
}

/// Whole windows of the text's first `limit` tokens. A window has `window` tokens, the BOS token that begins it
/// included.
///
/// Errors: a window that the model does not allow, a text shorter than a window.
pub fn windows(bundle: &ModelBundle, text: &str, limit: usize, window: usize) -> Result<Vec<Vec<u32>>, StartError> {
    let context = bundle.model_config.max_position_embeddings;
    if !(2..=context).contains(&window) {
        let message = format!("is {window}; it must lie in [2, {context}], the model's context");
        return Err(StartError::flag("--window", message));
    }
    let mut tokens = bundle.tokenizer.encode(text, false)?;
    tokens.truncate(limit);
    let windows = text_windows(&tokens, bundle.tokenizer.added_bos(), window);
    if windows.is_empty() {
        let message =
            format!("is {window}; the text has {} tokens, of which --tokens lets {limit} be read", tokens.len());
        return Err(StartError::flag("--window", message));
    }
    Ok(windows)
}

/// The text's first tokens as one sequence, no longer than the model's context.
fn document(bundle: &ModelBundle, text: &str, length: usize) -> Result<Vec<u32>, StartError> {
    if length < 2 {
        return Err(StartError::flag("--document-tokens", format!("is {length}; it must be at least 2")));
    }
    let mut sequence: Vec<u32> = bundle.tokenizer.added_bos().into_iter().collect();
    sequence.extend(bundle.tokenizer.encode(text, false)?);
    sequence.truncate(length.min(bundle.model_config.max_position_embeddings));
    Ok(sequence)
}

/// The files of the code, each after its path.
fn code() -> String {
    CODE.iter().map(|(path, text)| format!("{path}\n\n{text}\n")).collect()
}

/// The conversation as the server gives it to the model.
fn chat(bundle: &ModelBundle) -> Result<JudgedText, NotJudged> {
    let Some(template) = &bundle.template else {
        return Err(NotJudged::Unfit("The model has no chat template.".into()));
    };
    let (tools, messages) = agent_chat().map_err(|e| NotJudged::Unfit(format!("data/agent-chat.json: {e}")))?;
    // As in the server, which refuses tools for a model that cannot call them, but takes any messages.
    let mut notes = Vec::new();
    if !template.takes_tools() {
        notes.push(NO_TOOLS.to_owned());
    }
    let kwargs = Map::new();
    let conversation = Conversation {
        messages: &messages,
        tools: template.takes_tools().then_some(&tools),
        kwargs: Some(&kwargs),
        end: PromptEnd::ClosedMessage,
    };
    let rendered = template.encode(&conversation, &bundle.tokenizer, false);
    let mut ids = rendered.map_err(|e| NotJudged::Unfit(format!("{e}.")))?.ids;
    let context = bundle.model_config.max_position_embeddings;
    if ids.len() > context {
        notes.push(format!("Of {} tokens the first {context} are judged, the model's context.", ids.len()));
        ids.truncate(context);
    }
    Ok(JudgedText { sequences: vec![ids], note: (!notes.is_empty()).then(|| notes.join(" ")) })
}

/// The tools and the messages of the conversation, its files filled in.
fn agent_chat() -> Result<(Value, Value), serde_json::Error> {
    let mut chat: Map<String, Value> = serde_json::from_str(AGENT_CHAT)?;
    let mut take = |name| chat.remove(name).unwrap_or_default();
    let (tools, mut messages) = (take("tools"), take("messages"));
    for message in messages.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(path) = message.remove("file") {
            let file = CHAT_FILES.iter().find(|(name, _)| path == *name);
            message.insert("content".into(), file.map_or(Value::Null, |(_, text)| (*text).into()));
        }
    }
    Ok((tools, messages))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::EngineConfig;

    const LENGTHS: TextLengths = TextLengths { tokens: 5000, window: 1024, document: 3000 };

    fn loaded(model: &str, template: Option<&str>) -> ModelBundle {
        let mut config = EngineConfig::new(testkit::repo(model));
        config.chat_template = template.map(|path| testkit::repo("crates/text/tests/templates").join(path));
        engine::load(&config).unwrap()
    }

    /// Figures of `docs/` are of these bytes.
    #[test]
    fn the_sample_of_wikitext_is_whole() {
        assert_eq!(wikitext().len(), 250_000);
        assert!(wikitext().trim_start().starts_with("= Robert Boulter ="), "{:?}", &wikitext()[..40]);
    }

    /// Documents and windows are the text's tokens, each once and in their order, up to their limits.
    #[test]
    fn sequences_have_every_token_once() {
        let bundle = loaded("models/demo", None);
        let tokens = bundle.tokenizer.encode(wikitext(), false).unwrap();
        let bos: Vec<u32> = bundle.tokenizer.added_bos().into_iter().collect();
        let sequences = |text: BundledText, lengths: &TextLengths| text.sequences(&bundle, lengths).unwrap().sequences;

        let document = sequences(BundledText::Document, &LENGTHS);
        assert_eq!(document, [[&bos[..], &tokens[..3000 - bos.len()]].concat()]);
        let whole = TextLengths { document: 1_000_000, ..LENGTHS };
        let context = bundle.model_config.max_position_embeddings;
        assert_eq!(sequences(BundledText::Document, &whole)[0].len(), context);

        let windows = sequences(BundledText::Wikitext, &LENGTHS);
        assert!(windows.iter().all(|window| window.len() == 1024 && window.starts_with(&bos)));
        let bodies: Vec<u32> = windows.iter().flat_map(|window| &window[bos.len()..]).copied().collect();
        assert_eq!(bodies, tokens[..bodies.len()]);
        assert_eq!(windows.len(), 5000 / (1024 - bos.len()));
    }

    /// Code is in every language already where few tokens are judged.
    #[test]
    fn code_has_its_languages_early() {
        let bundle = loaded("models/demo", None);
        let lengths = TextLengths { tokens: 16_384, ..LENGTHS };
        let windows = BundledText::Code.sequences(&bundle, &lengths).unwrap().sequences;
        let text: String = windows.iter().map(|window| bundle.tokenizer.decode(window, true)).collect();
        for language in ["import json", "impl ", "[[buffer(0)]]", "set -euo pipefail"] {
            assert!(text.contains(language), "{language}");
        }
    }

    /// Calls, their results and the tools are in the text in the form that each template has for them.
    #[test]
    fn chats_have_calls_in_the_models_form() {
        let hermes = [
            "<tool_call>\n{\"name\": \"read_file\", \"arguments\": {\"path\": \"scripts/check-size.sh\"}}\n",
            "<tool_response>\n#!/usr/bin/env bash\n# The checkout, models and fixtures included",
            "{\"type\": \"function\", \"function\": {\"name\": \"list_files\"",
        ];
        let xml = [
            "<tool_call>\n<function=read_file>\n<parameter=path>\nscripts/check-size.sh\n</parameter>",
            "<tool_response>\n#!/usr/bin/env bash\n# The checkout, models and fixtures included",
            "<name>list_files</name>",
        ];
        for (template, parts) in [("qwen2_5.jinja", hermes), ("corpus/qwen3_coder.jinja", xml)] {
            let bundle = loaded("models/eval", Some(template));
            let JudgedText { sequences, note } = BundledText::Chat.sequences(&bundle, &LENGTHS).unwrap();
            assert_eq!(sequences.len(), 1);
            let text = bundle.tokenizer.decode(&sequences[0], false);
            for part in parts {
                assert!(text.contains(part), "{template}: no {part} in {text}");
            }
            // The toy's vocabulary makes more tokens of the conversation than its context has.
            assert!(note.is_some_and(|note| note.contains("the first 4096 are judged")));
            assert_eq!(sequences[0].len(), 4096);
        }
    }

    #[test]
    fn models_without_templates_or_tools_are_told_of() {
        let none = BundledText::Chat.sequences(&loaded("models/tiny-qwen2", None), &LENGTHS);
        assert!(matches!(none, Err(NotJudged::Unfit(reason)) if reason == "The model has no chat template."));
        let plain = BundledText::Chat.sequences(&loaded("models/demo", None), &LENGTHS).unwrap();
        assert!(plain.note.is_some_and(|note| note.starts_with(NO_TOOLS)));
    }

    #[test]
    fn the_conversation_is_whole() {
        let (tools, messages) = agent_chat().unwrap();
        assert!(tools.as_array().is_some_and(|tools| tools.len() == 5));
        let messages = messages.as_array().unwrap();
        let results: Vec<&Value> = messages.iter().filter(|message| message["role"] == "tool").collect();
        assert!(results.iter().all(|message| message["content"].is_string()), "a file is not bundled");
        let calls = messages.iter().filter_map(|message| message["tool_calls"].as_array()).flatten();
        let ids: Vec<&Value> = calls.map(|call| &call["id"]).collect();
        assert_eq!(ids, results.iter().map(|message| &message["tool_call_id"]).collect::<Vec<_>>());
    }

    #[test]
    fn wrong_lengths_and_names_are_named() {
        let bundle = loaded("models/tiny-qwen2", None);
        let error = |text: BundledText, lengths| text.sequences(&bundle, &lengths).unwrap_err().to_string();
        let long = error(BundledText::Wikitext, TextLengths { window: 1_000_000, ..LENGTHS });
        assert!(long.contains("--window: is 1000000; it must lie in [2, "), "{long}");
        let few = error(BundledText::Code, TextLengths { tokens: 100, window: 128, ..LENGTHS });
        assert!(few.contains("--window: is 128; the text has 100 tokens"), "{few}");
        let short = error(BundledText::Document, TextLengths { document: 1, ..LENGTHS });
        assert!(short.contains("--document-tokens: is 1; it must be at least 2"), "{short}");
        assert_eq!("chat".parse(), Ok(BundledText::Chat));
        let unknown = "chats".parse::<BundledText>().unwrap_err();
        assert_eq!(unknown, "\"chats\" is none of wikitext, code, chat, document");
    }
}
