//! Calls after `[TOOL_CALLS]`: a list of JSON objects, or a name, `[ARGS]` and the arguments.
use super::json::{Arguments, CallList, JsonCalls, PieceProgress};
use super::output::{Output, is_space};
use super::section::{CallReader, CallSyntax, Opening, ReadFlow};
use super::tags::{Scanned, TagScanner};

const OPEN: &str = "[TOOL_CALLS]";
const CALL_ID: &str = "[CALL_ID]";
const ARGUMENTS: &str = "[ARGS]";

/// The format's syntax.
pub(super) const CALLS: CallSyntax = CallSyntax {
    openings: &[Opening::Tag(OPEN)],
    close: None,
    inner_tags: &[CALL_ID, ARGUMENTS],
    is_in_template: |source| source.contains(OPEN),
    begin: |_, _| Box::new(Mistral::Start),
};

/// Where the reading of a section is.
#[derive(Debug)]
enum Mistral {
    /// Before anything but whitespace.
    Start,
    /// Within a list of calls.
    List(JsonCalls),
    /// Within a name, or within an id, which nobody reads.
    Name { scanner: TagScanner, name: String, in_id: bool },
    /// Within the arguments.
    Arguments(Arguments),
}

impl Mistral {
    /// Reads a name, which a tag or the arguments themselves end; the tags may be missing.
    fn in_name(&mut self, text: &str, out: &mut Output) -> ReadFlow {
        let Mistral::Name { scanner, name, in_id } = self else { return ReadFlow::More };
        let end = text.find(|c: char| c == '{' || is_space(c));
        let mut at = 0;
        loop {
            let Scanned { plain, tag } = scanner.push(text.get(at..end.unwrap_or(text.len())).unwrap_or_default());
            if !*in_id {
                name.push_str(&plain);
            }
            match (tag, end) {
                (Some((CALL_ID, read)), _) => {
                    *in_id = true;
                    at += read;
                }
                (Some((ARGUMENTS, read)), _) => return self.open(text, at + read, out),
                (Some((_, read)), _) => {
                    out.text(name);
                    return ReadFlow::Reopened(at + read);
                }
                (None, Some(end)) => {
                    let held = scanner.flush();
                    if !*in_id {
                        name.push_str(&held);
                    }
                    // The beginning of a tag is no name.
                    let is_name = *in_id || held.is_empty();
                    if is_name && text.as_bytes().get(end) == Some(&b'{') {
                        return self.open(text, end, out);
                    }
                    out.text(name);
                    return ReadFlow::Broken { at: end, opened: false };
                }
                (None, None) => return ReadFlow::More,
            }
        }
    }

    /// Opens the call whose arguments begin at `at`.
    fn open(&mut self, text: &str, at: usize, out: &mut Output) -> ReadFlow {
        let Mistral::Name { name, .. } = self else { return ReadFlow::More };
        out.open_call(std::mem::take(name));
        *self = Mistral::Arguments(Arguments::default());
        self.push(text.get(at..).unwrap_or_default(), out).after(at)
    }
}

impl CallReader for Mistral {
    fn push(&mut self, text: &str, out: &mut Output) -> ReadFlow {
        match self {
            Mistral::Start => {
                let inner = text.trim_start_matches(is_space);
                let at = text.len() - inner.len();
                out.text(text.get(..at).unwrap_or_default());
                if inner.is_empty() {
                    return ReadFlow::More;
                }
                *self = if inner.starts_with(['[', '{']) {
                    Mistral::List(JsonCalls::new(CallList::Single, None))
                } else {
                    let scanner = TagScanner::new(vec![ARGUMENTS, CALL_ID, OPEN]);
                    Mistral::Name { scanner, name: String::new(), in_id: false }
                };
                self.push(inner, out).after(at)
            }
            Mistral::List(calls) => calls.push(text, out),
            Mistral::Name { .. } => self.in_name(text, out),
            Mistral::Arguments(arguments) => match arguments.push(text, |piece| out.arguments(piece)) {
                PieceProgress::More => ReadFlow::More,
                PieceProgress::Broken(at) => ReadFlow::Broken { at, opened: true },
                PieceProgress::Done(n) => {
                    out.close_call();
                    ReadFlow::Ended(n)
                }
            },
        }
    }

    fn finish(&mut self, out: &mut Output) {
        match self {
            Mistral::Start | Mistral::Arguments(_) => {}
            Mistral::List(calls) => calls.finish(out),
            Mistral::Name { scanner, name, .. } => {
                out.text(name);
                out.text(&scanner.flush());
            }
        }
    }

    fn has_opened(&self) -> bool {
        // A tag has opened the section.
        true
    }
}
