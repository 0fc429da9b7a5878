//! Why a request was refused, or ended without an answer.
use scheduler::RequestError;
use std::fmt;
use thiserror::Error;

/// A field of a [`GenerationRequest`](crate::GenerationRequest), as refusals name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestField {
    /// The model, which not every request can be served by.
    Model,
    /// [`GenerationRequest::prompt`](crate::GenerationRequest::prompt).
    Prompt,
    /// [`GenerationRequest::n`](crate::GenerationRequest::n).
    Choices,
    /// [`GenerationRequest::logprobs`](crate::GenerationRequest::logprobs).
    Logprobs,
    /// [`GenerationRequest::logprob_token_ids`](crate::GenerationRequest::logprob_token_ids).
    LogprobTokenIds,
    /// [`GenerationRequest::prompt_logprobs`](crate::GenerationRequest::prompt_logprobs).
    PromptLogprobs,
    /// [`StopParams::max_tokens`](crate::StopParams::max_tokens).
    MaxTokens,
    /// [`StopParams::min_tokens`](crate::StopParams::min_tokens).
    MinTokens,
    /// [`StopParams::stop`](crate::StopParams::stop).
    Stop,
    /// [`SamplingParams::temperature`](crate::SamplingParams::temperature).
    Temperature,
    /// [`SamplingParams::top_p`](crate::SamplingParams::top_p).
    TopP,
    /// [`SamplingParams::min_p`](crate::SamplingParams::min_p).
    MinP,
    /// [`SamplingParams::repetition_penalty`](crate::SamplingParams::repetition_penalty).
    RepetitionPenalty,
    /// [`SamplingParams::presence_penalty`](crate::SamplingParams::presence_penalty).
    PresencePenalty,
    /// [`SamplingParams::frequency_penalty`](crate::SamplingParams::frequency_penalty).
    FrequencyPenalty,
    /// [`SamplingParams::logit_bias`](crate::SamplingParams::logit_bias).
    LogitBias,
    /// [`SamplingParams::allowed_token_ids`](crate::SamplingParams::allowed_token_ids).
    AllowedTokenIds,
    /// [`SamplingParams::banned_sequences`](crate::SamplingParams::banned_sequences).
    BannedSequences,
    /// [`EmbeddingParams::dimensions`](crate::EmbeddingParams::dimensions).
    Dimensions,
    /// [`GenerationRequest::cache_salt`](crate::GenerationRequest::cache_salt).
    CacheSalt,
}

impl RequestField {
    /// The field's name in this crate, which is also the usual one in APIs.
    pub fn name(self) -> &'static str {
        match self {
            RequestField::Model => "model",
            RequestField::Prompt => "prompt",
            RequestField::Choices => "n",
            RequestField::Logprobs => "logprobs",
            RequestField::LogprobTokenIds => "logprob_token_ids",
            RequestField::PromptLogprobs => "prompt_logprobs",
            RequestField::MaxTokens => "max_tokens",
            RequestField::MinTokens => "min_tokens",
            RequestField::Stop => "stop",
            RequestField::Temperature => "temperature",
            RequestField::TopP => "top_p",
            RequestField::MinP => "min_p",
            RequestField::RepetitionPenalty => "repetition_penalty",
            RequestField::PresencePenalty => "presence_penalty",
            RequestField::FrequencyPenalty => "frequency_penalty",
            RequestField::LogitBias => "logit_bias",
            RequestField::AllowedTokenIds => "allowed_token_ids",
            // vLLM's name, since other APIs have none.
            RequestField::BannedSequences => "bad_words",
            RequestField::Dimensions => "dimensions",
            RequestField::CacheSalt => "cache_salt",
        }
    }
}

impl fmt::Display for RequestField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a request was refused. Nothing of it has been computed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The prompt leaves no place for an answer, or is to be embedded and longer than the context. Clients know this
    /// case by the words of the message.
    #[error(
        "prompt is too long: {n_prompt_tokens} tokens > {} maximum; this model's maximum context length is {n_ctx} \
         tokens{}",
        n_ctx.saturating_sub(usize::from(*is_answered)),
        if *is_answered { ", of which at least one is for the answer" } else { "" }
    )]
    ContextLengthExceeded {
        /// Tokens of the prompt.
        n_prompt_tokens: usize,
        /// Tokens of the context: `--max-model-len`, or what the model and the cache allow.
        n_ctx: usize,
        /// Whether the prompt is to be answered, for which a place must be left.
        is_answered: bool,
    },
    /// The model cannot do what is asked for.
    #[error("{field} {problem}")]
    Unsupported {
        /// The field that would have to be another.
        field: RequestField,
        /// Why it cannot be done, as the rest of a sentence that begins with the field's name.
        problem: String,
    },
    /// A field has a value that is not allowed.
    #[error("{field} {problem}")]
    Invalid {
        /// The field, which a protocol may call by another name.
        field: RequestField,
        /// The value and what is allowed, as the rest of a sentence that begins with the field's name.
        problem: String,
    },
    /// The queue is full.
    #[error("{limit} requests are waiting already (--max-queued-requests); try again later")]
    QueueFull {
        /// Requests that may wait.
        limit: usize,
    },
    /// The machine is critically short of memory.
    #[error("this machine is short of memory, so no further request is taken now; try again later")]
    MemoryPressure,
    /// The engine accepts no request any more.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl SubmitError {
    pub(crate) fn invalid(field: RequestField, problem: impl Into<String>) -> Self {
        SubmitError::Invalid { field, problem: problem.into() }
    }
}

impl From<RequestError> for SubmitError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Choices { choices, max_choices } => {
                let problem = format!("is {choices}; it must lie in [1, {max_choices}]");
                SubmitError::invalid(RequestField::Choices, problem)
            }
            RequestError::Length { max_len, capacity } => {
                let problem = format!("lets the request grow to {max_len} tokens; the KV cache holds {capacity}");
                SubmitError::invalid(RequestField::MaxTokens, problem)
            }
        }
    }
}

/// Failures of a request that had been accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EngineError {
    /// The scheduler refused the request before its first step.
    #[error(transparent)]
    Refused(#[from] SubmitError),
    /// The step that served the request panicked or returned an error; the server lives on.
    #[error("the step that served this request failed: {0}")]
    StepFailed(String),
    /// Following the constraint on the answer took more work or memory than it may; other requests are not affected.
    #[error("{0}")]
    ConstraintFailed(String),
    /// The time that a shutdown left to running requests is over.
    #[error("the server shut down before the request was finished")]
    ShutDown,
}

/// Why the engine did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The value of a flag is wrong.
    #[error("{flag}: {message}")]
    Flag {
        /// The flag, with its dashes.
        flag: &'static str,
        /// What the value is and what is allowed.
        message: String,
    },
    /// No attention backend supports a device.
    #[error("no attention backend for the device {0}")]
    Device(String),
    /// What a model asks of the cache is at fault, such as its head size.
    #[error("a model of type {model_type}: {reason}")]
    Cache {
        /// The `model_type` of the model's configuration.
        model_type: String,
        /// What is wrong.
        reason: Box<StartError>,
    },
    /// The cache cannot be laid out.
    #[error(transparent)]
    Layout(#[from] kv::LayoutError),
    /// The limits on sequences and steps contradict each other.
    #[error(transparent)]
    Scheduler(#[from] scheduler::SchedulerError),
    /// The cache on disk cannot be of use.
    #[error(transparent)]
    Disk(#[from] disk_cache::DiskError),
    /// The model's files are missing or wrong.
    #[error(transparent)]
    Model(#[from] models::ModelError),
    /// The tokenizer or the chat template is missing or wrong.
    #[error(transparent)]
    Text(#[from] text::TextError),
    /// Memory or computation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// The system gives no threads to compute with.
    #[error("the thread pool: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The system gives no thread for the engine.
    #[error("the engine's thread: {0}")]
    Spawn(#[from] std::io::Error),
}

impl StartError {
    /// A refusal of the value of a flag. `message` says what the value is and what is allowed.
    pub fn flag(flag: &'static str, message: impl Into<String>) -> Self {
        StartError::Flag { flag, message: message.into() }
    }

    /// Adds to a refused flag what presets were left out, and how one of them is taken all the same.
    pub(crate) fn with_hint(self, left_out: &[String]) -> Self {
        match self {
            StartError::Flag { flag, message } if !left_out.is_empty() => {
                let hint = left_out.join("; ");
                StartError::Flag { flag, message: format!("{message}. {hint}; --kv-preset NAME takes it all the same") }
            }
            other => other,
        }
    }

    /// Names the model's type where what it asks of the cache is at fault: its head size, say.
    pub(crate) fn of_model(self, model_type: &str) -> Self {
        match self {
            StartError::Layout(_) | StartError::Candle(_) => {
                StartError::Cache { model_type: model_type.to_owned(), reason: Box::new(self) }
            }
            other => other,
        }
    }
}
