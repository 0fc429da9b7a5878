//! What templates show of the syntax of answers.
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use text::{AnswerSyntax, ChatTemplate, ToolCallFormat};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates")
}

/// Every template that is here, with the opening tag of its thoughts and the format of its calls.
const TABLE: [(&str, Option<&str>, Option<ToolCallFormat>); 26] = {
    use ToolCallFormat::*;
    const THINK: Option<&str> = Some("<think>");
    [
        ("blocks", None, None),
        ("llama3", None, None),
        ("mistral", None, None),
        ("qwen2_5", None, Some(Hermes)),
        ("qwen3", THINK, Some(Hermes)),
        ("corpus/chatml", None, None),
        ("corpus/command_r", None, None),
        ("corpus/deepseek_r1", THINK, None),
        ("corpus/functionary", None, None),
        ("corpus/gemma", None, None),
        ("corpus/gemma3", None, None),
        ("corpus/glm4", THINK, None),
        ("corpus/granite", None, None),
        ("corpus/hermes", None, Some(Hermes)),
        ("corpus/llama2", None, None),
        ("corpus/llama3_0", None, None),
        ("corpus/llama3_2", None, None),
        ("corpus/nemo", None, None),
        ("corpus/phi3", None, None),
        ("corpus/phi4", None, None),
        ("corpus/qwen3_coder", None, None),
        ("corpus/qwq", THINK, Some(Hermes)),
        ("corpus/smollm2", None, None),
        ("corpus/smollm3", THINK, Some(Hermes)),
        ("corpus/vicuna", None, None),
        ("corpus/zephyr", None, None),
    ]
};

#[test]
fn every_family_shows_its_syntax() {
    for (name, open, calls) in TABLE {
        let source = std::fs::read_to_string(folder().join(format!("{name}.jinja"))).unwrap();
        let syntax = AnswerSyntax::of_template(&source);
        assert_eq!((syntax.thought.map(|tags| tags.open), syntax.calls), (open, calls), "{name}");
    }
}

#[test]
fn the_table_has_all_templates() {
    let names = |below: &str| {
        let files = std::fs::read_dir(folder().join(below)).unwrap().map(|file| file.unwrap().path());
        let templates = files.filter(|path| path.extension().is_some_and(|extension| extension == "jinja"));
        templates.map(|path| format!("{below}{}", path.file_stem().unwrap().to_str().unwrap())).collect::<Vec<_>>()
    };
    let there: BTreeSet<String> = [names(""), names("corpus/")].concat().into_iter().collect();
    assert_eq!(there, TABLE.iter().map(|(name, ..)| (*name).to_owned()).collect());
}

#[test]
fn the_template_for_tools_shows_the_calls() {
    let read = |name: &str| std::fs::read_to_string(folder().join(format!("{name}.jinja"))).unwrap();
    let template = |templates: &[(&str, &str)]| {
        let list: Vec<_> = templates.iter().map(|(name, source)| json!({"name": name, "template": source})).collect();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer_config.json"), json!({"chat_template": list}).to_string()).unwrap();
        ChatTemplate::from_dir(dir.path()).unwrap().unwrap()
    };
    let (plain, thinks, calls) = (read("corpus/chatml"), read("corpus/glm4"), read("qwen2_5"));
    let calls_alone = AnswerSyntax { thought: None, calls: Some(ToolCallFormat::Hermes) };
    assert_eq!(template(&[("default", &plain), ("tool_use", &calls)]).answer_syntax(), calls_alone);
    assert_eq!(template(&[("default", &calls), ("tool_use", &plain)]).answer_syntax(), calls_alone);
    let both = AnswerSyntax { thought: super::THINK, calls: Some(ToolCallFormat::Hermes) };
    assert_eq!(template(&[("default", &thinks), ("tool_use", &calls)]).answer_syntax(), both);
    // Templates of other names are for other requests, and broken ones show nothing.
    assert_eq!(template(&[("default", &plain), ("rag", &calls)]).answer_syntax(), AnswerSyntax::default());
    assert_eq!(template(&[("default", &(calls + "{%"))]).answer_syntax(), AnswerSyntax::default());
}
