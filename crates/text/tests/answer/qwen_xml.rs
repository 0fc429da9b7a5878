//! Calls as XML between tags.
use super::{Examples, call, open_call, open_calls, pushes, text, thought};
use text::{AnswerPart, AnswerSyntax, ToolCallFormat};

fn examples() -> Examples {
    Examples::new(ToolCallFormat::QwenXml)
}

/// A call as published templates write it.
fn written(function: &str, parameters: &[(&str, &str)]) -> String {
    let parameters = parameters.iter().map(|(key, value)| format!("<parameter={key}>\n{value}\n</parameter>\n"));
    format!("<tool_call>\n<function={function}>\n{}</function>\n</tool_call>", parameters.collect::<String>())
}

#[test]
fn calls_as_templates_write_them() {
    let one = written("get_weather", &[("city", "Paris, \"Île\""), ("days", "3"), ("wind", "true")]);
    let expected = call("get_weather", r#"{"city": "Paris, \"Île\"", "days": 3, "wind": true}"#);
    examples().check(&one, std::slice::from_ref(&expected));
    examples().check(
        &format!("<think>\nHm.\n</think>\n\nLet me look.\n{one}\n{one}\n"),
        &[thought("Hm."), text("Let me look."), expected.clone(), expected],
    );
    examples().check(&written("f", &[]), &[call("f", "{}")]);
    examples().check("<tool_call><function=f></function></tool_call>", &[call("f", "{}")]);
    // A tool that the request does not have.
    examples().check(&written("g", &[("a b", "x")]), &[call("g", r#"{"a b": "x"}"#)]);
}

#[test]
fn values_have_the_types_of_the_schema() {
    let value = |key: &str, value: &str, json: &str| {
        examples()
            .check(&written("get_weather", &[(key, value)]), &[call("get_weather", &format!("{{\"{key}\": {json}}}"))]);
    };
    value("city", "5", "\"5\"");
    value("city", "null", "\"null\"");
    value("city", "", "\"\"");
    value("city", "a\n\n  \"b\"\\\t</param> <parameter=x>\n", r#""a\n\n  \"b\"\\\t</param> <parameter=x>\n""#);
    value("days", "3.0", "3");
    value("days", "soon", "\"soon\"");
    value("wind", "False", "false");
    value("area", "[1,\n {\"a\": 2}]", "[1,\n {\"a\": 2}]");
    value("area", "null", "null");
    value("area", "[1, 'a']", "[1, \"a\"]");
    // What the schema does not know.
    value("x", "1.50", "1.50");
    value("x", "\"s\"", r#""\"s\"""#);
    value("x", "{broken", "\"{broken\"");
}

#[test]
fn tags_that_models_leave_out() {
    let bare = "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>";
    let expected = [text("Now."), call("get_weather", r#"{"city": "Paris"}"#)];
    examples().check(&format!("Now.\n{bare}"), &expected);
    examples().check(&format!("Now.\n{bare}\n</tool_call>"), &expected);
    examples().check(
        &format!("Now.<tool_call>{bare}\n{bare}"),
        &[expected[0].clone(), expected[1].clone(), expected[1].clone()],
    );
    examples().check("<tool_call>\n<function=f>\n</tool_call>.", &[call("f", "{}"), text(".")]);
    examples().check(
        "<tool_call><function=f></function>\n<tool_call><function=f></function></tool_call>",
        &[call("f", "{}"), call("f", "{}")],
    );
    // Without the tag before it, a function must be one that there is.
    examples().check("Write <function=name> here.", &[text("Write <function=name> here.")]);
    examples().check("a <function=\nb", &[text("a <function=\nb")]);
}

#[test]
fn what_is_no_call_is_text_and_what_breaks_stays_unclosed() {
    examples().check("a <tool_call>\nnone\n</tool_call> b", &[text("a \nnone\n b")]);
    examples().check("<tool_call><function=></function></tool_call>", &[text("<function=>")]);
    examples().check("<tool_call><function=a<b></tool_call>c", &[text("<function=a<b>c")]);
    examples().check(
        "<tool_call><function=f>x<parameter=a>1</parameter></function></tool_call>b",
        &[open_call("f", "{"), text("b")],
    );
    examples()
        .check("<tool_call><function=f><parameter=a\n></function></tool_call>b", &[open_call("f", "{"), text("b")]);
    examples().check("<function=f>x</function>b", &[open_call("f", "{"), text("b")]);
    examples().check(
        "<tool_call><function=f><tool_call><function=g></function></tool_call>",
        &[open_call("f", "{"), call("g", "{}")],
    );
    // Behind a call.
    examples().check("<tool_call><function=f></function>x</tool_call>y", &[call("f", "{}"), text("xy")]);
}

#[test]
fn an_answer_that_is_cut_off_leaves_the_call_unclosed() {
    let whole = written("get_weather", &[("city", "Paris"), ("days", "3")]);
    for (end, expected) in [
        ("<tool_call>\n<func", text("\n<func")),
        ("<function=get", text("\n<function=get")),
        ("<function=get_weather>\n", open_call("get_weather", "{")),
        ("Par", open_call("get_weather", r#"{"city": "Par"#)),
        ("Paris\n</parameter>", open_call("get_weather", r#"{"city": "Paris""#)),
        ("3\n", open_call("get_weather", r#"{"city": "Paris", "days": "#)),
        ("3\n</parameter>\n", open_call("get_weather", r#"{"city": "Paris", "days": 3"#)),
        ("</function>\n</tool", call("get_weather", r#"{"city": "Paris", "days": 3}"#)),
    ] {
        let at = whole.find(end).unwrap() + end.len();
        examples().check(&whole[..at], &[expected]);
    }
}

#[test]
fn strings_are_told_as_they_come() {
    let mut push = pushes(ToolCallFormat::QwenXml);
    let arguments = |text: &str| AnswerPart::CallArguments(text.into());
    let opened = AnswerPart::CallOpened { name: "get_weather".into() };
    assert_eq!(push("<tool_call>\n<function=get_weather>"), [opened, arguments("{")]);
    assert_eq!(push("\n<parameter=city>"), [arguments("\"city\": \"")]);
    assert_eq!(push("\nPa\""), [arguments("Pa\\\"")]);
    assert_eq!(push("ris\n</"), [arguments("ris")]);
    assert_eq!(push("a"), [arguments("\\n</a")]);
    assert_eq!(push("</parameter>"), [arguments("\"")]);
}

#[test]
fn the_open_section_is_known() {
    let syntax = AnswerSyntax { thought: None, calls: Some(ToolCallFormat::QwenXml) };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        open_calls(syntax, &["<tool_call>", "\n<function=f></function>", "</tool_call>"]),
        [some(""), some("\n<function=f></function>"), None]
    );
    assert_eq!(
        open_calls(syntax, &["<function", "=", "f></function", ">"]),
        [None, some("<function="), some("<function=f></function"), None]
    );
}
