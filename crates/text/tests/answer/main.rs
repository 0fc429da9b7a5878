//! Text, thoughts and tool calls of answers, in whatever pieces they come.
#![allow(clippy::unwrap_used)] // helpers of tests
mod deepseek;
mod fuzz;
mod hermes;
mod llama;
mod mistral;
mod pythonic;
mod qwen_xml;
mod templates;
mod thoughts;

use serde_json::json;
use text::{AnswerParser, AnswerPart, AnswerSyntax, ThoughtTags, Tool, ToolCallFormat};

/// A part of an answer, with its pieces joined.
#[derive(Debug, Clone, PartialEq)]
pub enum Whole {
    Text(String),
    Thought(String),
    Call { name: String, arguments: String, closed: bool },
}

pub fn text(text: &str) -> Whole {
    Whole::Text(text.into())
}

pub fn thought(text: &str) -> Whole {
    Whole::Thought(text.into())
}

pub fn call(name: &str, arguments: &str) -> Whole {
    Whole::Call { name: name.into(), arguments: arguments.into(), closed: true }
}

/// A call that was not closed.
pub fn open_call(name: &str, arguments: &str) -> Whole {
    Whole::Call { name: name.into(), arguments: arguments.into(), closed: false }
}

/// Joins the pieces of parts. A piece of arguments or an end outside of an open call is a panic, and so is a part
/// without content.
pub fn join(parts: &[AnswerPart]) -> Vec<Whole> {
    let mut joined: Vec<Whole> = Vec::new();
    for part in parts {
        match (part, joined.last_mut()) {
            (AnswerPart::Text(piece), Some(Whole::Text(text))) => *text += piece,
            (AnswerPart::Thought(piece), Some(Whole::Thought(text))) => *text += piece,
            (AnswerPart::CallArguments(piece), Some(Whole::Call { arguments, closed: false, .. })) => {
                *arguments += piece
            }
            (AnswerPart::CallClosed, Some(Whole::Call { closed, .. })) if !*closed => *closed = true,
            (AnswerPart::Text(piece), _) => joined.push(text(piece)),
            (AnswerPart::Thought(piece), _) => joined.push(thought(piece)),
            (AnswerPart::CallOpened { name }, _) => joined.push(open_call(name, "")),
            (part, last) => panic!("{part:?} behind {last:?}"),
        }
        let empty =
            matches!(part, AnswerPart::Text(t) | AnswerPart::Thought(t) | AnswerPart::CallArguments(t) if t.is_empty());
        assert!(!empty, "{part:?}");
    }
    joined
}

/// The parts of an answer in these pieces.
pub fn parse<'p>(mut parser: AnswerParser, pieces: impl IntoIterator<Item = &'p str>) -> Vec<Whole> {
    let mut parts = Vec::new();
    pieces.into_iter().for_each(|piece| parser.push(piece, &mut parts));
    parser.finish(&mut parts);
    join(&parts)
}

pub fn tools() -> Vec<Tool> {
    let weather = json!({
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "wind": {"type": "boolean"},
        "area": {"anyOf": [{"type": "array"}, {"type": "null"}]},
    });
    let tool = |name: &str, properties| Tool {
        name: name.into(),
        parameters: json!({"type": "object", "properties": properties}),
    };
    vec![tool("get_weather", weather), tool("f", json!({})), tool("search.web", json!({}))]
}

/// A parser without thoughts that gives the parts of each piece.
pub fn pushes(calls: ToolCallFormat) -> impl FnMut(&str) -> Vec<AnswerPart> {
    let syntax = AnswerSyntax { thought: None, calls: Some(calls) };
    let mut parser = AnswerParser::new(&syntax, false, &tools());
    move |piece| {
        let mut parts = Vec::new();
        parser.push(piece, &mut parts);
        parts
    }
}

pub const THINK: Option<ThoughtTags> = Some(ThoughtTags { open: "<think>", close: "</think>" });

/// Parses with an answer's syntax, one that begins with [`IN_THOUGHT`] within a thought.
pub struct Examples(pub AnswerSyntax);

/// Where a test's answer begins within a thought, its text begins with this.
pub const IN_THOUGHT: &str = "(in thought)";

impl Examples {
    pub fn new(format: ToolCallFormat) -> Self {
        Examples(AnswerSyntax { thought: THINK, calls: Some(format) })
    }

    /// Checks that an answer has these parts, whole, cut in two anywhere, and character by character.
    #[track_caller]
    pub fn check(&self, answer: &str, expected: &[Whole]) {
        let in_thought = answer.starts_with(IN_THOUGHT);
        let answer = answer.trim_start_matches(IN_THOUGHT);
        let parser = || AnswerParser::new(&self.0, in_thought, &tools());
        assert_eq!(parse(parser(), [answer]), expected, "whole: {answer:?}");
        let cuts = answer.char_indices().map(|(at, _)| at);
        for (left, right) in cuts.clone().map(|at| answer.split_at(at)) {
            assert_eq!(parse(parser(), [left, right]), expected, "{left:?} then {right:?}");
        }
        let ends = cuts.clone().skip(1).chain([answer.len()]);
        let characters: Vec<&str> = cuts.zip(ends).map(|(from, to)| &answer[from..to]).collect();
        assert_eq!(parse(parser(), characters.iter().copied()), expected, "by characters: {answer:?}");
        for size in 2..7 {
            let pieces: Vec<String> = characters.chunks(size).map(|piece| piece.concat()).collect();
            let pieces = pieces.iter().map(String::as_str);
            assert_eq!(parse(parser(), pieces), expected, "{size} characters at a time: {answer:?}");
        }
    }
}

/// Pushes pieces and tells after each what section of calls is open.
pub fn open_calls(syntax: AnswerSyntax, pieces: &[&str]) -> Vec<Option<String>> {
    let mut parser = AnswerParser::new(&syntax, false, &tools());
    let opened = pieces.iter().map(|piece| {
        parser.push(piece, &mut Vec::new());
        parser.open_call().map(str::to_owned)
    });
    opened.collect()
}
