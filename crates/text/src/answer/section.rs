//! Sections of calls: what opens and closes them, and what the formats have in common.
use super::output::Output;
use super::schema::KnownTools;
use super::tags::{Scanned, TagScanner};
use std::fmt::Debug;

/// Reads the calls of a section in one format.
pub(super) trait CallReader: Debug + Send {
    /// Takes in a piece of text.
    fn push(&mut self, text: &str, out: &mut Output) -> ReadFlow;

    /// Ends the answer within the section. What was held back and belongs to no call is text.
    fn finish(&mut self, out: &mut Output);

    /// Whether a call has been opened. Without a tag before it, a section is one of calls only from then on.
    fn has_opened(&self) -> bool;
}

/// How reading goes on after a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadFlow {
    /// It goes on.
    More,
    /// The calls ended; so many bytes of the piece belong to them.
    Ended(usize),
    /// The section ended with its closing tag; so many bytes of the piece have been read.
    Closed(usize),
    /// The section ended with the tag that opens another one; so many bytes of the piece have been read.
    Reopened(usize),
    /// The calls broke: the byte at this place cannot follow. What was in no call has been given as text, unless the
    /// call that broke had been opened.
    Broken { at: usize, opened: bool },
}

impl ReadFlow {
    /// The flow of a piece of which so many bytes had been read before.
    pub fn after(self, read: usize) -> Self {
        match self {
            ReadFlow::More => ReadFlow::More,
            ReadFlow::Ended(n) => ReadFlow::Ended(read + n),
            ReadFlow::Closed(n) => ReadFlow::Closed(read + n),
            ReadFlow::Reopened(n) => ReadFlow::Reopened(read + n),
            ReadFlow::Broken { at, opened } => ReadFlow::Broken { at: read + at, opened },
        }
    }
}

/// The way in which a section is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// A tag before the section.
    Tag(&'static str),
    /// A tag that is part of the section.
    Kept(&'static str),
    /// A character that the answer begins with and that is part of the section.
    First(char),
}

impl Opening {
    /// The tag's text, if it is a tag.
    pub fn tag(&self) -> Option<&'static str> {
        match self {
            Opening::Tag(tag) | Opening::Kept(tag) => Some(tag),
            Opening::First(_) => None,
        }
    }
}

/// How one format of calls is found and read.
#[derive(Debug)]
pub(super) struct CallSyntax {
    /// The ways in which a section can be opened; the tag before it first, if there is one.
    pub openings: &'static [Opening],
    /// The tag that closes a section. Without one it ends with its calls.
    pub close: Option<&'static str>,
    /// Tags within sections that may be special tokens. Outside of calls they are left out.
    pub inner_tags: &'static [&'static str],
    /// Whether the source of a chat template shows that the model writes calls so.
    pub is_in_template: fn(&str) -> bool,
    /// Begins a section.
    pub begin: fn(&KnownTools, Opening) -> Box<dyn CallReader>,
}

impl CallSyntax {
    /// All tags.
    pub fn tags(&self) -> impl Iterator<Item = &'static str> {
        self.openings.iter().filter_map(Opening::tag).chain(self.close).chain(self.inner_tags.iter().copied())
    }
}

/// How an answer goes on after a piece of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// The section goes on.
    Open,
    /// The section ended; so many bytes of the piece have been read.
    Ended(usize),
    /// Another section began, so many bytes of the piece have been read.
    Reopened(usize),
}

/// A section of calls that is being read.
#[derive(Debug)]
pub(super) struct Section {
    syntax: &'static CallSyntax,
    opening: Opening,
    /// The tag that closes the section, if it does not end with its calls.
    close: Option<&'static str>,
    progress: Progress,
    raw: String,
}

#[derive(Debug)]
enum Progress {
    Calls(Box<dyn CallReader>),
    /// After calls, or after what broke: whether what follows is text, up to the next tag.
    Rest(TagScanner, bool),
}

impl Section {
    pub fn new(syntax: &'static CallSyntax, opening: Opening, tools: &KnownTools) -> Self {
        let close = syntax.close.filter(|_| opening.tag().is_some());
        let progress = Progress::Calls((syntax.begin)(tools, opening));
        Section { syntax, opening, close, progress, raw: String::new() }
    }

    /// The text so far; `None` while it is open whether there are calls in it.
    pub fn raw(&self) -> Option<&str> {
        let certain = match &self.progress {
            Progress::Calls(reader) => self.opening.tag().is_some() || reader.has_opened(),
            Progress::Rest(..) => true,
        };
        certain.then_some(&self.raw)
    }

    /// Takes in a piece of text.
    pub fn push(&mut self, text: &str, out: &mut Output) -> Flow {
        let flow = self.read(text, out);
        if flow == Flow::Open {
            self.raw.push_str(text);
        }
        flow
    }

    fn read(&mut self, text: &str, out: &mut Output) -> Flow {
        let mut at = 0;
        if let Progress::Calls(reader) = &mut self.progress {
            let is_text;
            (at, is_text) = match reader.push(text, out) {
                ReadFlow::More => return Flow::Open,
                ReadFlow::Closed(n) => return Flow::Ended(n),
                ReadFlow::Reopened(n) => return Flow::Reopened(n),
                ReadFlow::Ended(n) | ReadFlow::Broken { at: n, opened: false } if self.close.is_none() => {
                    return Flow::Ended(n);
                }
                ReadFlow::Ended(n) => (n, true),
                ReadFlow::Broken { at, opened } => (at, !opened),
            };
            self.progress = Progress::Rest(TagScanner::new(self.syntax.tags().collect()), is_text);
        }
        while let (Progress::Rest(scanner, is_text), Some(rest)) = (&mut self.progress, text.get(at..)) {
            let Scanned { plain, tag } = scanner.push(rest);
            if *is_text {
                out.text(&plain);
            }
            let Some((tag, read)) = tag else { break };
            at += read;
            if self.close == Some(tag) {
                return Flow::Ended(at);
            }
            if self.syntax.openings.first() == Some(&Opening::Tag(tag)) {
                return Flow::Reopened(at);
            }
        }
        Flow::Open
    }

    /// Ends the answer within the section.
    pub fn finish(&mut self, out: &mut Output) {
        match &mut self.progress {
            Progress::Calls(reader) => reader.finish(out),
            // What is held back directly after a call began the closing tag.
            Progress::Rest(scanner, true) if !out.is_after_section() => out.text(&scanner.flush()),
            Progress::Rest(..) => {}
        }
    }
}
