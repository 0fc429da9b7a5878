//! Expressions, filters, tests and methods of Python against Jinja2 (`tests/templates/golden.py`).
use super::with_template;
use serde_json::{Map, Value, json};
use std::path::Path;
use text::Conversation;

#[test]
fn expressions_render_as_in_jinja2() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates/expressions.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let variables: &Map<String, Value> = golden["variables"].as_object().unwrap();
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
    let mut wrong = Vec::new();
    for (source, expected) in golden["rendered"].as_object().unwrap() {
        let rendered =
            with_template(source).render(&Conversation { kwargs: Some(variables), ..Conversation::of(&messages) });
        match rendered {
            Ok(text) if text == *expected => {}
            Ok(text) => wrong.push(format!("{source}\n  is       {text:?}\n  jinja2   {expected}")),
            Err(e) => wrong.push(format!("{source}\n  fails: {e}\n  jinja2   {expected}")),
        }
    }
    assert!(wrong.is_empty(), "{} lines differ:\n{}", wrong.len(), wrong.join("\n"));
}
