//! Calls as JSON that is all of the answer, or that follows `<|python_tag|>`.
use super::json::{CallList, JsonCalls};
use super::section::{CallSyntax, Opening};

/// The format's syntax.
pub(super) const CALLS: CallSyntax = CallSyntax {
    openings: &[Opening::Tag("<|python_tag|>"), Opening::First('{')],
    close: None,
    inner_tags: &[],
    is_in_template: |source| {
        // Functionary's templates write `<function=NAME>` before the JSON.
        let writes_json = source.contains("{\"name\": \"") && source.contains("\"parameters\": ");
        source.contains("ipython")
            && writes_json
            && !super::pythonic::is_in_template(source)
            && !["<function=", "<tool_call>", "[TOOL_CALLS]"].iter().any(|tag| source.contains(tag))
    },
    begin: |tools, opening| {
        let only = matches!(opening, Opening::First(_)).then(|| tools.clone());
        Box::new(JsonCalls::new(CallList::Semicolons, only))
    },
};
