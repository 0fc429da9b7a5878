//! Calls as JSON between `<tool_call>` and `</tool_call>`; small models leave the tags out where the call is all of the
//! answer.
use super::json::{CallList, JsonCalls};
use super::section::{CallSyntax, Opening};

pub(super) const OPEN: &str = "<tool_call>";
pub(super) const CLOSE: &str = "</tool_call>";

/// The format's syntax.
pub(super) const CALLS: CallSyntax = CallSyntax {
    openings: &[Opening::Tag(OPEN), Opening::First('{')],
    close: Some(CLOSE),
    inner_tags: &[],
    is_in_template: |source| {
        // Templates of GLM and Apriel name the tag too, and write calls otherwise.
        let others = ["<arg_key>", "<tool_calls>"];
        source.contains(OPEN) && source.contains("\"arguments") && !others.iter().any(|tag| source.contains(tag))
    },
    begin: |tools, opening| {
        let only = matches!(opening, Opening::First(_)).then(|| tools.clone());
        Box::new(JsonCalls::new(CallList::Spaced, only))
    },
};
