//! The parts of an answer become content blocks.
use super::events::{BlockDelta, ContentBlock, MessageEvent};
use serde_json::Map;
use text::AnswerPart;

/// Writes the events of an answer's content blocks. A block is closed before the next opens.
#[derive(Debug)]
pub struct BlockWriter {
    /// The ids of tool calls and the signatures of thoughts end with it.
    unique: String,
    /// Thoughts are told of, but not shown.
    omits_thoughts: bool,
    /// Blocks that have been opened.
    opened: usize,
    /// Those of them that are tool calls.
    calls: usize,
    open: Option<OpenBlock>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenBlock {
    Text,
    Thinking,
    ToolUse,
}

impl BlockWriter {
    /// A writer for the answer to the request whose id is `unique`.
    pub fn new(unique: &str, omits_thoughts: bool) -> Self {
        BlockWriter { unique: unique.to_owned(), omits_thoughts, opened: 0, calls: 0, open: None }
    }

    /// Appends the events that the next part of the answer leads to.
    pub fn push(&mut self, part: AnswerPart, events: &mut Vec<MessageEvent>) {
        match part {
            AnswerPart::Text(text) if !text.is_empty() => {
                self.ensure(OpenBlock::Text, events);
                events.push(self.delta(BlockDelta::Text { text }));
            }
            AnswerPart::Thought(thinking) if !thinking.is_empty() => {
                self.ensure(OpenBlock::Thinking, events);
                if !self.omits_thoughts {
                    events.push(self.delta(BlockDelta::Thinking { thinking }));
                }
            }
            AnswerPart::CallOpened { name } => {
                let id = format!("toolu_{}{:02x}", self.unique, self.calls);
                self.calls += 1;
                self.begin(OpenBlock::ToolUse, ContentBlock::ToolUse { id, name, input: Map::new() }, events);
            }
            AnswerPart::CallArguments(partial_json) if self.open == Some(OpenBlock::ToolUse) => {
                events.push(self.delta(BlockDelta::InputJson { partial_json }));
            }
            AnswerPart::CallClosed => self.close(events),
            // What is empty adds nothing, and arguments stand within a call alone.
            AnswerPart::Text(_) | AnswerPart::Thought(_) | AnswerPart::CallArguments(_) => {}
        }
    }

    /// Appends the events that close the open block.
    pub fn close(&mut self, events: &mut Vec<MessageEvent>) {
        let Some(kind) = self.open.take() else { return };
        if kind == OpenBlock::Thinking {
            // Clients drop thoughts without a signature. This server needs none.
            events.push(self.delta(BlockDelta::Signature { signature: format!("sig_{}", self.unique) }));
        }
        events.push(MessageEvent::ContentBlockStop { index: self.index() });
    }

    /// Opens a block of text or thoughts, unless it is open.
    fn ensure(&mut self, kind: OpenBlock, events: &mut Vec<MessageEvent>) {
        if self.open == Some(kind) {
            return;
        }
        let block = match kind {
            OpenBlock::Thinking => ContentBlock::Thinking { thinking: String::new(), signature: String::new() },
            OpenBlock::Text | OpenBlock::ToolUse => ContentBlock::Text { text: String::new() },
        };
        self.begin(kind, block, events);
    }

    fn begin(&mut self, kind: OpenBlock, content_block: ContentBlock, events: &mut Vec<MessageEvent>) {
        self.close(events);
        self.opened += 1;
        self.open = Some(kind);
        events.push(MessageEvent::ContentBlockStart { index: self.index(), content_block });
    }

    fn delta(&self, delta: BlockDelta) -> MessageEvent {
        MessageEvent::ContentBlockDelta { index: self.index(), delta }
    }

    /// The place of the block that was opened last.
    fn index(&self) -> usize {
        self.opened.saturating_sub(1)
    }
}
