//! What the formats of tool calls have in common: sections, and what opens them.
use super::output::Output;
use super::tool::Tool;
use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

/// A part of an answer that holds calls, from behind the tag that opens it to the one that closes it.
pub(super) trait Section: Debug + Send {
    /// Takes in a piece of text.
    fn push(&mut self, text: &str, out: &mut Output) -> Flow;

    /// Ends the answer within the section. What was held back and belongs to no call is text.
    fn finish(&mut self, out: &mut Output);
}

/// How a section goes on after a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// It goes on.
    Open,
    /// It ended; so many bytes of the piece belong to it.
    Ended(usize),
    /// It ended with the tag that opens another one; so many bytes of the piece have been read.
    Reopened(usize),
}

/// What opens a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// A tag before the section.
    Tag(&'static str),
}

impl Opening {
    /// The tag's text.
    pub fn tag(&self) -> &'static str {
        let Opening::Tag(tag) = self;
        tag
    }
}

/// How one format of calls is found and read.
#[derive(Debug)]
pub(super) struct CallSyntax {
    /// What opens a section.
    pub openings: &'static [Opening],
    /// The tags within sections and those that close them. Where one stands outside of a section, it is left out.
    pub other_tags: &'static [&'static str],
    /// Whether the source of a chat template shows that the model writes calls so.
    pub is_in_template: fn(&str) -> bool,
    /// Begins a section.
    pub begin: fn(&KnownTools, Opening) -> Box<dyn Section>,
}

/// What sections know of the tools.
#[derive(Debug, Clone)]
pub(super) struct KnownTools(Arc<HashSet<String>>);

impl KnownTools {
    pub fn new(tools: &[Tool]) -> Self {
        KnownTools(Arc::new(tools.iter().map(|tool| tool.name.clone()).collect()))
    }

    /// Whether a tool has this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}
