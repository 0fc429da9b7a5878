//! Chat answers in chunks.
use super::chat::ChatFormat;
use crate::error::{ApiError, ErrorCode};
use crate::generation::{Tally, finish_reason};
use crate::sse::Chunks;
use crate::wire::{Choice, stop_reason};
use engine::{Event, TokenLogprob};
use openai_protocol::chat::{ChatMessageDelta, ChatStreamChoice};
use openai_protocol::common::Usage;

/// First a chunk a choice with the role, then the text as it comes, a chunk with the reason at each choice's end, and the
/// usage last, if asked for.
pub(super) struct ChatChunks {
    format: ChatFormat,
    include_usage: bool,
    tally: Tally,
    begun: bool,
}

impl ChatChunks {
    pub fn new(format: ChatFormat, include_usage: bool) -> Self {
        ChatChunks { format, include_usage, tally: Tally::default(), begun: false }
    }

    /// A chunk as JSON; `usage` is null in all but the last.
    fn chunk(
        &self,
        choices: Vec<Choice<ChatStreamChoice>>,
        usage: Option<Usage>,
        first: bool,
    ) -> Result<String, ApiError> {
        let mut envelope = self.format.head.envelope("chat.completion.chunk", choices);
        envelope.usage = self.include_usage.then_some(usage);
        envelope.prompt_token_ids = self.format.prompt_ids.clone().filter(|_| first);
        serde_json::to_string(&envelope).map_err(|e| ApiError::new(ErrorCode::Internal, e.to_string()))
    }

    fn begin(&mut self) -> Result<Vec<String>, ApiError> {
        self.begun = true;
        let role = |index| stream_choice(index, ChatMessageDelta { role: Some("assistant".into()), ..delta(Some("")) });
        (0..self.format.n).map(|index| self.chunk(vec![Choice::new(role(index))], None, index == 0)).collect()
    }

    fn token(
        &self,
        index: usize,
        text: &str,
        token: u32,
        logprob: Option<&TokenLogprob>,
    ) -> Result<Option<String>, ApiError> {
        let with_ids = self.format.prompt_ids.is_some();
        // Nothing to tell while a part of a character or of a stop string is held back.
        if text.is_empty() && !self.format.logprobs && !with_ids {
            return Ok(None);
        }
        let mut choice = stream_choice(index, delta(Some(text)));
        choice.logprobs = self.format.logprobs.then(|| self.format.names.chat(logprob));
        let choice = Choice { token_ids: with_ids.then(|| vec![token]), ..Choice::new(choice) };
        self.chunk(vec![choice], None, false).map(Some)
    }
}

impl Chunks for ChatChunks {
    fn event(&mut self, _prompt: usize, event: Event) -> Result<Vec<String>, ApiError> {
        self.tally.add(&event);
        let mut chunks = if self.begun { Vec::new() } else { self.begin()? };
        match event {
            Event::Prompt { .. } | Event::Failed(_) => {}
            Event::Delta { choice, text, token, logprob } => {
                chunks.extend(self.token(choice, &text, token, logprob.as_ref())?);
            }
            Event::Finished { choice, text, reason, matched_stop } => {
                if !text.is_empty() {
                    let rest = stream_choice(choice, delta(Some(&text)));
                    chunks.push(self.chunk(vec![Choice::new(rest)], None, false)?);
                }
                let mut last = stream_choice(choice, delta(None));
                last.finish_reason = Some(finish_reason(reason));
                let stop_reason = matched_stop.as_ref().map(stop_reason);
                chunks.push(self.chunk(vec![Choice { stop_reason, ..Choice::new(last) }], None, false)?);
            }
        }
        Ok(chunks)
    }

    fn end(&mut self) -> Result<Vec<String>, ApiError> {
        if !self.include_usage {
            return Ok(Vec::new());
        }
        Ok(vec![self.chunk(Vec::new(), Some(self.tally.usage()), false)?])
    }
}

fn delta(content: Option<&str>) -> ChatMessageDelta {
    ChatMessageDelta { role: None, content: content.map(str::to_owned), tool_calls: None, reasoning_content: None }
}

fn stream_choice(index: usize, delta: ChatMessageDelta) -> ChatStreamChoice {
    ChatStreamChoice { index: index as u32, delta, logprobs: None, finish_reason: None, matched_stop: None }
}
