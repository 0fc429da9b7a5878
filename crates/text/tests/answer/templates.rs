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
        ("llama3", None, Some(LlamaJson)),
        ("mistral", None, Some(Mistral)),
        ("qwen2_5", None, Some(Hermes)),
        ("qwen3", THINK, Some(Hermes)),
        ("corpus/chatml", None, None),
        ("corpus/command_r", None, None),
        ("corpus/deepseek_r1", THINK, Some(DeepSeek)),
        ("corpus/functionary", None, None),
        ("corpus/gemma", None, None),
        ("corpus/gemma3", None, None),
        ("corpus/glm4", THINK, None),
        ("corpus/granite", None, None),
        ("corpus/hermes", None, Some(Hermes)),
        ("corpus/llama2", None, None),
        ("corpus/llama3_0", None, None),
        ("corpus/llama3_2", None, Some(LlamaJson)),
        ("corpus/nemo", None, Some(Mistral)),
        ("corpus/phi3", None, None),
        ("corpus/phi4", None, None),
        ("corpus/qwen3_coder", None, Some(QwenXml)),
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

/// What templates of other families say about calls.
#[test]
fn what_other_families_write_shows_their_syntax() {
    use ToolCallFormat::*;
    for (source, calls) in [
        // Qwen3.5.
        (r"'<tool_call>\n<function=' + tool_call.name + '>\n' '<parameter=' + args_name + '>\n'", Some(QwenXml)),
        // SmolLM3, Hermes, EXAONE.
        (
            r#""<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>""#,
            Some(Hermes),
        ),
        // Llama 3.2 and 4 with a list of calls.
        ("Environment: ipython. Respond in the format [func_name1(params_name1=params_value1, ..)]", Some(Pythonic)),
        // Llama 4.
        (
            r#"message.role == "ipython" '{"name": "' + tool_call.function.name + '", ' '"parameters": '"#,
            Some(LlamaJson),
        ),
        // Devstral, Ministral 3.
        ("'[TOOL_CALLS]' + tool['function']['name'] + '[ARGS]' + arguments", Some(Mistral)),
        // DeepSeek V3.1.
        ("'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'+ name + '<｜tool▁sep｜>' + arguments", Some(DeepSeek)),
        // GLM 4.5.
        (r#"'\n<tool_call>' + tc.name '<arg_key>' k '</arg_key>' "arguments""#, None),
        // Apriel.
        (r#"within <tool_call></tool_call> <tool_calls>[{"name": <name>, "arguments": <args>}]</tool_calls>"#, None),
        // Seed-OSS.
        ("<seed:tool_call>\n<function=example>\n<parameter=a>", None),
        // Nemotron.
        (r#"'<TOOLCALL>[' '{"name": "' + fn.name + '", "arguments": '"#, None),
        // Functionary.
        (r#"ipython {"name": "x", "parameters": } <function=example_function_name>{"a": 1}</function>"#, None),
        // Command R7B.
        (r#"<|START_ACTION|>[ {"tool_call_id": "0", "tool_name": "", "parameters": {}} {"name": "x"}"#, None),
    ] {
        assert_eq!(AnswerSyntax::of_template(source).calls, calls, "{source}");
    }
    for (source, open) in [
        ("'[SYSTEM_PROMPT]' '[THINK]' + block.thinking + '[/THINK]'", "[THINK]"),
        ("<|START_THINKING|>{{message.reasoning_content}}<|END_THINKING|>", "<|START_THINKING|>"),
        ("'<｜Assistant｜></think>'", "<think>"),
    ] {
        assert_eq!(AnswerSyntax::of_template(source).thought.map(|tags| tags.open), Some(open), "{source}");
    }
}
