//! Completions in chunks.
use super::completions::{CompletionChoice, CompletionFormat};
use crate::completion_logprobs::{CompletionLogprobs, Placer};
use crate::error::{ApiError, ErrorCode};
use crate::generation::{PromptLogprobs, Tally, finish_reason};
use crate::sse::Chunks;
use crate::wire::{Choice, stop_reason};
use engine::{Event, TokenLogprob};
use openai_protocol::common::Usage;

/// The echoed prompt of each choice, if asked for, the text as it comes, the reason with an empty text at each choice's end,
/// and the usage last, if asked for.
pub(super) struct CompletionChunks {
    /// One a choice.
    placers: Vec<Placer>,
    format: CompletionFormat,
    include_usage: bool,
    tally: Tally,
}

impl CompletionChunks {
    pub fn new(format: CompletionFormat, include_usage: bool) -> Self {
        let choices = format.prompts.len() * format.n;
        let placers = (0..choices).map(|_| format.placer()).collect();
        CompletionChunks { placers, format, include_usage, tally: Tally::default() }
    }

    fn chunk(&self, choices: Vec<Choice<CompletionChoice>>, usage: Option<Usage>) -> Result<String, ApiError> {
        let mut envelope = self.format.head.envelope("text_completion", choices);
        envelope.usage = self.include_usage.then_some(usage);
        serde_json::to_string(&envelope).map_err(|e| ApiError::new(ErrorCode::Internal, e.to_string()))
    }

    /// What each choice of a prompt begins with.
    fn begin(&mut self, prompt: usize, entries: &PromptLogprobs) -> Result<Vec<String>, ApiError> {
        if !self.format.echo && !self.format.token_ids {
            return Ok(Vec::new());
        }
        let mut chunks = Vec::new();
        for index in prompt * self.format.n..(prompt + 1) * self.format.n {
            let source = &self.format.prompts[prompt];
            let mut inner = piece(index, "");
            if self.format.echo {
                inner.text = source.text.clone();
                if self.format.logprobs.is_some() {
                    inner.logprobs = Some(self.placers[index].prompt(&source.ids, source.hidden, entries));
                }
            }
            inner.prompt_token_ids = self.format.token_ids.then(|| source.ids.clone());
            chunks.push(self.chunk(vec![Choice::new(inner)], None)?);
        }
        Ok(chunks)
    }

    fn token(
        &mut self,
        index: usize,
        text: &str,
        token: u32,
        logprob: Option<&TokenLogprob>,
    ) -> Result<Option<String>, ApiError> {
        // Nothing to tell while a part of a character or of a stop string is held back.
        if text.is_empty() && self.format.logprobs.is_none() && !self.format.token_ids {
            return Ok(None);
        }
        let mut inner = piece(index, text);
        if let Some(entry) = logprob.filter(|_| self.format.logprobs.is_some()) {
            let mut logprobs = CompletionLogprobs::default();
            self.placers[index].token(&mut logprobs, entry);
            inner.logprobs = Some(logprobs);
        }
        let choice = Choice { token_ids: self.format.token_ids.then(|| vec![token]), ..Choice::new(inner) };
        self.chunk(vec![choice], None).map(Some)
    }
}

impl Chunks for CompletionChunks {
    fn event(&mut self, prompt: usize, event: Event) -> Result<Vec<String>, ApiError> {
        self.tally.add(&event);
        let first = prompt * self.format.n;
        match event {
            Event::Prompt { logprobs, .. } => self.begin(prompt, &logprobs.unwrap_or_default()),
            Event::Delta { choice, text, token, logprob } => {
                Ok(self.token(first + choice, &text, token, logprob.as_ref())?.into_iter().collect())
            }
            Event::Finished { choice, text, reason, matched_stop } => {
                let mut inner = piece(first + choice, &text);
                inner.finish_reason = Some(finish_reason(reason));
                let stop_reason = matched_stop.as_ref().map(stop_reason);
                Ok(vec![self.chunk(vec![Choice { stop_reason, ..Choice::new(inner) }], None)?])
            }
            Event::Failed(_) => Ok(Vec::new()),
        }
    }

    fn end(&mut self) -> Result<Vec<String>, ApiError> {
        if !self.include_usage {
            return Ok(Vec::new());
        }
        Ok(vec![self.chunk(Vec::new(), Some(self.tally.usage()))?])
    }
}

fn piece(index: usize, text: &str) -> CompletionChoice {
    CompletionChoice {
        index,
        text: text.to_owned(),
        logprobs: None,
        finish_reason: None,
        prompt_logprobs: None,
        prompt_token_ids: None,
    }
}
