//! The one place that checks what a request asks for. A refusal names the field by its type, so that every protocol can
//! call it by the name that its clients know.
use super::handle::ModelInfo;
use super::request::{GenerationRequest, SamplingParams};
use crate::error::{RequestField, SubmitError};
use scheduler::RequestLimits;

/// Choices that one request may ask for, where `--max-num-seqs` allows as many.
const MAX_CHOICES: usize = 128;
/// Alternatives that a token's log-probability may come with (OpenAI's limit).
const MAX_TOP_LOGPROBS: usize = 20;
/// Stop strings of one request. Each of them is searched for at every token.
const MAX_STOP_STRINGS: usize = 64;

impl GenerationRequest {
    /// Checks everything that can be wrong in a request to the model that `info` describes.
    ///
    /// Errors: [`SubmitError::Invalid`] with the first wrong field, or [`SubmitError::ContextLengthExceeded`].
    pub(crate) fn check(&self, info: &ModelInfo) -> Result<(), SubmitError> {
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
        self.check_stop_strings()?;
        self.sampling.check(info.vocab_size)
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
        if self.prompt.len() >= info.max_model_len {
            let (n_prompt_tokens, n_ctx) = (self.prompt.len(), info.max_model_len);
            return Err(SubmitError::ContextLengthExceeded { n_prompt_tokens, n_ctx });
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
}

impl SamplingParams {
    fn check(&self, vocab_size: usize) -> Result<(), SubmitError> {
        self.check_values()?;
        if let Some((token, _)) = self.logit_bias.iter().find(|(token, _)| *token as usize >= vocab_size) {
            let problem = format!("names token {token}; the vocabulary has {vocab_size}");
            return Err(SubmitError::invalid(RequestField::LogitBias, problem));
        }
        Ok(())
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
