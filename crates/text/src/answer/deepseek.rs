//! Calls between `<｜tool▁calls▁begin｜>` and `<｜tool▁calls▁end｜>`.
use super::json::{Arguments, PieceProgress};
use super::output::{Output, is_space};
use super::section::{CallReader, CallSyntax, Opening, ReadFlow};
use super::tags::{Scanned, TagScanner};

const OPEN: &str = "<｜tool▁calls▁begin｜>";
const CLOSE: &str = "<｜tool▁calls▁end｜>";
const CALL: &str = "<｜tool▁call▁begin｜>";
const CALL_END: &str = "<｜tool▁call▁end｜>";
const SEPARATOR: &str = "<｜tool▁sep｜>";

/// The format's syntax.
pub(super) const CALLS: CallSyntax = CallSyntax {
    // Distilled models leave the first tag out.
    openings: &[Opening::Tag(OPEN), Opening::Kept(CALL)],
    close: Some(CLOSE),
    inner_tags: &[CALL_END, SEPARATOR],
    is_in_template: |source| source.contains(OPEN),
    begin: |_, opening| Box::new(DeepSeek::new(opening != Opening::Tag(OPEN))),
};

/// Reads the calls of a section.
#[derive(Debug)]
struct DeepSeek {
    /// The section is one call, since it began with one.
    single: bool,
    place: DeepSeekPlace,
    scanner: TagScanner,
    /// The text before the separator: the kind of the call, or its name.
    head: String,
    line: Line,
}

/// The text between the separator and the arguments: nothing, or the name and the beginning of a fenced block.
#[derive(Debug, Default)]
struct Line {
    raw: String,
    /// The name has begun.
    begun: bool,
    /// The name is complete.
    named: bool,
    /// The characters after the name that are no whitespace.
    fence: String,
}

/// Where the reading of a section is.
#[derive(Debug)]
enum DeepSeekPlace {
    /// Between calls.
    Between,
    /// Before the separator.
    Head,
    /// Between the separator and the arguments.
    Line,
    /// Before a tag that must follow, since there are no arguments.
    NoArguments,
    /// Within the arguments.
    Arguments(Arguments),
    /// After the arguments, where the end of a fenced block may stand.
    AfterArguments,
    /// Within a call that broke.
    Broken,
}

/// The texts that may stand between a name and the arguments, without whitespace.
const FENCES: [&str; 3] = ["```json", "```", ""];
/// The text that may stand between a name and the end of a call without arguments.
const EMPTY_BLOCK: &str = "```json```";

impl DeepSeek {
    fn new(single: bool) -> Self {
        DeepSeek {
            single,
            place: DeepSeekPlace::Between,
            scanner: TagScanner::new(vec![OPEN, CLOSE, CALL, CALL_END, SEPARATOR]),
            head: String::new(),
            line: Line::default(),
        }
    }

    /// Reads up to the next tag: how it goes on, and how many bytes were read if it does.
    fn read_to_tag(&mut self, text: &str, out: &mut Output) -> (ReadFlow, usize) {
        let Scanned { plain, tag } = self.scanner.push(text);
        match self.place {
            DeepSeekPlace::Between => out.text(&plain),
            DeepSeekPlace::Head => self.head.push_str(&plain),
            DeepSeekPlace::NoArguments if !plain.is_empty() => {
                self.give_up(out);
                out.text(&plain);
            }
            DeepSeekPlace::AfterArguments if !plain.chars().all(|c| is_space(c) || c == '`') => {
                self.place = DeepSeekPlace::Broken
            }
            _ => {}
        }
        let Some((tag, read)) = tag else { return (ReadFlow::More, text.len()) };
        match (&self.place, tag) {
            (DeepSeekPlace::Head, SEPARATOR) => {
                self.place = DeepSeekPlace::Line;
                return (ReadFlow::More, read);
            }
            (DeepSeekPlace::NoArguments, CALL_END | CLOSE) => {
                self.open(out);
                out.arguments("{}");
                out.close_call();
            }
            (DeepSeekPlace::AfterArguments, CALL | CALL_END | OPEN | CLOSE) => out.close_call(),
            (DeepSeekPlace::Head | DeepSeekPlace::NoArguments, _) => self.give_up(out),
            _ => {}
        }
        self.place = match tag {
            CALL => DeepSeekPlace::Head,
            SEPARATOR => DeepSeekPlace::Broken,
            _ => DeepSeekPlace::Between,
        };
        match tag {
            CLOSE => (ReadFlow::Closed(read), 0),
            CALL_END if self.single => (ReadFlow::Closed(read), 0),
            OPEN => (ReadFlow::Reopened(read), 0),
            _ => (ReadFlow::More, read),
        }
    }

    /// Reads up to the arguments. Returns how many bytes were read.
    fn read_to_arguments(&mut self, text: &str, out: &mut Output) -> usize {
        for (at, c) in text.char_indices() {
            let has_name = matches!(c, '{' | '<') && !self.name().is_empty();
            let line = &mut self.line;
            let complete = line.named || !line.begun;
            match c {
                '{' if complete && has_name && FENCES.contains(&line.fence.as_str()) => {
                    self.open(out);
                    self.place = DeepSeekPlace::Arguments(Arguments::default());
                    return at;
                }
                '<' if complete && has_name && ["", EMPTY_BLOCK].contains(&line.fence.as_str()) => {
                    self.place = DeepSeekPlace::NoArguments;
                    return at;
                }
                '{' | '<' => {
                    self.give_up(out);
                    return at;
                }
                '\n' => line.named = line.begun,
                c if is_space(c) => {}
                c if line.named => {
                    line.fence.push(c);
                    if !EMPTY_BLOCK.starts_with(&line.fence) {
                        self.give_up(out);
                        return at;
                    }
                }
                _ => line.begun = true,
            }
            self.line.raw.push(c);
        }
        text.len()
    }

    /// The call's name: what stands before the separator, or after it where that is the call's kind.
    fn name(&self) -> &str {
        let line = self.line.raw.trim_start_matches(is_space);
        let name = if self.line.begun { line.split('\n').next().unwrap_or_default() } else { &self.head };
        name.trim_matches(is_space)
    }

    fn open(&mut self, out: &mut Output) {
        out.open_call(self.name().to_owned());
        (self.head, self.line) = Default::default();
    }

    /// Gives what was to be a call as text.
    fn give_up(&mut self, out: &mut Output) {
        out.text(&self.head);
        out.text(&self.line.raw);
        (self.head, self.line) = Default::default();
        self.place = DeepSeekPlace::Between;
    }
}

impl CallReader for DeepSeek {
    fn push(&mut self, text: &str, out: &mut Output) -> ReadFlow {
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            at += match &mut self.place {
                DeepSeekPlace::Line => self.read_to_arguments(rest, out),
                DeepSeekPlace::Arguments(arguments) => match arguments.push(rest, |piece| out.arguments(piece)) {
                    PieceProgress::More => rest.len(),
                    PieceProgress::Done(n) => {
                        self.place = DeepSeekPlace::AfterArguments;
                        n
                    }
                    PieceProgress::Broken(n) => {
                        self.place = DeepSeekPlace::Broken;
                        n
                    }
                },
                _ => match self.read_to_tag(rest, out) {
                    (ReadFlow::More, read) => read,
                    (flow, _) => return flow.after(at),
                },
            };
        }
        ReadFlow::More
    }

    fn finish(&mut self, out: &mut Output) {
        let held = self.scanner.flush();
        match self.place {
            DeepSeekPlace::Arguments(_) | DeepSeekPlace::AfterArguments | DeepSeekPlace::Broken => {}
            // What is held back directly after a call began the closing tag.
            DeepSeekPlace::Between if out.is_after_section() => {}
            _ => {
                self.give_up(out);
                out.text(&held);
            }
        }
    }

    fn has_opened(&self) -> bool {
        // A tag has opened the section.
        true
    }
}
