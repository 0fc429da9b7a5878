//! What an answer holds once its parts are put together.
use text::AnswerPart;

/// What an answer holds: its parts, put together in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerContent {
    /// Text and thoughts, each joined as far as nothing else came between, and tool calls.
    pub items: Vec<ContentItem>,
}

/// A piece of an answer that protocols send as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentItem {
    /// Text for whoever asked.
    Text(String),
    /// What the model wrote for itself.
    Thought(String),
    /// A tool call.
    Call(ToolCall),
}

/// A tool call of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// The arguments as the model wrote them: JSON text, unless the answer was cut off in it.
    pub arguments: String,
    /// Whether the call is complete.
    pub closed: bool,
}

impl AnswerContent {
    /// Takes in parts that come next.
    pub fn extend(&mut self, parts: impl IntoIterator<Item = AnswerPart>) {
        parts.into_iter().for_each(|part| self.push(part));
    }

    fn push(&mut self, part: AnswerPart) {
        match (part, self.items.last_mut()) {
            (AnswerPart::Text(more), Some(ContentItem::Text(text)))
            | (AnswerPart::Thought(more), Some(ContentItem::Thought(text))) => *text += &more,
            (AnswerPart::Text(text), _) => self.items.push(ContentItem::Text(text)),
            (AnswerPart::Thought(text), _) => self.items.push(ContentItem::Thought(text)),
            (AnswerPart::CallOpened { name }, _) => {
                self.items.push(ContentItem::Call(ToolCall { name, arguments: String::new(), closed: false }));
            }
            (AnswerPart::CallArguments(more), Some(ContentItem::Call(call))) => call.arguments += &more,
            (AnswerPart::CallClosed, Some(ContentItem::Call(call))) => call.closed = true,
            // A parser gives these within a call alone.
            (AnswerPart::CallArguments(_) | AnswerPart::CallClosed, _) => {}
        }
    }

    /// All text, joined.
    pub fn text(&self) -> String {
        self.joined(|item| if let ContentItem::Text(text) = item { Some(text) } else { None })
    }

    /// All thoughts, joined.
    pub fn thought(&self) -> String {
        self.joined(|item| if let ContentItem::Thought(text) = item { Some(text) } else { None })
    }

    /// The tool calls in their order.
    pub fn calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.items.iter().filter_map(|item| if let ContentItem::Call(call) = item { Some(call) } else { None })
    }

    fn joined<'a>(&'a self, text: impl Fn(&'a ContentItem) -> Option<&'a String>) -> String {
        self.items.iter().filter_map(text).map(String::as_str).collect()
    }
}
