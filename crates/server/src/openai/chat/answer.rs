//! Chat answers, whole and in answer chunks.
use crate::generation::{CollectedAnswer, CollectedChoice};
use crate::openai::answer::{AnswerChoice, AnswerFormat, AnswerHeader, finish_reason};
use crate::openai::prompt_logprobs::prompt_logprobs;
use crate::openai::request::AnswerRequest;
use crate::openai::token_names::TokenNames;
use engine::{Event, TokenLogprob};
use openai_protocol::chat::{ChatChoice, ChatCompletionMessage, ChatMessageDelta, ChatStreamChoice};
use openai_protocol::common::{ChatLogProbs, ChatLogProbsContent, TopLogProb};
use serde_json::Value;
use std::mem::replace;

/// Writes chat answers. A streamed one begins with an answer chunk for each choice, which tells the role. Answer chunks
/// of text follow, and at each choice's end one that tells the reason.
pub struct ChatFormat {
    header: AnswerHeader,
    token_names: TokenNames,
    /// Choices of the answer.
    n: usize,
    options: ChatOptions,
    /// The prompt's ids, if token ids are asked for.
    prompt_token_ids: Option<Vec<u32>>,
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

impl ChatFormat {
    /// A format for the answer to `request`, whose messages became the token ids `prompt`.
    pub fn new(request: AnswerRequest, prompt: Vec<u32>, options: ChatOptions) -> Self {
        ChatFormat {
            header: request.header,
            token_names: request.token_names,
            n: request.n,
            options,
            prompt_token_ids: request.return_token_ids.then_some(prompt),
            begun: false,
        }
    }

    fn choice(&self, index: usize, answer: CollectedChoice) -> AnswerChoice<ChatChoice> {
        let message = ChatCompletionMessage {
            role: "assistant".into(),
            content: Some(format!("{}{}", self.options.echo, answer.text)),
            refusal: None,
            annotations: Vec::new(),
            tool_calls: None,
            reasoning_content: None,
        };
        let inner = ChatChoice {
            index: index as u32,
            message,
            logprobs: self.options.logprobs.then(|| self.chat_logprobs(&answer.logprobs)),
            finish_reason: answer.reason.map(finish_reason),
            matched_stop: None,
            hidden_states: None,
        };
        let token_ids = self.prompt_token_ids.is_some().then_some(answer.tokens);
        AnswerChoice { token_ids, ..AnswerChoice::ended(inner, answer.matched_stop) }
    }

    /// The answer chunk for one token; `None` while a part of a character or of a stop string is held back, so that
    /// there is nothing to tell.
    fn token_chunk(
        &self,
        index: usize,
        text: String,
        token: u32,
        logprob: Option<&TokenLogprob>,
    ) -> Option<AnswerChoice<ChatStreamChoice>> {
        let with_ids = self.prompt_token_ids.is_some();
        if text.is_empty() && !self.options.logprobs && !with_ids {
            return None;
        }
        let mut inner = chunk_choice(index, None, Some(text));
        inner.logprobs = self.options.logprobs.then(|| self.chat_logprobs(logprob));
        Some(AnswerChoice { token_ids: with_ids.then(|| vec![token]), ..AnswerChoice::new(inner) })
    }

    fn chat_logprobs<'a>(&self, logprobs: impl IntoIterator<Item = &'a TokenLogprob>) -> ChatLogProbs {
        let names = &self.token_names;
        let alternative = |&(id, logprob): &(u32, f32)| TopLogProb {
            token: names.name(id),
            logprob,
            bytes: Some(names.tokenizer.token_bytes(id)),
        };
        let content = logprobs.into_iter().map(|entry| ChatLogProbsContent {
            token: names.name(entry.token),
            logprob: entry.logprob,
            bytes: Some(names.tokenizer.token_bytes(entry.token)),
            top_logprobs: entry.top.iter().map(alternative).collect(),
        });
        ChatLogProbs::Detailed { content: Some(content.collect()), refusal: None }
    }
}

impl AnswerFormat for ChatFormat {
    const OBJECT: &'static str = "chat.completion";
    const ANSWER_CHUNK_OBJECT: &'static str = "chat.completion.chunk";
    type Choice = ChatChoice;
    type ChunkChoice = ChatStreamChoice;

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

    fn answer_chunks(&mut self, _prompt: usize, event: Event) -> Vec<AnswerChoice<ChatStreamChoice>> {
        let mut chunks = Vec::new();
        if !replace(&mut self.begun, true) {
            let role = |index| chunk_choice(index, Some("assistant".into()), Some(String::new()));
            chunks.extend((0..self.n).map(role).map(AnswerChoice::new));
            if !self.options.echo.is_empty() {
                let echo = |index| chunk_choice(index, None, Some(self.options.echo.clone()));
                chunks.extend((0..self.n).map(echo).map(AnswerChoice::new));
            }
        }
        match event {
            Event::Prompt { .. } | Event::Failed(_) => {}
            Event::Delta { choice, text, token, logprob } => {
                chunks.extend(self.token_chunk(choice, text, token, logprob.as_ref()));
            }
            Event::Finished { choice, text, reason, matched_stop } => {
                if !text.is_empty() {
                    chunks.push(AnswerChoice::new(chunk_choice(choice, None, Some(text))));
                }
                let mut last = chunk_choice(choice, None, None);
                last.finish_reason = Some(finish_reason(reason));
                chunks.push(AnswerChoice::ended(last, matched_stop));
            }
        }
        chunks
    }
}

fn chunk_choice(index: usize, role: Option<String>, content: Option<String>) -> ChatStreamChoice {
    let delta = ChatMessageDelta { role, content, tool_calls: None, reasoning_content: None };
    ChatStreamChoice { index: index as u32, delta, logprobs: None, finish_reason: None, matched_stop: None }
}
