//! Tells the parts of an answer apart while it is generated.
use super::format::ToolCallFormat;
use super::output::Output;
use super::part::AnswerPart;
use super::section::{CallSyntax, Flow, KnownTools, Opening, Section};
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
    /// Within a section of calls: what opened it, and its text.
    Calls {
        section: Box<dyn Section>,
        opening: Opening,
        raw: String,
    },
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
            Mode::Calls { section, .. } => section.finish(&mut self.out),
        }
        self.mode = Mode::Text;
        self.out.finish();
        self.out.drain_into(out);
    }

    /// Whether the answer is within a thought.
    pub fn in_thought(&self) -> bool {
        matches!(self.mode, Mode::Thought(_))
    }

    /// The text of the section of calls that is open, from behind the tag that opened it.
    pub fn open_call(&self) -> Option<&str> {
        match &self.mode {
            Mode::Calls { raw, .. } => Some(raw),
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
            Mode::Calls { section, opening, raw } => {
                let flow = section.push(text, &mut self.out);
                match flow {
                    Flow::Open => {
                        raw.push_str(text);
                        text.len()
                    }
                    Flow::Ended(n) => {
                        self.mode = Mode::Text;
                        n
                    }
                    Flow::Reopened(n) => {
                        let opening = *opening;
                        self.open(opening);
                        n
                    }
                }
            }
        }
    }

    /// Reads text outside of sections.
    fn in_text(&mut self, text: &str) -> usize {
        let Scanned { plain, tag } = self.scanner.push(text);
        self.out.text(&plain);
        let Some((tag, read)) = tag else { return text.len() };
        if let Some(tags) = self.syntax.thought.filter(|tags| tags.open == tag) {
            self.mode = Mode::Thought(Thought::new(tags, &mut self.out));
        }
        let mut openings = self.calls().map_or(&[][..], |calls| calls.openings).iter();
        if let Some(opening) = openings.find(|opening| opening.tag() == tag) {
            self.open(*opening);
        }
        read
    }

    fn calls(&self) -> Option<&'static CallSyntax> {
        self.syntax.calls.and_then(ToolCallFormat::syntax)
    }

    /// Opens a section of calls.
    fn open(&mut self, opening: Opening) {
        let Some(calls) = self.calls() else { return };
        let section = (calls.begin)(&self.tools, opening);
        self.mode = Mode::Calls { section, opening, raw: String::new() };
    }
}
