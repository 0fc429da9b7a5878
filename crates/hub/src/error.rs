//! Why a model could not be had.
use std::path::{Path, PathBuf};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum HubError {
    #[error("there is no home folder for the cache; set HF_HOME")]
    NoHome,
    #[error("--revision is {revision}; it must be a branch, a tag or a commit")]
    Revision { revision: String },
    #[error("{url} cannot be reached: {message}")]
    Connection { url: String, message: String },
    #[error("{url} answers {status}")]
    Status { url: String, status: u16 },
    #[error("{url} sends something else than expected: {message}")]
    Answer { url: String, message: String },
    #[error(
        "the hub answers {status} for {model}: it is private, gated or does not exist. {}",
        if *.with_token { "The token in HF_TOKEN may not read it; ask for access on its page" }
        else { "Set HF_TOKEN to a token that may read it (https://huggingface.co/settings/tokens)" }
    )]
    Refused { model: String, status: u16, with_token: bool },
    #[error("{model} has no revision {revision}, or there is no such model")]
    NotFound { model: String, revision: String },
    #[error("{model} has no file {file}")]
    MissingFile { model: String, file: String },
    #[error("{model} has neither config.json with safetensors nor a .gguf file")]
    NoModel { model: String },
    #[error("{model}: {message}; there are {}", known.join(", "))]
    Quant { model: String, message: String, known: Vec<String> },
    #[error("{reason}, and the cache does not have {model} whole: {what} is missing")]
    NotCached { model: String, what: String, reason: String },
    #[error("{path}: {message}")]
    File { path: PathBuf, message: String },
}

impl HubError {
    /// Whether it is the connection's fault or the hub's own, and another try may go well.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            HubError::Connection { .. } => true,
            HubError::Status { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }

    pub(crate) fn file(path: &Path, message: impl ToString) -> Self {
        HubError::File { path: path.to_owned(), message: message.to_string() }
    }
}
