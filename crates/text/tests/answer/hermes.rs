//! Calls as JSON between tags.
use super::{Examples, IN_THOUGHT, call, open_call, open_calls, pushes, text, thought};
use text::{AnswerPart, AnswerSyntax, ToolCallFormat};

fn examples() -> Examples {
    Examples::new(ToolCallFormat::Hermes)
}

const PARIS: &str = r#"{"city": "Paris, \"Île\" </tool_call>", "days": 3}"#;

/// A call as published templates write it.
fn written(arguments: &str) -> String {
    format!("<tool_call>\n{{\"name\": \"get_weather\", \"arguments\": {arguments}}}\n</tool_call>")
}

#[test]
fn calls_as_templates_write_them() {
    let one = written(PARIS);
    examples().check(&one, &[call("get_weather", PARIS)]);
    examples().check(
        &format!("<think>\nI need it.\n</think>\n\nLet me look.\n\n{one}\n{one}\n"),
        &[thought("I need it."), text("Let me look."), call("get_weather", PARIS), call("get_weather", PARIS)],
    );
    examples().check(
        &format!("{IN_THOUGHT}Hm.</think>{one} Done."),
        &[thought("Hm."), call("get_weather", PARIS), text("Done.")],
    );
    // Arguments are as they were generated.
    let spaced = "{ \"a\" :\n[1.0, 2e5,{}] ,\"b\":\"\\u00e9\\/\"}";
    examples().check(&written(spaced), &[call("get_weather", spaced)]);
    examples().check(&written("{}"), &[call("get_weather", "{}")]);
}

#[test]
fn lists_and_several_calls_between_one_pair_of_tags() {
    let two = [call("f", r#"{"x": 1}"#), call("g", "{}")];
    let (first, second) = (r#"{"name": "f", "arguments": {"x": 1}}"#, r#"{"name": "g", "arguments": {}}"#);
    examples().check(&format!("<tool_call>[{first}, {second}]</tool_call>"), &two);
    examples().check(&format!("<tool_call>\n[\n{first},\n{second}\n]\n</tool_call>"), &two);
    examples().check(&format!("<tool_call>\n{first}\n{second}\n</tool_call>"), &two);
    examples().check(&format!("<tool_call>{first}\n<tool_call>{second}</tool_call>"), &two);
}

#[test]
fn any_order_of_keys_and_any_form_of_arguments() {
    let inner = |json: &str| format!("<tool_call>{json}</tool_call>");
    let expected = [call("f", r#"{"a": "b\n\"é"}"#)];
    for json in [
        r#"{"arguments": {"a": "b\n\"é"}, "name": "f"}"#,
        r#"{"id": [{"x": "y"}, 1.5], "parameters" : {"a": "b\n\"é"}, "type": "function", "name" :"f"}"#,
        r#"{"name": "f", "arguments": "{\"a\": \"b\\n\\\"\u00e9\"}"}"#,
        r#"{"arguments": " {\"a\": \"b\\n\\\"é\"}\n ", "n\u0061me": "f", "name": "g", "arguments": {}}"#,
    ] {
        examples().check(&inner(json), &expected);
    }
    for json in [
        r#"{"name": "f"}"#,
        r#"{"name": "f", "arguments": null}"#,
        r#"{"name": "f", "arguments": ""}"#,
        r#"{"arguments": " ", "name": "f"}"#,
        r#"{"name": "f", "arguments": "{}", "id": -0}"#,
    ] {
        examples().check(&inner(json), &[call("f", "{}")]);
    }
}

#[test]
fn what_is_no_call_is_text() {
    for json in [
        "",
        "get_weather(Paris)",
        "{\"city\": \"Paris\"}",
        "{'name': 'f'}",
        "{\"name\": 1}",
        "{\"name\": \"\"}",
        "[]",
        "[1, 2]",
        "{\"arguments\": {}}",
        "{\"arguments\": {\"a\": 1}, \"name\": nul}",
        "{\"arguments\": [1], \"name\": \"f\"}",
        "é",
        "{\"arguments\": \"x\", \"name\": \"f\"}",
        "{\"name\": \"\\ud800\"}",
        "{}",
        "[{}]",
        "{\"name\": \"a\nb\"}",
    ] {
        let expected = [text("Hm. "), text(json)];
        let expected: String =
            expected.iter().map(|t| if let super::Whole::Text(t) = t { t.as_str() } else { "" }).collect();
        examples().check(&format!("Hm. <tool_call>{json}</tool_call>"), &[text(&expected)]);
    }
    examples().check(
        "a <tool_call>b</tool_call> c<tool_call>{\"name\": \"f\"}</tool_call>d",
        &[text("a b c"), call("f", "{}"), text("d")],
    );
    // A closing tag alone.
    examples().check("a</tool_call> b", &[text("a b")]);
    // Text behind a call.
    examples().check("<tool_call>{\"name\": \"f\"}, really</tool_call>.", &[call("f", "{}"), text(", really.")]);
}

#[test]
fn a_call_that_breaks_stays_unclosed() {
    let open = |json: &str| format!("<tool_call>{json}</tool_call>\n After.");
    examples()
        .check(&open(r#"{"name": "f", "arguments": {"a": 1, b}}"#), &[open_call("f", r#"{"a": 1, "#), text("After.")]);
    examples().check(&open(r#"{"name": "f", "arguments": {"a": 1}"#), &[open_call("f", r#"{"a": 1}"#), text("After.")]);
    examples()
        .check(&open(r#"{"name": "f", "arguments": "{\"a\": x}"}"#), &[open_call("f", r#"{"a": "#), text("After.")]);
    examples().check(&open(r#"{"name": "f", "arguments": [1]}"#), &[open_call("f", ""), text("After.")]);
    examples().check(&open(r#"{"name": "f", "arguments": nil}"#), &[open_call("f", ""), text("After.")]);
    // What broke is behind a closing tag that is part of a key.
    examples().check(
        &open(r#"{"name": "f", "arguments": "{\"</tool_call>\": x"}"#),
        &[open_call("f", r#"{"</tool_call>": "#), text("After.")],
    );
    // The next call is whole.
    examples().check(
        &(open(r#"{"name": "f", !"#) + "<tool_call>{\"name\": \"g\"}</tool_call>"),
        &[open_call("f", ""), text("After."), call("g", "{}")],
    );
}

#[test]
fn an_answer_that_is_cut_off_leaves_the_call_unclosed() {
    let whole = written(r#"{"a": "b"}"#);
    for (end, expected) in [
        ("<tool_ca", vec![text("<tool_ca")]),
        ("<tool_call>\n", vec![text("\n")]),
        ("<tool_call>\n{\"name", vec![text("\n{\"name")]),
        ("\"get_weather\"", vec![open_call("get_weather", "")]),
        ("{\"a\"", vec![open_call("get_weather", "{\"a\"")]),
        ("\"b\"}", vec![open_call("get_weather", r#"{"a": "b"}"#)]),
        ("\"b\"}}", vec![call("get_weather", r#"{"a": "b"}"#)]),
        ("\n</tool", vec![call("get_weather", r#"{"a": "b"}"#)]),
    ] {
        let at = whole.find(end).unwrap() + end.len();
        let (cut, _) = whole.split_at(at);
        examples().check(cut, &expected);
    }
}

#[test]
fn calls_within_thoughts_are_thoughts_and_tags_within_arguments_are_arguments() {
    let one = written("{}");
    examples().check(&format!("<think>{one}</think>"), &[thought(&one)]);
    let tags = r#"{"a": "<think>x</think><tool_call>"}"#;
    examples().check(&written(tags), &[call("get_weather", tags)]);
}

#[test]
fn a_call_is_told_as_it_comes() {
    let mut push = pushes(ToolCallFormat::Hermes);
    let arguments = |text: &str| AnswerPart::CallArguments(text.into());
    assert_eq!(push("<tool_call>\n{\"name\": \"f"), []);
    assert_eq!(push("\""), [AnswerPart::CallOpened { name: "f".into() }]);
    assert_eq!(push(", \"arguments\":"), []);
    assert_eq!(push(" {"), [arguments("{")]);
    assert_eq!(push("\"a\":\"x"), [arguments("\"a\":\"x")]);
    assert_eq!(push("\"}"), [arguments("\"}")]);
    assert_eq!(push("}"), [AnswerPart::CallClosed]);
}

#[test]
fn the_open_section_is_known_from_its_opening_tag_to_its_closing_tag() {
    let syntax = AnswerSyntax { thought: None, calls: Some(ToolCallFormat::Hermes) };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        open_calls(syntax, &["a <tool_call", ">", "\n{\"na", "me\": \"f\"}</tool", "_call>", "b"]),
        [None, some(""), some("\n{\"na"), some("\n{\"name\": \"f\"}</tool"), None, None]
    );
    assert_eq!(open_calls(syntax, &["<tool_call>{}", "x</tool_call><tool_call>y"]), [some("{}"), some("y")]);
}

/// Small models leave the tags out.
#[test]
fn a_call_that_is_all_of_the_answer_needs_no_tags() {
    let bare = format!("{{\"name\": \"get_weather\", \"arguments\": {PARIS}}}");
    examples().check(&bare, &[call("get_weather", PARIS)]);
    examples().check(&format!("\n{bare}\n{bare}"), &[call("get_weather", PARIS), call("get_weather", PARIS)]);
    examples().check(&format!("{bare}\nDone."), &[call("get_weather", PARIS), text("Done.")]);
    for other in [r#"{"name": "nobody", "arguments": {}}"#, r#"{"name": "f", "age": 3}"#, r#"{"a": 1}"#] {
        examples().check(other, &[text(other)]);
    }
    let behind = r#"So: {"name": "f", "arguments": {}}"#;
    examples().check(behind, &[text(behind)]);
}
