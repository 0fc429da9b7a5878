//! Calls behind a tag, in Mistral's two forms.
use super::{Examples, call, open_call, open_calls, text, thought};
use text::{AnswerParser, AnswerSyntax, ThoughtTags, ToolCallFormat};

fn examples() -> Examples {
    Examples::new(ToolCallFormat::Mistral)
}

const PARIS: &str = r#"{"city": "Paris ]}", "days": 3}"#;

#[test]
fn a_list_as_templates_write_it() {
    let paris = call("get_weather", PARIS);
    let item = format!("{{\"name\": \"get_weather\", \"arguments\": {PARIS}, \"id\": \"abcdefghi\"}}");
    examples().check(&format!("[TOOL_CALLS] [{item}]"), std::slice::from_ref(&paris));
    examples().check(&format!("[TOOL_CALLS][{item}, {item}]\n"), &[paris.clone(), paris.clone()]);
    examples().check(&format!("Let me look.[TOOL_CALLS]{item} Done."), &[text("Let me look."), paris, text("Done.")]);
}

#[test]
fn names_as_templates_write_them() {
    let paris = call("get_weather", PARIS);
    examples().check(&format!("[TOOL_CALLS]get_weather[ARGS]{PARIS}"), std::slice::from_ref(&paris));
    examples().check(&format!("[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{PARIS}"), std::slice::from_ref(&paris));
    examples().check(&format!("[TOOL_CALLS]get_weather{PARIS}"), std::slice::from_ref(&paris));
    examples().check(&format!("[TOOL_CALLS]get_weather[CALL_ID]abcdefghi{PARIS}"), std::slice::from_ref(&paris));
    examples().check(
        &format!("Now. [TOOL_CALLS] get_weather[ARGS]{PARIS}[TOOL_CALLS]f[ARGS]{{}} Done."),
        &[text("Now."), paris, call("f", "{}"), text("Done.")],
    );
    examples().check("[TOOL_CALLS]mcp/g.h-1[ARGS] {\"a\" :1}", &[call("mcp/g.h-1", "{\"a\" :1}")]);
}

#[test]
fn thoughts_in_brackets_and_calls() {
    let tags = ThoughtTags::ALL.iter().find(|tags| tags.open == "[THINK]").copied();
    let examples = Examples(AnswerSyntax { thought: tags, calls: Some(ToolCallFormat::Mistral) });
    examples.check("[THINK]Hm [1].[/THINK][TOOL_CALLS]f[ARGS]{}", &[thought("Hm [1]."), call("f", "{}")]);
}

#[test]
fn what_is_no_call_is_text_and_what_breaks_stays_unclosed() {
    examples().check("a [TOOL_CALLS] I cannot.", &[text("a  I cannot.")]);
    examples().check("[TOOL_CALLS]f", &[text("f")]);
    examples().check("[TOOL_CALLS]f[TOOL_CALLS]g[ARGS]{}", &[text("f"), call("g", "{}")]);
    examples().check("[TOOL_CALLS][1, 2][TOOL_CALLS]f{}", &[text("[1, 2]"), call("f", "{}")]);
    examples().check("a [ARGS] b", &[text("a  b")]);
    examples().check("[TOOL_CALLS]f[AR{}", &[text("f[AR{}")]);
    examples().check("[TOOL_CALLS]f[ARGS]{\"a\": x} b", &[open_call("f", "{\"a\": ")]);
    examples().check("[TOOL_CALLS]f[ARGS]oops[TOOL_CALLS]g[ARGS]{}", &[open_call("f", ""), call("g", "{}")]);
    examples().check("[TOOL_CALLS][{\"name\": \"f\", }, x]", &[open_call("f", "")]);
}

#[test]
fn an_answer_that_is_cut_off_leaves_the_call_unclosed() {
    examples().check("[TOOL_CALLS]get_weather[AR", &[text("get_weather[AR")]);
    examples().check("[TOOL_CALLS]f[ARGS]{\"a\"", &[open_call("f", "{\"a\"")]);
    examples().check("[TOOL_CALLS][{\"name\": \"f\"}, {", &[call("f", "{}"), text("{")]);
}

#[test]
fn the_open_section_is_known() {
    let syntax = AnswerSyntax { thought: None, calls: Some(ToolCallFormat::Mistral) };
    let some = |text: &str| Some(text.to_owned());
    let pieces = ["[TOOL_CALLS", "]", "f[ARGS]", "{", "}", "[TOOL_CALLS]g"];
    let expected = [None, some(""), some("f[ARGS]"), some("f[ARGS]{"), None, some("g")];
    assert_eq!(open_calls(syntax, &pieces), expected);
}

#[test]
fn many_ids_do_not_fill_the_stack() {
    let mut parser = AnswerParser::new(&examples().0, false, &[]);
    let mut parts = Vec::new();
    parser.push(&format!("[TOOL_CALLS]f{}[ARGS]{{}}", "[CALL_ID]x".repeat(100_000)), &mut parts);
    parser.finish(&mut parts);
    assert_eq!(super::join(&parts), [call("f", "{}")]);
}
