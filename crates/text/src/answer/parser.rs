//! Tells the parts of an answer apart while it is generated.
use super::output::{Output, is_space};
use super::part::AnswerPart;
use super::schema::KnownTools;
use super::section::{Flow, Opening, Section};
use super::syntax::AnswerSyntax;
use super::tags::{Scanned, TagScanner};
use super::thought::Thought;
use super::tool::Tool;

/// Tells text, thoughts and tool calls apart in an answer that arrives in pieces, whatever pieces these are. The text
/// is held back only as far as its end may be the beginning of a tag, or whitespace before one. Time is linear in the
/// answer's length.
///
/// Tags are in no part, and neither is whitespace next to thoughts and calls. What stands between the tags of calls and
/// is none (broken JSON, no name) is text. If it breaks after the call was opened, that call stays unclosed, and all up
/// to the closing tag is dropped. Calls within a thought are part of the thought.
#[derive(Debug)]
pub struct AnswerParser {
    syntax: AnswerSyntax,
    tools: KnownTools,
    /// The tags that are looked for outside of sections.
    scanner: TagScanner,
    mode: Mode,
    out: Output,
}

#[derive(Debug)]
enum Mode {
    Text,
    Thought(Thought),
    Calls(Section),
}

impl AnswerParser {
    /// Begins an answer, within a thought if the prompt [ended in one](AnswerSyntax::opens_thought).
    pub fn new(syntax: &AnswerSyntax, in_thought: bool, tools: &[Tool]) -> Self {
        let mut out = Output::new(*syntax != AnswerSyntax::default());
        let mode = match syntax.thought.filter(|_| in_thought) {
            Some(tags) => Mode::Thought(Thought::new(tags, &mut out)),
            None => Mode::Text,
        };
        let scanner = TagScanner::new(syntax.special_tags());
        AnswerParser { syntax: *syntax, tools: KnownTools::new(tools), scanner, mode, out }
    }

    /// Takes in a piece of the answer, and adds the parts that it makes to `out`.
    pub fn push(&mut self, text: &str, out: &mut Vec<AnswerPart>) {
        let mut rest = text;
        while !rest.is_empty() {
            let read = self.advance(rest);
            rest = rest.get(read..).unwrap_or_default();
        }
        self.out.drain_into(out);
    }

    /// Ends the answer. What was held back becomes part of the text or of the thought; a call that is open stays
    /// unclosed.
    pub fn finish(&mut self, out: &mut Vec<AnswerPart>) {
        match &mut self.mode {
            Mode::Text => {
                let held = self.scanner.flush();
                self.out.text(&held);
            }
            Mode::Thought(thought) => thought.finish(&mut self.out),
            Mode::Calls(section) => section.finish(&mut self.out),
        }
        self.mode = Mode::Text;
        self.out.finish();
        self.out.drain_into(out);
    }

    /// Whether the answer is within a thought.
    pub fn in_thought(&self) -> bool {
        matches!(self.mode, Mode::Thought(_))
    }

    /// The text of the section of calls that is open: from after the tag that opened it, or with what opened it where
    /// that is no tag before the section. Without a tag a section is open once a call in it has been opened.
    pub fn open_call(&self) -> Option<&str> {
        match &self.mode {
            Mode::Calls(section) => section.raw(),
            _ => None,
        }
    }

    /// Reads some of the text, up to where the mode changes. Returns how many bytes were read.
    fn advance(&mut self, text: &str) -> usize {
        match &mut self.mode {
            Mode::Text => self.in_text(text),
            Mode::Thought(thought) => match thought.push(text, &mut self.out) {
                Flow::Open => text.len(),
                Flow::Ended(n) | Flow::Reopened(n) => {
                    self.out.skip_space();
                    self.mode = Mode::Text;
                    n
                }
            },
            Mode::Calls(section) => match section.push(text, &mut self.out) {
                Flow::Open => text.len(),
                Flow::Ended(n) => {
                    self.mode = Mode::Text;
                    n
                }
                Flow::Reopened(n) => {
                    self.mode = Mode::Text;
                    if let Some(opening) = self.openings().first() {
                        self.open(*opening);
                    }
                    n
                }
            },
        }
    }

    /// Reads text outside of sections.
    fn in_text(&mut self, text: &str) -> usize {
        if let Some(space) = self.begins_with_call(text) {
            self.out.text(text.get(..space).unwrap_or_default());
            return space;
        }
        let Scanned { plain, tag } = self.scanner.push(text);
        self.out.text(&plain);
        let Some((tag, read)) = tag else { return text.len() };
        if let Some(tags) = self.syntax.thought.filter(|tags| tags.open == tag) {
            self.mode = Mode::Thought(Thought::new(tags, &mut self.out));
        }
        if let Some(opening) = self.openings().iter().find(|opening| opening.tag() == Some(tag)) {
            self.open(*opening);
        }
        read
    }

    /// Opens a section if the answer begins with one that no tag opens. Returns how much space is before it.
    fn begins_with_call(&mut self, text: &str) -> Option<usize> {
        let opening = self.openings().iter().find(|opening| opening.tag().is_none())?;
        let Opening::First(first) = *opening else { return None };
        let inner = text.trim_start_matches(is_space);
        if !inner.starts_with(first) || self.out.has_begun() || self.scanner.is_holding() || self.tools.is_empty() {
            return None;
        }
        self.open(*opening);
        Some(text.len() - inner.len())
    }

    fn openings(&self) -> &'static [Opening] {
        self.syntax.calls.map_or(&[], |format| format.syntax().openings)
    }

    /// Opens a section of calls.
    fn open(&mut self, opening: Opening) {
        let Some(format) = self.syntax.calls else { return };
        let mut section = Section::new(format.syntax(), opening, &self.tools);
        if let Opening::Kept(tag) = opening {
            section.push(tag, &mut self.out);
        }
        self.mode = Mode::Calls(section);
    }
}
