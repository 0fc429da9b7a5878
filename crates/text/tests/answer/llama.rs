//! Calls as JSON that is all of the answer.
use super::{Examples, call, open_call, open_calls, parse, text, thought};
use text::{AnswerParser, AnswerSyntax, ToolCallFormat};

fn examples() -> Examples {
    Examples::new(ToolCallFormat::LlamaJson)
}

const PARIS: &str = r#"{"name": "get_weather", "parameters": {"city": "Paris"}}"#;

fn paris() -> super::Whole {
    call("get_weather", r#"{"city": "Paris"}"#)
}

#[test]
fn calls_as_templates_write_them() {
    examples().check(PARIS, &[paris()]);
    examples().check(&format!("\n {PARIS}\n"), &[paris()]);
    examples().check(&format!("<|python_tag|>{PARIS}"), &[paris()]);
    examples().check(&format!("Let me look. <|python_tag|>{PARIS}"), &[text("Let me look."), paris()]);
    examples().check(&format!("<think>Hm.</think>\n{PARIS}"), &[thought("Hm."), paris()]);
    examples().check(r#"{"type": "function", "name": "f", "parameters": {}}"#, &[call("f", "{}")]);
    examples().check(r#"{"parameters": {"a": 1}, "name": "f"}"#, &[call("f", r#"{"a": 1}"#)]);
    examples().check(r#"{"name": "f"}"#, &[call("f", "{}")]);
}

#[test]
fn several_calls() {
    let two = [paris(), call("f", "{}")];
    for separator in ["; ", ";", "\n", ";\n"] {
        let both = format!("{PARIS}{separator}{{\"name\": \"f\", \"parameters\": {{}}}}");
        examples().check(&both, &two);
        examples().check(&format!("<|python_tag|>{both};"), &two);
    }
    examples().check(&format!("{PARIS} That was it; really."), &[paris(), text("That was it; really.")]);
    examples().check(&format!("{PARIS}; {{\"a\": 1}}"), &[paris(), text("{\"a\": 1}")]);
}

#[test]
fn json_that_is_no_call_is_text() {
    for answer in [
        r#"{"title": "A", "name": "f"}"#,
        r#"{"name": "Ada", "age": 36}"#,
        r#"{"name": "f", "age": 36}"#,
        r#"{"name": "g", "parameters": {}}"#,
        r#"{"parameters": {"a": 1}, "name": "g"}"#,
        r#"{"name": "f", "parameters": [1]}"#,
        "{}",
        " {not JSON}",
        "{\"na",
        "{",
        "\n{\n  \"a\": [1, 2]\n}\n",
        "[1, 2]",
        "1 {\"name\": \"f\", \"parameters\": {}}",
    ] {
        examples().check(answer, &[text(answer)]);
    }
    // Without tools nothing can be a call.
    let parser = AnswerParser::new(&examples().0, false, &[]);
    assert_eq!(parse(parser, [PARIS]), [text(PARIS)]);
    // Behind the tag any tool is called, and what is no call is text.
    examples().check(r#"<|python_tag|>{"name": "g", "x": 1}"#, &[call("g", "{}")]);
    examples().check("<|python_tag|>brave.call(query=\"x\")", &[text("brave.call(query=\"x\")")]);
}

#[test]
fn a_call_that_breaks_or_is_cut_off_stays_unclosed() {
    examples().check(r#"{"name": "f", "parameters": {"a": x}} more"#, &[open_call("f", r#"{"a": "#)]);
    examples()
        .check(&format!(r#"{{"name": "f", "parameters": {{,<|python_tag|>{PARIS}"#), &[open_call("f", "{"), paris()]);
    examples().check(r#"{"name": "f", "parameters": {"a""#, &[open_call("f", r#"{"a""#)]);
    examples().check(r#"{"name": "f", "parameters": {}"#, &[open_call("f", "{}")]);
}

#[test]
fn the_open_section_is_known() {
    let syntax = AnswerSyntax { thought: None, calls: Some(ToolCallFormat::LlamaJson) };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(open_calls(syntax, &["\n", " {", "\"a", "\": 1}"]), [None, None, None, None]);
    // It may be an answer in JSON until the arguments of a tool begin.
    let head = "{\"name\": \"f\", \"parameters\": ";
    let pieces = ["\n{\"name\": \"f\"", ", \"parameters\": ", "{\"a", "\": 1}}"];
    let open = [None, None, Some(format!("{head}{{\"a")), Some(format!("{head}{{\"a\": 1}}}}"))];
    assert_eq!(open_calls(syntax, &pieces), open);
    assert_eq!(open_calls(syntax, &["<|python_", "tag|>", "{"]), [None, some(""), some("{")]);
    assert_eq!(open_calls(syntax, &["a ", "{"]), [None, None]);
}
