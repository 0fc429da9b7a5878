//! Completions, whole and in answer chunks.
use super::logprobs::{CompletionLogprobs, LogprobsWriter};
use crate::generation::{CollectedAnswer, CollectedChoice, PromptLogprobs};
use crate::openai::answer::{AnswerChoice, AnswerFormat, AnswerHeader, finish_reason};
use crate::openai::prompt::Prompt;
use crate::openai::prompt_logprobs::prompt_logprobs;
use crate::openai::request::AnswerRequest;
use crate::openai::token_names::TokenNames;
use engine::{Event, TokenLogprob};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use text::AnswerPart;

/// Writes completions. A streamed one begins with the echoed prompt of each choice, if that is asked for, then come
/// answer chunks of text, and at each choice's end one with the reason.
pub struct CompletionFormat {
    header: AnswerHeader,
    token_names: TokenNames,
    prompts: Vec<Prompt>,
    /// Choices of each prompt.
    n: usize,
    options: CompletionOptions,
    return_token_ids: bool,
    /// One for each choice: the first prompt's choices, then the second's, and so on.
    writers: Vec<LogprobsWriter>,
}

/// The fields of a request that shape its completions.
pub struct CompletionOptions {
    /// The text begins with the prompt.
    pub echo: bool,
    /// Alternatives to each token of the text; `None` asks for no log-probabilities.
    pub logprobs: Option<usize>,
    /// Alternatives to each token in vLLM's `prompt_logprobs`.
    pub prompt_logprobs: Option<usize>,
}

/// A choice in OpenAI's form, but with the log-probabilities in order, and with vLLM's fields.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CompletionChoice {
    index: usize,
    text: String,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
}

impl CompletionChoice {
    fn new(index: usize, text: String) -> Self {
        CompletionChoice {
            index,
            text,
            logprobs: None,
            finish_reason: None,
            prompt_logprobs: None,
            prompt_token_ids: None,
        }
    }
}

impl CompletionFormat {
    pub fn new(request: AnswerRequest, prompts: Vec<Prompt>, options: CompletionOptions) -> Self {
        let skip_special = !request.stop.keep_special_tokens;
        let alternatives = options.logprobs.unwrap_or(0);
        let writer = || LogprobsWriter::new(request.token_names.clone(), alternatives, skip_special);
        CompletionFormat {
            writers: (0..prompts.len() * request.n).map(|_| writer()).collect(),
            header: request.header,
            token_names: request.token_names.clone(),
            prompts,
            n: request.n,
            options,
            return_token_ids: request.return_token_ids,
        }
    }

    /// What a choice begins with: the echoed prompt and the prompt's token ids, where they are asked for. `entries` are
    /// the log-probabilities of the prompt's tokens.
    fn beginning(&mut self, index: usize, entries: &PromptLogprobs) -> CompletionChoice {
        let prompt = &self.prompts[index / self.n];
        let mut beginning = CompletionChoice::new(index, String::new());
        if self.options.echo {
            beginning.text.clone_from(&prompt.text);
            let writer = &mut self.writers[index];
            beginning.logprobs = self.options.logprobs.map(|_| writer.prompt(&prompt.ids, prompt.num_added, entries));
        }
        beginning.prompt_token_ids = self.return_token_ids.then(|| prompt.ids.clone());
        beginning
    }

    fn choice(
        &mut self,
        index: usize,
        answer: CollectedChoice,
        entries: &PromptLogprobs,
    ) -> AnswerChoice<CompletionChoice> {
        let mut inner = self.beginning(index, entries);
        inner.text += &answer.content.text();
        if self.options.logprobs.is_some() {
            let logprobs = inner.logprobs.get_or_insert_default();
            answer.logprobs.iter().for_each(|entry| self.writers[index].token(logprobs, entry));
        }
        inner.finish_reason = answer.reason.map(finish_reason);
        inner.prompt_logprobs =
            self.options.prompt_logprobs.map(|alternatives| prompt_logprobs(&self.token_names, entries, alternatives));
        let token_ids = self.return_token_ids.then_some(answer.tokens);
        AnswerChoice { token_ids, ..AnswerChoice::ended(inner, answer.matched_stop) }
    }

    /// The answer chunk for one token; `None` while a part of a character or of a stop string is held back, so that
    /// there is nothing to tell.
    fn token_chunk(
        &mut self,
        index: usize,
        text: String,
        token: u32,
        logprob: Option<&TokenLogprob>,
    ) -> Option<AnswerChoice<CompletionChoice>> {
        if text.is_empty() && self.options.logprobs.is_none() && !self.return_token_ids {
            return None;
        }
        let mut inner = CompletionChoice::new(index, text);
        if let Some(entry) = logprob.filter(|_| self.options.logprobs.is_some()) {
            self.writers[index].token(inner.logprobs.get_or_insert_default(), entry);
        }
        Some(AnswerChoice { token_ids: self.return_token_ids.then(|| vec![token]), ..AnswerChoice::new(inner) })
    }
}

impl AnswerFormat for CompletionFormat {
    const OBJECT: &'static str = "text_completion";
    const ANSWER_CHUNK_OBJECT: &'static str = "text_completion";
    type Choice = CompletionChoice;
    type ChunkChoice = CompletionChoice;

    fn header(&self) -> &AnswerHeader {
        &self.header
    }

    fn choices(&mut self, answer: CollectedAnswer) -> Vec<AnswerChoice<CompletionChoice>> {
        let CollectedAnswer { prompts, choices, .. } = answer;
        let choice = |(index, choice)| self.choice(index, choice, &prompts[index / self.n]);
        choices.into_iter().enumerate().map(choice).collect()
    }

    fn answer_chunks(&mut self, prompt: usize, event: Event) -> Vec<AnswerChoice<CompletionChoice>> {
        let first = prompt * self.n;
        match event {
            Event::Prompt { logprobs, .. } if self.options.echo || self.return_token_ids => {
                let entries = logprobs.unwrap_or_default();
                (first..first + self.n).map(|index| AnswerChoice::new(self.beginning(index, &entries))).collect()
            }
            Event::Admitted(_) | Event::Prompt { .. } | Event::Embedded { .. } | Event::Failed(_) => Vec::new(),
            Event::Delta { choice, parts, token, logprob, .. } => self
                .token_chunk(first + choice, AnswerPart::text_of(&parts), token, logprob.as_ref())
                .into_iter()
                .collect(),
            Event::Finished { choice, parts, reason, matched_stop, .. } => {
                let mut inner = CompletionChoice::new(first + choice, AnswerPart::text_of(&parts));
                inner.finish_reason = Some(finish_reason(reason));
                vec![AnswerChoice::ended(inner, matched_stop)]
            }
        }
    }
}
