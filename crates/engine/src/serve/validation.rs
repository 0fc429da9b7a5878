//! The one place that checks what a request asks for. A refusal names the field by its type, so that every protocol can
//! call it by the name that its clients know.
use super::handle::ModelInfo;
use super::request::{EmbeddingParams, GenerationRequest, SamplingParams};
use crate::error::{RequestField, SubmitError};
use scheduler::RequestLimits;
use std::collections::BTreeSet;

/// Choices that one request may ask for, where `--max-num-seqs` allows as many.
const MAX_CHOICES: usize = 128;
/// Alternatives that a token's log-probability may come with (OpenAI's limit).
const MAX_TOP_LOGPROBS: usize = 20;
/// Tokens that may be named to be reported with each token (vLLM's limit).
const MAX_LOGPROB_TOKEN_IDS: usize = 128;
/// Stop strings of one request. Each of them is searched for at every token.
const MAX_STOP_STRINGS: usize = 64;
/// Characters of a salt.
const MAX_SALT_CHARS: usize = 256;

impl GenerationRequest {
    /// Checks everything that can be wrong in a request to the model that `info` describes.
    ///
    /// Errors: [`SubmitError::Invalid`] with the first wrong field, or [`SubmitError::ContextLengthExceeded`].
    pub(crate) fn check(&self, info: &ModelInfo) -> Result<(), SubmitError> {
        self.check_model(info)?;
        self.check_prompt(info)?;
        let limits = RequestLimits {
            max_choices: MAX_CHOICES.min(info.max_num_seqs),
            capacity: info.num_blocks * info.block_size,
        };
        limits.check(self.n, self.max_len(info.max_model_len))?;
        if self.stop.max_tokens == Some(0) {
            return Err(SubmitError::invalid(RequestField::MaxTokens, "is 0; it must be at least 1"));
        }
        for (field, value) in
            [(RequestField::Logprobs, self.logprobs), (RequestField::PromptLogprobs, self.prompt_logprobs)]
        {
            if let Some(n) = value.filter(|n| *n > MAX_TOP_LOGPROBS) {
                return Err(SubmitError::invalid(field, format!("is {n}; it must lie in [0, {MAX_TOP_LOGPROBS}]")));
            }
        }
        self.check_logprob_token_ids(info)?;
        self.check_stop_strings()?;
        self.check_cache_salt()?;
        self.sampling.check(info.vocab_size)?;
        // A constraint and a list of tokens together may leave no token to draw.
        let held = self.constraint.is_some() || self.reading.as_ref().is_some_and(|r| r.call_constraint.is_some());
        if held && self.sampling.allowed_token_ids.is_some() {
            let problem = "does not go with tools, or with a form that the answer is held to";
            return Err(SubmitError::invalid(RequestField::AllowedTokenIds, problem));
        }
        self.check_min_tokens(info)
    }

    /// Checks that the model can do what is asked for.
    fn check_model(&self, info: &ModelInfo) -> Result<(), SubmitError> {
        let problem = match (self.embedding, &info.pooling) {
            (Some(_), Err(reason)) => {
                format!(
                    "cannot embed texts: it {reason}. Take an embedding model of sentence-transformers, such as \
                     Qwen/Qwen3-Embedding-0.6B, or a GGUF file of one"
                )
            }
            (None, _) if !info.has_head => "cannot generate: it is an embedding model without a head".into(),
            (Some(EmbeddingParams { dimensions: Some(n) }), Ok(_)) if !(1..=info.hidden_size).contains(&n) => {
                let problem = format!("is {n}; it must lie in [1, {}]", info.hidden_size);
                return Err(SubmitError::invalid(RequestField::Dimensions, problem));
            }
            _ => return Ok(()),
        };
        Err(SubmitError::Unsupported { field: RequestField::Model, problem })
    }

    fn check_prompt(&self, info: &ModelInfo) -> Result<(), SubmitError> {
        if self.prompt.is_empty() {
            return Err(SubmitError::invalid(RequestField::Prompt, "has no tokens; at least one is needed"));
        }
        if let Some(unknown) = self.prompt.iter().find(|t| **t as usize >= info.vocab_size) {
            let problem = format!("holds token {unknown}; the vocabulary has {}", info.vocab_size);
            return Err(SubmitError::invalid(RequestField::Prompt, problem));
        }
        // A prompt that fills the context leaves no place for an answer.
        let (n_prompt_tokens, n_ctx, is_answered) = (self.prompt.len(), info.max_model_len, self.embedding.is_none());
        if n_prompt_tokens + usize::from(is_answered) > n_ctx {
            return Err(SubmitError::ContextLengthExceeded { n_prompt_tokens, n_ctx, is_answered });
        }
        Ok(())
    }

    fn check_logprob_token_ids(&self, info: &ModelInfo) -> Result<(), SubmitError> {
        let (ids, vocab_size) = (&self.logprob_token_ids, info.vocab_size);
        let problem = if ids.is_empty() {
            return Ok(());
        } else if self.logprobs.is_none() {
            "needs logprobs".into()
        } else if ids.len() > MAX_LOGPROB_TOKEN_IDS {
            format!("has {} tokens; at most {MAX_LOGPROB_TOKEN_IDS} are allowed", ids.len())
        } else if let Some(token) = unknown_token(ids, vocab_size) {
            format!("names token {token}; the vocabulary has {vocab_size}")
        } else {
            return Ok(());
        };
        Err(SubmitError::invalid(RequestField::LogprobTokenIds, problem))
    }

    /// Checks that as many tokens can be generated, and that there is one to go on with.
    fn check_min_tokens(&self, info: &ModelInfo) -> Result<(), SubmitError> {
        let min_tokens = self.stop.min_tokens;
        if min_tokens == 0 {
            return Ok(());
        }
        let most = self.max_len(info.max_model_len) - self.prompt.len();
        if min_tokens > most {
            let problem = format!("is {min_tokens}; this answer can have {most} tokens at most");
            return Err(SubmitError::invalid(RequestField::MinTokens, problem));
        }
        let ends: BTreeSet<u32> = self.stop.ends(&info.turn_ends).collect();
        let goes_on = match &self.sampling.allowed_token_ids {
            Some(allowed) => allowed.iter().any(|token| !ends.contains(token)),
            None => (0..info.vocab_size as u32).any(|token| !ends.contains(&token)),
        };
        if !goes_on {
            let problem = format!("is {min_tokens}; every token that may be drawn ends the answer");
            return Err(SubmitError::invalid(RequestField::MinTokens, problem));
        }
        Ok(())
    }

    fn check_stop_strings(&self) -> Result<(), SubmitError> {
        let stop = &self.stop.stop;
        let problem = if stop.len() > MAX_STOP_STRINGS {
            format!("has {} strings; at most {MAX_STOP_STRINGS} are allowed", stop.len())
        } else if stop.iter().any(String::is_empty) {
            "holds an empty string, which would end every answer at once".into()
        } else {
            return Ok(());
        };
        Err(SubmitError::invalid(RequestField::Stop, problem))
    }

    fn check_cache_salt(&self) -> Result<(), SubmitError> {
        let chars = self.cache_salt.as_ref().map(|salt| salt.chars().count());
        match chars.filter(|chars| !(1..=MAX_SALT_CHARS).contains(chars)) {
            Some(chars) => {
                let problem = format!("has {chars} characters; it must be a string of 1 to {MAX_SALT_CHARS} of them");
                Err(SubmitError::invalid(RequestField::CacheSalt, problem))
            }
            None => Ok(()),
        }
    }
}

impl SamplingParams {
    fn check(&self, vocab_size: usize) -> Result<(), SubmitError> {
        self.check_values()?;
        if let Some((token, _)) = self.logit_bias.iter().find(|(token, _)| *token as usize >= vocab_size) {
            let problem = format!("names token {token}; the vocabulary has {vocab_size}");
            return Err(SubmitError::invalid(RequestField::LogitBias, problem));
        }
        if let Some(token) = self.banned_sequences.iter().find_map(|sequence| unknown_token(sequence, vocab_size)) {
            let problem = format!("has token {token}; the vocabulary has {vocab_size}");
            return Err(SubmitError::invalid(RequestField::BannedSequences, problem));
        }
        let Some(allowed) = &self.allowed_token_ids else { return Ok(()) };
        let problem = if allowed.is_empty() {
            "is empty, which allows no token; name one at least".into()
        } else if let Some(token) = unknown_token(allowed, vocab_size) {
            format!("names token {token}; the vocabulary has {vocab_size}")
        } else {
            return Ok(());
        };
        Err(SubmitError::invalid(RequestField::AllowedTokenIds, problem))
    }

    /// Checks what can be wrong whatever the model.
    ///
    /// Errors: [`SubmitError::Invalid`] with the first wrong field.
    pub(crate) fn check_values(&self) -> Result<(), SubmitError> {
        // (field, value, low, high, whether the value may be `low` itself)
        let ranges = [
            (RequestField::Temperature, self.temperature, 0.0, 100.0, true),
            (RequestField::TopP, self.top_p, 0.0, 1.0, true),
            (RequestField::MinP, self.min_p, 0.0, 1.0, true),
            (RequestField::RepetitionPenalty, self.repetition_penalty, 0.0, 100.0, false),
            (RequestField::PresencePenalty, self.presence_penalty, -2.0, 2.0, true),
            (RequestField::FrequencyPenalty, self.frequency_penalty, -2.0, 2.0, true),
        ];
        let biases = self.logit_bias.iter().map(|&(_, bias)| (RequestField::LogitBias, bias, -100.0, 100.0, true));
        for (field, value, low, high, closed) in ranges.into_iter().chain(biases) {
            // A NaN is in no range.
            let allowed = (low..=high).contains(&value) && (closed || value > low);
            if !allowed {
                let bracket = if closed { '[' } else { '(' };
                let problem = format!("is {value}; it must lie in {bracket}{low}, {high}]");
                return Err(SubmitError::invalid(field, problem));
            }
        }
        Ok(())
    }
}

/// The first of `ids` that the vocabulary does not have.
fn unknown_token(ids: &[u32], vocab_size: usize) -> Option<u32> {
    ids.iter().copied().find(|id| *id as usize >= vocab_size)
}
