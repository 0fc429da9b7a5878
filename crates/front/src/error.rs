//! Why a request does not reach its model.
use server::{ApiError, ErrorCode};
use std::time::Duration;
use thiserror::Error;

/// Why a request does not reach its model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoadError {
    /// As many requests wait as may.
    #[error("{limit} requests wait for models to be loaded already (--max-queued-requests); try again later")]
    QueueFull {
        /// Requests that may wait.
        limit: usize,
    },
    /// The request has waited for its model as long as it may.
    #[error("{name} was not loaded within {seconds} s; it is being loaded still, or others need the memory; try again")]
    TookTooLong {
        /// The model.
        name: String,
        /// How long the request has waited.
        seconds: u64,
    },
    /// The model's process could not be started, or has ended by itself, and it is too early to start another.
    #[error("{name} cannot be served now: {reason}. It is started again by a request after {} s", retry.as_secs())]
    Failed {
        /// The model.
        name: String,
        /// How the process ended, with the last lines of its log.
        reason: String,
        /// When a request starts it again.
        retry: Duration,
    },
    /// The model takes more memory than there is for all models.
    #[error("{name} cannot be loaded, even where no other model is: {reason}")]
    TooLarge {
        /// The model.
        name: String,
        /// What it needs, and what there is.
        reason: String,
    },
    /// The request is no reason to load the model.
    #[error("{name} is not loaded now, so there is nothing to tell of it; a request for an answer loads it")]
    NotLoaded {
        /// The model.
        name: String,
    },
    /// The system gives no connection to the model's process.
    #[error("the process of {name} cannot be asked now: {reason}; try again soon")]
    NoConnection {
        /// The model.
        name: String,
        /// What the system says.
        reason: String,
    },
    /// The model's process ended before the answer did.
    #[error("the process of {name} ended before the answer did; the next request starts another")]
    Ended {
        /// The model.
        name: String,
    },
    /// No model is loaded any more.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl From<LoadError> for ApiError {
    fn from(error: LoadError) -> Self {
        let code = match &error {
            LoadError::QueueFull { .. } | LoadError::TookTooLong { .. } => ErrorCode::LoadQueueFull,
            LoadError::Failed { retry, .. } => {
                let seconds = retry.as_secs().max(1).try_into().unwrap_or(u16::MAX);
                return ApiError::new(ErrorCode::ModelFailed, error.to_string()).retry_after(seconds);
            }
            LoadError::TooLarge { .. } => ErrorCode::ModelTooLarge,
            LoadError::NotLoaded { .. } => ErrorCode::ModelNotLoaded,
            LoadError::NoConnection { .. } => ErrorCode::TooManyConnections,
            LoadError::Ended { .. } => ErrorCode::ModelEnded,
            LoadError::ShuttingDown => ErrorCode::ShuttingDown,
        };
        ApiError::new(code, error.to_string())
    }
}
