//! Calls as JSON between `<tool_call>` and `</tool_call>`.
use super::json::{CallList, JsonCalls, JsonFlow};
use super::output::Output;
use super::section::{CallSyntax, Flow, Opening, Section};
use super::tags::{Scanned, TagScanner};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// The format's syntax.
pub(super) const CALLS: CallSyntax = CallSyntax {
    openings: &[Opening::Tag(OPEN)],
    other_tags: &[CLOSE],
    is_in_template: |source| {
        // GLM's templates have the tag too, with keys and values in tags of their own.
        source.contains(OPEN) && source.contains("\"arguments") && !source.contains("<arg_key>")
    },
    begin: |_, _| Box::new(Hermes::Calls(JsonCalls::new(CallList::Spaced, None))),
};

#[derive(Debug)]
enum Hermes {
    /// Within calls.
    Calls(JsonCalls),
    /// Behind calls, or behind what broke: whether what follows is text, up to the tag.
    Rest(TagScanner, bool),
}

impl Section for Hermes {
    fn push(&mut self, text: &str, out: &mut Output) -> Flow {
        let mut rest = text;
        if let Hermes::Calls(calls) = self {
            let (read, is_text) = match calls.push(text, out) {
                JsonFlow::More => return Flow::Open,
                JsonFlow::Ended(n) => (n, true),
                JsonFlow::Broken { at, opened } => (at, !opened),
            };
            rest = text.get(read..).unwrap_or_default();
            *self = Hermes::Rest(TagScanner::new(vec![CLOSE, OPEN]), is_text);
        }
        let Hermes::Rest(scanner, is_text) = self else { return Flow::Open };
        let Scanned { plain, tag } = scanner.push(rest);
        if *is_text {
            out.text(&plain);
        }
        match tag {
            None => Flow::Open,
            Some((CLOSE, n)) => Flow::Ended(text.len() - rest.len() + n),
            Some((_, n)) => Flow::Reopened(text.len() - rest.len() + n),
        }
    }

    fn finish(&mut self, out: &mut Output) {
        match self {
            Hermes::Calls(calls) => calls.finish(out),
            // What is held back directly behind a call began the closing tag.
            Hermes::Rest(scanner, true) if !out.is_after_section() => out.text(&scanner.flush()),
            Hermes::Rest(..) => {}
        }
    }
}
