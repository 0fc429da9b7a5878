//! Conversations, from which prompts are rendered.
use serde_json::{Map, Value};

/// The conversation that a prompt is rendered from.
#[derive(Debug, Clone, Copy)]
pub struct Conversation<'a> {
    /// The messages, in OpenAI's form.
    pub messages: &'a Value,
    /// The tools that the model may call; `None` where the request has no such field.
    pub tools: Option<&'a Value>,
    /// The template's own variables, such as `enable_thinking`. They cannot replace those that every template is given.
    pub kwargs: Option<&'a Map<String, Value>>,
    /// How the prompt ends.
    pub end: PromptEnd,
}

/// How a prompt ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PromptEnd {
    /// The header of the answer follows the last message (`add_generation_prompt`).
    #[default]
    Answer,
    /// The last message is closed, and nothing follows it.
    ClosedMessage,
    /// The last message is left open, so that the answer continues its text (`continue_final_message`).
    OpenMessage,
}

impl<'a> Conversation<'a> {
    /// These messages alone, with the header of the answer.
    pub fn of(messages: &'a Value) -> Self {
        Conversation { messages, tools: None, kwargs: None, end: PromptEnd::Answer }
    }
}
