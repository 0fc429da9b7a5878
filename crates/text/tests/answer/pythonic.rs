//! Calls as a Python list.
use super::{Examples, call, open_call, open_calls, pushes, text, thought};
use text::{AnswerPart, AnswerSyntax, ToolCallFormat};

fn examples() -> Examples {
    Examples::new(ToolCallFormat::Pythonic)
}

#[test]
fn calls_as_models_write_them() {
    let paris = call("get_weather", r#"{"city": "Paris, \"Île\"", "days": 3, "wind": true}"#);
    let written = "get_weather(city='Paris, \"Île\"', days=3, wind=True)";
    examples().check(&format!("[{written}]"), std::slice::from_ref(&paris));
    examples().check(&format!("\n[{written}, f(), {written}]\n"), &[paris.clone(), call("f", "{}"), paris.clone()]);
    examples().check(&format!("<think>Hm.</think>\n[{written}] Done."), &[thought("Hm."), paris, text("Done.")]);
    examples().check("[ f ( ) , f ( a = 1 , ) , ]", &[call("f", "{}"), call("f", "{\"a\": 1}")]);
    examples().check("[search.web(q=\"\")]", &[call("search.web", "{\"q\": \"\"}")]);
}

#[test]
fn values_become_json() {
    let value = |python: &str, json: &str| {
        examples().check(&format!("[f(a={python}, b=1)]"), &[call("f", &format!("{{\"a\": {json}, \"b\": 1}}"))]);
    };
    value("None", "null");
    value("-2.5e-3", "-2.5e-3");
    value("-.5", "-0.5");
    value("1_000", "1000");
    value("'it\\'s \\x41\\n'", r#""it's A\n""#);
    value("\"\"\"a\n\"b\" \"\"\"", r#""a\n\"b\" ""#);
    value("[1, ['a', {}], ()]", r#"[1, ["a", {}], []]"#);
    value("{'a': {\"b\": [True, False]}, }", r#"{"a": {"b": [true, false]}}"#);
    value("')]'", "\")]\"");
}

#[test]
fn lists_that_are_no_calls_are_text() {
    for answer in [
        "[1, 2, 3]",
        "[]",
        "[",
        "[get_weather",
        "[get_weather]",
        "[g(a=1)]",
        "[f(1)]",
        "[f('x')]",
        "[f(**x)]",
        "[f(a)]",
        " [f (a b)]",
        "[link](f)",
        "Use [f(a=1)].",
        "{\"a\": 1}",
    ] {
        examples().check(answer, &[text(answer)]);
    }
    examples().check("[f(), g(a=1)]", &[call("f", "{}"), text("g(a=1)]")]);
    examples().check("[f(), and so on", &[call("f", "{}"), text("and so on")]);
}

#[test]
fn a_call_that_breaks_or_is_cut_off_stays_unclosed() {
    examples().check("[f(a=x)] more", &[open_call("f", "{\"a\": ")]);
    examples().check("[f(a=1, 2)]", &[open_call("f", "{\"a\": 1")]);
    examples().check("[f(a=1 b=2)]", &[open_call("f", "{\"a\": 1")]);
    examples().check("[f(a='b", &[open_call("f", "{\"a\": \"b")]);
    examples().check("[f(a=1, b", &[open_call("f", "{\"a\": 1")]);
    examples().check("[f(a=1)", &[call("f", "{\"a\": 1}")]);
    examples().check("[f(a=1), f", &[call("f", "{\"a\": 1}"), text("f")]);
}

#[test]
fn a_call_is_told_as_it_comes() {
    let mut push = pushes(ToolCallFormat::Pythonic);
    let arguments = |text: &str| AnswerPart::CallArguments(text.into());
    assert_eq!(push("[f(a"), []);
    assert_eq!(push("="), [AnswerPart::CallOpened { name: "f".into() }, arguments("{\"a\": ")]);
    assert_eq!(push("'x"), [arguments("\"x")]);
    assert_eq!(push("y'"), [arguments("y\"")]);
    assert_eq!(push(")"), [arguments("}"), AnswerPart::CallClosed]);
}

#[test]
fn the_open_section_is_known() {
    let syntax = AnswerSyntax { thought: None, calls: Some(ToolCallFormat::Pythonic) };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(open_calls(syntax, &["\n", "[f", "()", "]"]), [None, None, some("[f()"), None]);
    assert_eq!(open_calls(syntax, &["[f(a", "=", "1"]), [None, some("[f(a="), some("[f(a=1")]);
    assert_eq!(open_calls(syntax, &["[", "1"]), [None, None]);
}
