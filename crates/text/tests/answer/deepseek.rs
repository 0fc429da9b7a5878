//! Calls between DeepSeek's tags.
use super::{Examples, call, open_call, open_calls, text, thought};
use text::{AnswerSyntax, ToolCallFormat};

fn examples() -> Examples {
    Examples::new(ToolCallFormat::DeepSeek)
}

const OPEN: &str = "<｜tool▁calls▁begin｜>";
const CLOSE: &str = "<｜tool▁calls▁end｜>";
const PARIS: &str = "{\"city\": \"Paris ```\", \"days\": 3}";

/// A call as R1's and V3's templates write it.
fn fenced(name: &str, arguments: &str) -> String {
    format!("<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>")
}

/// A call as V3.1's template writes it.
fn plain(name: &str, arguments: &str) -> String {
    format!("<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>")
}

#[test]
fn calls_as_templates_write_them() {
    let paris = call("get_weather", PARIS);
    for written in [fenced("get_weather", PARIS), plain("get_weather", PARIS)] {
        examples().check(&format!("{OPEN}{written}{CLOSE}"), std::slice::from_ref(&paris));
        examples().check(
            &format!("<think>\nHm.\n</think>\n\nNow.\n{OPEN}{written}\n{written}{CLOSE}\n"),
            &[thought("Hm."), text("Now."), paris.clone(), paris.clone()],
        );
    }
    examples().check(&format!("{OPEN}{}{CLOSE}Done.", plain("f", "")), &[call("f", "{}"), text("Done.")]);
    examples().check(&format!("{OPEN}{}{CLOSE}", fenced("f", "")), &[call("f", "{}")]);
    examples().check(&format!("{OPEN}\n{}\n{CLOSE}", fenced("f", "{}")), &[call("f", "{}")]);
}

#[test]
fn tags_that_models_leave_out() {
    let paris = call("get_weather", PARIS);
    for written in [fenced("get_weather", PARIS), plain("get_weather", PARIS)] {
        examples().check(&written, std::slice::from_ref(&paris));
        examples()
            .check(&format!("a\n{written}\n{written}{CLOSE}b"), &[text("a"), paris.clone(), paris.clone(), text("b")]);
        let unclosed = written.trim_end_matches("<｜tool▁call▁end｜>");
        examples().check(&format!("{OPEN}{unclosed}{written}{CLOSE}"), &[paris.clone(), paris.clone()]);
        examples().check(&format!("{OPEN}{unclosed}{CLOSE}b"), &[paris.clone(), text("b")]);
    }
    examples().check(&format!("a{CLOSE} <｜tool▁sep｜>b"), &[text("a b")]);
}

#[test]
fn what_is_no_call_is_text_and_what_breaks_stays_unclosed() {
    examples().check(&format!("{OPEN}none{CLOSE} b"), &[text("none b")]);
    examples().check(&format!("{OPEN}{}{CLOSE}b", plain("", "{}")), &[text("{}b")]);
    examples().check(&format!("{OPEN}{}{CLOSE}b", plain("f", "a few words")), &[text("fa few wordsb")]);
    examples().check(&format!("{OPEN}{}{CLOSE}b", fenced("f g\n", "x")), &[text("functionf g\n\n```json\nx\n```b")]);
    examples().check(&format!("{OPEN}<｜tool▁call▁begin｜>f{CLOSE}b"), &[text("fb")]);
    examples().check(
        &format!("{OPEN}{}{}{CLOSE}b", plain("f", "{x}"), plain("g", "{}")),
        &[open_call("f", "{"), call("g", "{}"), text("b")],
    );
    examples().check(&format!("{OPEN}{}{CLOSE}b", plain("f", "{} and")), &[open_call("f", "{}"), text("b")]);
    examples().check(&format!("{OPEN}{}{CLOSE}b", fenced("f", "[1]")), &[text("functionf\n```json\n[1]\n```b")]);
}

#[test]
fn an_answer_that_is_cut_off_leaves_the_call_unclosed() {
    let whole = format!("{OPEN}{}{CLOSE}", fenced("f", "{\"a\": 1}"));
    for (end, expected) in [
        ("<｜tool▁calls▁beg", text("<｜tool▁calls▁beg")),
        ("function", text("function")),
        ("<｜tool▁sep｜>f", text("functionf")),
        ("json\n{", open_call("f", "{")),
        ("1}", open_call("f", "{\"a\": 1}")),
        ("1}\n```<｜tool▁call▁en", open_call("f", "{\"a\": 1}")),
        ("1}\n```<｜tool▁call▁end｜>", call("f", "{\"a\": 1}")),
    ] {
        let at = whole.find(end).unwrap() + end.len();
        examples().check(&whole[..at], &[expected]);
    }
}

#[test]
fn the_open_section_is_known() {
    let syntax = AnswerSyntax { thought: None, calls: Some(ToolCallFormat::DeepSeek) };
    let some = |text: &str| Some(text.to_owned());
    let begun = "<｜tool▁call▁begin｜>";
    assert_eq!(open_calls(syntax, &["<｜tool▁calls▁begin｜", ">", begun, CLOSE]), [None, some(""), some(begun), None]);
    assert_eq!(open_calls(syntax, &["a", begun, "f"]), [None, some(begun), some("<｜tool▁call▁begin｜>f")]);
}
