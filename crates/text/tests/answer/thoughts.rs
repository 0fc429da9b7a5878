//! Thoughts and the text around them.
use super::{Examples, IN_THOUGHT, THINK, parse, text, thought, tools};
use text::{AnswerParser, AnswerPart, AnswerSyntax, ThoughtTags};

#[test]
fn a_thought_and_a_text() {
    let examples = Examples(AnswerSyntax { thought: THINK, calls: None });
    let both = [thought("One,\n\ntwo."), text("Three. <b>\n")];
    examples.check("<think>\nOne,\n\ntwo.\n</think>\n\nThree. <b>\n", &both);
    examples.check("\n <think>One,\n\ntwo.</think>Three. <b>\n", &both);
    examples.check(&format!("{IN_THOUGHT}One,\n\ntwo.\n</think>\nThree. <b>\n"), &both);
    // A model that writes the tag although the prompt ended with it.
    examples.check(&format!("{IN_THOUGHT}<think>\nOne,\n\ntwo.\n</think>\nThree. <b>\n"), &both);
    examples.check("<think>\n\n</think>\n\nHi", &[text("Hi")]);
    examples.check("<think></think>", &[]);
    examples.check("<think>\n\nx\n\n</think>", &[thought("\nx\n")]);
}

#[test]
fn thoughts_between_texts() {
    let examples = Examples(AnswerSyntax { thought: THINK, calls: None });
    let parts = [text("a"), thought("b"), text("c"), thought("d")];
    examples.check("a\n<think>b</think>\n c \n<think>d</think>\n", &parts);
    // A closing tag alone is no text.
    examples.check("a</think> b", &[text("a b")]);
}

#[test]
fn an_answer_that_is_cut_off_loses_nothing() {
    let examples = Examples(AnswerSyntax { thought: THINK, calls: None });
    examples.check("<think>\nOne\n</thi", &[thought("One\n</thi")]);
    examples.check("<think>One\n", &[thought("One\n")]);
    examples.check("Text <thin", &[text("Text <thin")]);
    examples.check(" \n", &[text(" \n")]);
}

#[test]
fn other_tags_are_text() {
    let tags = ThoughtTags::ALL.iter().find(|tags| tags.open == "[THINK]").copied();
    let examples = Examples(AnswerSyntax { thought: tags, calls: None });
    examples.check("[THINK]a<think>[/THIN[/THINK]b[0] </think>", &[thought("a<think>[/THIN"), text("b[0] </think>")]);
    Examples(AnswerSyntax::default())
        .check("<think>a</think> <tool_call>\n", &[text("<think>a</think> <tool_call>\n")]);
}

#[test]
fn nothing_is_held_back_that_cannot_become_a_tag() {
    let mut parts = Vec::new();
    let mut push = |parser: &mut AnswerParser, piece: &str| {
        parts.clear();
        parser.push(piece, &mut parts);
        parts.clone()
    };
    let text = |text: &str| vec![AnswerPart::Text(text.into())];
    let mut parser = AnswerParser::new(&AnswerSyntax { thought: THINK, calls: None }, false, &tools());
    assert_eq!(push(&mut parser, "a <t"), text("a"));
    assert_eq!(push(&mut parser, "h>b"), text(" <th>b"));
    assert_eq!(push(&mut parser, "<<"), text("<"));
    assert_eq!(push(&mut parser, "<"), text("<"));
    assert_eq!(push(&mut parser, " "), text("<"));
    let mut plain = AnswerParser::new(&AnswerSyntax::default(), false, &tools());
    assert_eq!(push(&mut plain, "a <think"), text("a <think"));
    assert_eq!(push(&mut plain, "\n\n"), text("\n\n"));
}

#[test]
fn an_answer_within_a_thought_says_so() {
    let syntax = AnswerSyntax { thought: THINK, calls: None };
    let mut parser = AnswerParser::new(&syntax, true, &[]);
    assert!(parser.in_thought());
    parser.push("x</think", &mut Vec::new());
    assert!(parser.in_thought());
    parser.push(">", &mut Vec::new());
    assert!(!parser.in_thought());
    // Without tags there are no thoughts, whatever the prompt.
    assert!(!AnswerParser::new(&AnswerSyntax::default(), true, &[]).in_thought());
    assert_eq!(parse(AnswerParser::new(&AnswerSyntax::default(), true, &[]), ["x"]), [text("x")]);
}

#[test]
fn a_prompt_that_ends_with_the_opening_tag_opens_a_thought() {
    let syntax = AnswerSyntax { thought: THINK, calls: None };
    assert!(syntax.opens_thought("<|im_start|>assistant\n<think>\n"));
    assert!(syntax.opens_thought("<think>"));
    assert!(!syntax.opens_thought("<think>\n\n</think>\n\n"));
    assert!(!syntax.opens_thought("<|im_start|>assistant\n"));
    assert!(!AnswerSyntax::default().opens_thought("<think>"));
}
