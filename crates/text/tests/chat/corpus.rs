//! Templates of published families against Jinja2 (`tests/templates/golden.py`).
use super::{repo, with_template};
use serde_json::{Map, Value};
use std::path::PathBuf;
use text::{ChatTemplate, Conversation, PromptEnd, TextError};

fn folder() -> PathBuf {
    repo("crates/text/tests/templates")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// The template of a family.
fn source(family: &str) -> String {
    let file = format!("{family}.jinja");
    read(&if folder().join(&file).exists() { file } else { format!("corpus/{file}") })
}

/// Runs `with` on every family's template and every conversation.
pub fn each(mut with: impl FnMut(&str, usize, &ChatTemplate, &Conversation<'_>)) {
    let golden: Map<String, Value> = serde_json::from_str(&read("corpus.json")).unwrap();
    let conversations: Vec<Value> = serde_json::from_str(&read("conversations.json")).unwrap();
    let tools: Value = serde_json::from_str(&read("tools.json")).unwrap();
    assert!(golden.len() >= 25 && conversations.len() >= 12);
    for family in golden.keys() {
        let template = with_template(&source(family));
        for (number, case) in conversations.iter().enumerate() {
            let closed = case["add_generation_prompt"] == false;
            let conversation = Conversation {
                messages: &case["messages"],
                tools: case.get("tools").map(|_| &tools),
                kwargs: case["kwargs"].as_object(),
                end: if closed { PromptEnd::ClosedMessage } else { PromptEnd::Answer },
            };
            with(family, number, &template, &conversation);
        }
    }
}

/// The 64-bit FNV-1a hash.
fn fnv(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
    format!("{hash:016x}")
}

/// What the golden file has for a rendering, and the text.
fn entry(rendered: Result<String, TextError>) -> (String, String) {
    match rendered {
        Ok(text) => (fnv(&text), text),
        Err(TextError::Raised(message)) => (format!("raises {message}"), String::new()),
        Err(e) => ("fails".into(), e.to_string()),
    }
}

#[test]
fn published_templates_render_as_in_jinja2() {
    let golden: Map<String, Value> = serde_json::from_str(&read("golden.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&read("cases.json")).unwrap();
    assert_eq!(cases.len(), golden.len(), "run golden.py");
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let template = with_template(&source(case["template"].as_str().unwrap()));
        let closed = case["add_generation_prompt"] == false;
        let (entry, shown) = entry(template.render(&Conversation {
            messages: &case["messages"],
            tools: case.get("tools"),
            kwargs: case["kwargs"].as_object(),
            end: if closed { PromptEnd::ClosedMessage } else { PromptEnd::Answer },
        }));
        assert_eq!(entry, golden[name].as_str().unwrap(), "{name}: {shown}");
    }
}

#[test]
fn every_family_renders_every_conversation_as_jinja2_does() {
    let golden: Value = serde_json::from_str(&read("corpus.json")).unwrap();
    let mut wrong = Vec::new();
    each(|family, number, template, conversation| {
        let (entry, shown) = entry(template.render(conversation));
        let expected = &golden[family][number];
        if entry != *expected {
            wrong.push(format!("golden.py {family} {number}: {expected}; here {entry}:\n{shown}"));
        }
    });
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
