//! The parts that an answer is told in.

/// A piece of an answer. An answer is the sequence of its parts, whether it is sent whole or as it comes: neighbouring
/// texts, thoughts and arguments may be cut anywhere, and mean the same when they are joined.
///
/// A tool call is one [`CallOpened`](AnswerPart::CallOpened), any number of
/// [`CallArguments`](AnswerPart::CallArguments), and one [`CallClosed`](AnswerPart::CallClosed), with nothing between
/// them. Calls are numbered by their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerPart {
    /// Text for whoever asked.
    Text(String),
    /// A piece of a thought: what the model writes for itself before it answers.
    Thought(String),
    /// A tool call begins.
    CallOpened {
        /// The tool's name.
        name: String,
    },
    /// A piece of the open call's arguments, which are JSON text.
    CallArguments(String),
    /// The open call is complete. A call that broke, or that the answer's end cut off, is not closed: another part
    /// follows it, or none.
    CallClosed,
}

impl AnswerPart {
    /// The text among `parts`, joined.
    pub fn text_of(parts: &[AnswerPart]) -> String {
        let text = |part: &AnswerPart| match part {
            AnswerPart::Text(text) => Some(text.clone()),
            _ => None,
        };
        parts.iter().filter_map(text).collect()
    }
}
