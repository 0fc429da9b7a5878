//! Chat answers, whole and in answer chunks.
use super::message::{AnswerMessage, DeltaWriter, MessageDelta};
use crate::generation::{CollectedAnswer, CollectedChoice};
use crate::openai::answer::{AnswerChoice, AnswerFormat, AnswerHeader, finish_reason};
use crate::openai::prompt_logprobs::prompt_logprobs;
use crate::openai::request::AnswerRequest;
use crate::openai::token_names::{DrawnToken, TokenNames};
use engine::{Event, TokenLogprob};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::mem::replace;
use text::AnswerPart;

/// Writes chat answers. A streamed one begins with an answer chunk for each choice, which tells the role. Answer chunks
/// of thoughts, text and tool calls follow, and at each choice's end one that tells the reason.
pub struct ChatFormat {
    header: AnswerHeader,
    token_names: TokenNames,
    options: ChatOptions,
    /// The prompt's ids, if token ids are asked for.
    prompt_token_ids: Option<Vec<u32>>,
    /// One for each choice.
    writers: Vec<DeltaWriter>,
    /// The answer chunks with the roles have been written.
    begun: bool,
}

/// The fields of a request that shape its chat answers.
#[derive(Debug, Clone, Default)]
pub struct ChatOptions {
    /// Whether log-probabilities are asked for.
    pub logprobs: bool,
    /// Alternatives to each token in vLLM's `prompt_logprobs`.
    pub prompt_logprobs: Option<usize>,
    /// The text that answers begin with; empty unless it is asked for (vLLM's `echo`).
    pub echo: String,
}

/// A choice of a whole answer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChatChoice {
    index: usize,
    message: AnswerMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

/// The log-probabilities of a choice's tokens.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct ChatLogprobs {
    content: Vec<DrawnToken>,
    /// What OpenAI's models say in place of an answer; always null.
    refusal: Option<Vec<DrawnToken>>,
}

/// A choice of an answer chunk.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChatChunkChoice {
    index: usize,
    delta: MessageDelta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

impl ChatChunkChoice {
    fn new(index: usize, delta: MessageDelta) -> Self {
        ChatChunkChoice { index, delta, logprobs: None, finish_reason: None }
    }
}

impl ChatFormat {
    /// A format for the answer to `request`, whose messages became the token ids `prompt`.
    pub fn new(request: AnswerRequest, prompt: Vec<u32>, options: ChatOptions) -> Self {
        ChatFormat {
            header: request.header,
            token_names: request.token_names,
            options,
            prompt_token_ids: request.return_token_ids.then_some(prompt),
            writers: (0..request.n).map(|_| DeltaWriter::default()).collect(),
            begun: false,
        }
    }

    fn choice(&self, index: usize, answer: CollectedChoice) -> AnswerChoice<ChatChoice> {
        let inner = ChatChoice {
            index,
            message: AnswerMessage::new(&self.options.echo, &answer.content, |number| {
                self.header.call_id(index, number)
            }),
            logprobs: self.options.logprobs.then(|| self.chat_logprobs(&answer.logprobs)),
            finish_reason: answer.reason.map(finish_reason),
        };
        let token_ids = self.prompt_token_ids.is_some().then_some(answer.tokens);
        AnswerChoice { token_ids, ..AnswerChoice::ended(inner, answer.matched_stop) }
    }

    /// The answer chunks of parts: one each.
    fn part_chunks(&mut self, index: usize, parts: Vec<AnswerPart>) -> Vec<AnswerChoice<ChatChunkChoice>> {
        let Some(writer) = self.writers.get_mut(index) else { return Vec::new() };
        let header = &self.header;
        let deltas = parts.into_iter().filter_map(|part| writer.delta(part, |number| header.call_id(index, number)));
        deltas.map(|delta| AnswerChoice::new(ChatChunkChoice::new(index, delta))).collect()
    }

    /// The answer chunks for one token; none while a part of a character, of a stop string or of a tag is held back, so
    /// that there is nothing to tell. The first carries what belongs to the token.
    fn token_chunks(
        &mut self,
        index: usize,
        parts: Vec<AnswerPart>,
        token: u32,
        logprob: Option<&TokenLogprob>,
    ) -> Vec<AnswerChoice<ChatChunkChoice>> {
        let with_ids = self.prompt_token_ids.is_some();
        let mut chunks = self.part_chunks(index, parts);
        if chunks.is_empty() && (self.options.logprobs || with_ids) {
            let empty = MessageDelta::content(String::new());
            chunks.push(AnswerChoice::new(ChatChunkChoice::new(index, empty)));
        }
        if let Some(first) = chunks.first_mut() {
            first.inner.logprobs = self.options.logprobs.then(|| self.chat_logprobs(logprob));
            first.token_ids = with_ids.then(|| vec![token]);
        }
        chunks
    }

    fn chat_logprobs<'a>(&self, logprobs: impl IntoIterator<Item = &'a TokenLogprob>) -> ChatLogprobs {
        let content = logprobs.into_iter().map(|entry| self.token_names.logprob(entry));
        ChatLogprobs { content: content.collect(), refusal: None }
    }
}

impl AnswerFormat for ChatFormat {
    const OBJECT: &'static str = "chat.completion";
    const ANSWER_CHUNK_OBJECT: &'static str = "chat.completion.chunk";
    type Choice = ChatChoice;
    type ChunkChoice = ChatChunkChoice;

    fn header(&self) -> &AnswerHeader {
        &self.header
    }

    fn prompt_token_ids(&self) -> Option<&[u32]> {
        self.prompt_token_ids.as_deref()
    }

    fn prompt_logprobs(&self, answer: &CollectedAnswer) -> Option<Value> {
        let alternatives = self.options.prompt_logprobs?;
        let entries = answer.prompts.first()?;
        Some(prompt_logprobs(&self.token_names, entries, alternatives))
    }

    fn choices(&mut self, answer: CollectedAnswer) -> Vec<AnswerChoice<ChatChoice>> {
        answer.choices.into_iter().enumerate().map(|(index, choice)| self.choice(index, choice)).collect()
    }

    fn answer_chunks(&mut self, _prompt: usize, event: Event) -> Vec<AnswerChoice<ChatChunkChoice>> {
        let mut chunks = Vec::new();
        if !replace(&mut self.begun, true) {
            let role = |index| ChatChunkChoice::new(index, MessageDelta::role());
            chunks.extend((0..self.writers.len()).map(role).map(AnswerChoice::new));
            if !self.options.echo.is_empty() {
                let echo = |index| ChatChunkChoice::new(index, MessageDelta::content(self.options.echo.clone()));
                chunks.extend((0..self.writers.len()).map(echo).map(AnswerChoice::new));
            }
        }
        match event {
            Event::Admitted(_) | Event::Prompt { .. } | Event::Embedded { .. } | Event::Failed(_) => {}
            Event::Delta { choice, parts, token, logprob, .. } => {
                chunks.extend(self.token_chunks(choice, parts, token, logprob.as_ref()));
            }
            Event::Finished { choice, parts, reason, matched_stop, .. } => {
                chunks.extend(self.part_chunks(choice, parts));
                let mut last = ChatChunkChoice::new(choice, MessageDelta::default());
                last.finish_reason = Some(finish_reason(reason));
                chunks.push(AnswerChoice::ended(last, matched_stop));
            }
        }
        chunks
    }
}
