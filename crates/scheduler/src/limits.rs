//! What one request may ask of the scheduler, whatever else runs.
use thiserror::Error;

/// The limits within which every request can be scheduled, if need be alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Choices of one request; all of them run at the same time.
    pub max_choices: usize,
    /// Tokens that the whole cache holds.
    pub capacity: usize,
}

impl RequestLimits {
    /// Checks a request for `choices` choices, each of at most `max_len` tokens, the prompt's included.
    ///
    /// Errors: a request that could never run, with the limit named.
    pub fn check(&self, choices: usize, max_len: usize) -> Result<(), RequestError> {
        let &RequestLimits { max_choices, capacity } = self;
        if !(1..=max_choices).contains(&choices) {
            return Err(RequestError::Choices { choices, max_choices });
        }
        if max_len > capacity {
            return Err(RequestError::Length { max_len, capacity });
        }
        Ok(())
    }
}

/// Why a request could never run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The request asks for no choice, or for more than may run at once.
    #[error("n is {choices}; --max-num-seqs allows [1, {max_choices}]")]
    Choices {
        /// Choices that were asked for.
        choices: usize,
        /// Choices that are allowed.
        max_choices: usize,
    },
    /// The request may outgrow the whole cache.
    #[error("the request may grow to {max_len} tokens; the KV cache holds {capacity}")]
    Length {
        /// Tokens of the prompt and of the longest answer.
        max_len: usize,
        /// Tokens that the cache holds.
        capacity: usize,
    },
}
