//! What a streamed answer is made of, in Anthropic's form, and the message that its events add up to.
use super::error::ErrorMessage;
use super::partial_json::object_of;
use crate::generation::Tally;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

/// An event of a streamed answer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MessageEvent {
    /// The answer begins.
    MessageStart { message: SentMessage },
    /// The answer is still being worked on.
    Ping,
    /// A content block begins.
    ContentBlockStart { index: usize, content_block: ContentBlock },
    /// The open content block goes on.
    ContentBlockDelta { index: usize, delta: BlockDelta },
    /// The open content block is complete.
    ContentBlockStop { index: usize },
    /// The answer has ended.
    MessageDelta { delta: AnswerEnding, usage: TokenUsage },
    /// No event follows.
    MessageStop,
    /// The answer failed, and no event follows.
    #[serde(untagged)]
    Error(ErrorMessage),
}

/// An answer as a message.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SentMessage {
    pub id: String,
    r#type: &'static str,
    role: &'static str,
    model: String,
    content: Vec<ContentBlock>,
    #[serde(flatten)]
    ending: AnswerEnding,
    usage: TokenUsage,
}

/// How an answer ended; empty until it has.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct AnswerEnding {
    pub stop_reason: Option<&'static str>,
    /// The stop sequence that ended the answer, if one did.
    pub stop_sequence: Option<String>,
}

/// A content block of an answer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentBlock {
    Text { text: String },
    Thinking { thinking: String, signature: String },
    ToolUse { id: String, name: String, input: Map<String, Value> },
}

/// What an event adds to a content block.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type")]
pub enum BlockDelta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    #[serde(rename = "signature_delta")]
    Signature { signature: String },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
}

/// How many tokens an answer took. Those of a prompt are the ones that were read and the ones that were cached.
#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
pub struct TokenUsage {
    input_tokens: usize,
    /// Zero: whatever is cached has been read as input.
    cache_creation_input_tokens: usize,
    cache_read_input_tokens: usize,
    output_tokens: usize,
    output_tokens_details: OutputDetails,
}

#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
struct OutputDetails {
    thinking_tokens: usize,
}

impl From<&Tally> for TokenUsage {
    fn from(tally: &Tally) -> Self {
        TokenUsage {
            input_tokens: tally.prompt.saturating_sub(tally.cached),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: tally.cached,
            output_tokens: tally.completion,
            output_tokens_details: OutputDetails { thinking_tokens: tally.thought },
        }
    }
}

impl MessageEvent {
    /// The name that the event has in the stream.
    pub fn name(&self) -> &'static str {
        match self {
            MessageEvent::MessageStart { .. } => "message_start",
            MessageEvent::Ping => "ping",
            MessageEvent::ContentBlockStart { .. } => "content_block_start",
            MessageEvent::ContentBlockDelta { .. } => "content_block_delta",
            MessageEvent::ContentBlockStop { .. } => "content_block_stop",
            MessageEvent::MessageDelta { .. } => "message_delta",
            MessageEvent::MessageStop => "message_stop",
            MessageEvent::Error(_) => "error",
        }
    }
}

impl SentMessage {
    /// An answer that has not begun, to a prompt of as many tokens as `read` tells.
    pub fn new(id: String, model: String, read: &Tally) -> Self {
        SentMessage {
            id,
            r#type: "message",
            role: "assistant",
            model,
            content: Vec::new(),
            ending: AnswerEnding::default(),
            usage: TokenUsage::from(read),
        }
    }
}

/// Puts the events of a stream together to the message that they tell.
#[derive(Debug)]
pub struct MessageFold {
    message: SentMessage,
    /// The JSON of the open tool call's input, so far.
    input: String,
}

impl MessageFold {
    /// A fold that begins with `message`.
    pub fn new(message: SentMessage) -> Self {
        MessageFold { message, input: String::new() }
    }

    /// Takes in the next event.
    pub fn push(&mut self, event: MessageEvent) {
        match event {
            MessageEvent::MessageStart { message } => *self = MessageFold::new(message),
            MessageEvent::Ping | MessageEvent::MessageStop | MessageEvent::Error(_) => {}
            MessageEvent::ContentBlockStart { content_block, .. } => self.message.content.push(content_block),
            MessageEvent::ContentBlockDelta { delta, .. } => self.extend(delta),
            MessageEvent::ContentBlockStop { .. } => {
                let json = std::mem::take(&mut self.input);
                if let Some(ContentBlock::ToolUse { input, .. }) = self.message.content.last_mut() {
                    *input = object_of(&json);
                }
            }
            MessageEvent::MessageDelta { delta, usage } => (self.message.ending, self.message.usage) = (delta, usage),
        }
    }

    fn extend(&mut self, delta: BlockDelta) {
        match (delta, self.message.content.last_mut()) {
            (BlockDelta::Text { text: more }, Some(ContentBlock::Text { text })) => *text += &more,
            (BlockDelta::Thinking { thinking: more }, Some(ContentBlock::Thinking { thinking, .. })) => {
                *thinking += &more;
            }
            (BlockDelta::Signature { signature: given }, Some(ContentBlock::Thinking { signature, .. })) => {
                *signature = given;
            }
            (BlockDelta::InputJson { partial_json }, Some(ContentBlock::ToolUse { .. })) => {
                self.input += &partial_json;
            }
            // A writer of blocks gives each block the deltas of its kind.
            _ => {}
        }
    }

    /// The message that the events so far tell.
    pub fn finish(self) -> SentMessage {
        self.message
    }
}
