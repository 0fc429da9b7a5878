//! Why a request was refused, or ended without an answer.
use thiserror::Error;

/// Refusals at submission; nothing has been queued.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SubmitError {
    #[error(
        "the prompt has {n_prompt_tokens} tokens; this server's context is {n_ctx} tokens, of which at least one is for the answer"
    )]
    ContextLengthExceeded { n_prompt_tokens: usize, n_ctx: usize },
    #[error("{message}")]
    Invalid { field: &'static str, message: String },
    #[error("{limit} requests are waiting already (--max-queued-requests); try again later")]
    QueueFull { limit: usize },
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl SubmitError {
    pub fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        SubmitError::Invalid { field, message: message.into() }
    }
}

/// Failures of a request that had been accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EngineError {
    /// The step that served the request panicked or returned an error; the server lives on.
    #[error("the step that served this request failed: {0}")]
    StepFailed(String),
    #[error("the server shut down before the request was finished")]
    ShutDown,
}

/// Why the engine did not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("{flag}: {message}")]
    Flag { flag: &'static str, message: String },
    #[error("no attention backend for the device {0}")]
    Device(String),
    /// No cache for this model: its head size, say.
    #[error("a model of type {model_type}: {reason}")]
    Cache { model_type: String, reason: Box<StartError> },
    #[error(transparent)]
    Layout(#[from] kv::LayoutError),
    #[error(transparent)]
    Scheduler(#[from] scheduler::SchedulerError),
    #[error(transparent)]
    Model(#[from] models::ModelError),
    #[error(transparent)]
    Text(#[from] text::TextError),
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    #[error("the thread pool: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    #[error("the engine's thread: {0}")]
    Spawn(#[from] std::io::Error),
}

impl StartError {
    /// Of a flag's value: what it is, and what is allowed.
    pub(crate) fn flag(flag: &'static str, message: impl Into<String>) -> Self {
        StartError::Flag { flag, message: message.into() }
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
