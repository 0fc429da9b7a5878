//! Errors of this crate.
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a model could not be fetched.
#[derive(Debug, Error)]
pub enum HubError {
    /// There is no folder for the cache.
    #[error("there is no home folder for the cache; set HF_HOME")]
    NoHome,
    /// A variable of the environment has a value that cannot be used.
    #[error("{variable} is {value}; {message}")]
    Variable {
        /// The variable's name.
        variable: String,
        /// Its value.
        value: String,
        /// What is allowed.
        message: &'static str,
    },
    /// The access token cannot be sent. It is not shown.
    #[error("the token in {place} has a blank, a line break or another character inside that no token has")]
    Token {
        /// The variable or file that has it.
        place: String,
    },
    /// A revision has characters that no branch, tag or commit has.
    #[error("--revision is {revision}; it must be a branch, a tag or a commit")]
    Revision {
        /// The revision that was asked for.
        revision: String,
    },
    /// No connection, or one that broke.
    #[error("{url} cannot be reached: {message}")]
    Connection {
        /// The address.
        url: String,
        /// The causes.
        message: String,
    },
    /// An answer with an unexpected HTTP status.
    #[error("{url} answers {status}")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// An answer that is not as the hub's interface has it.
    #[error("{url} sends something else than expected: {message}")]
    Answer {
        /// The address.
        url: String,
        /// What is wrong with the answer.
        message: String,
    },
    /// The hub does not let this client read the model.
    #[error(
        "the hub answers {status} for {model}: it is private, gated or does not exist. {}",
        if *.with_token { "The token in HF_TOKEN may not read it; ask for access on its page" }
        else { "Set HF_TOKEN to a token that may read it (https://huggingface.co/settings/tokens)" }
    )]
    Refused {
        /// The repository.
        model: String,
        /// The HTTP status.
        status: u16,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The hub knows no such model, or no such revision of it.
    #[error("{model} has no revision {revision}, or there is no such model")]
    NotFound {
        /// The repository.
        model: String,
        /// The revision that was asked for.
        revision: String,
    },
    /// A file does not hold what its name says. It has been deleted.
    #[error("{} was damaged, on the way or on this disk, and is deleted; fetch the model again", .path.display())]
    Damaged {
        /// The file's path in the cache.
        path: PathBuf,
    },
    /// A file that the model needs is not in its repository.
    #[error("{model} has no file {file}")]
    MissingFile {
        /// The repository.
        model: String,
        /// The file's path in the repository.
        file: String,
    },
    /// The repository holds no model that could be loaded.
    #[error("{model} has neither config.json with safetensors nor a .gguf file")]
    NoModel {
        /// The model's name.
        model: String,
    },
    /// The repository has several GGUF files, and the name does not choose one of them.
    #[error("{model}: {message}; there are {}", known.join(", "))]
    Quant {
        /// The repository.
        model: String,
        /// Why none is chosen.
        message: String,
        /// The quantisations in the repository.
        known: Vec<String>,
    },
    /// The hub is not asked, and the cache lacks a part of the model.
    #[error("{reason}, and the cache does not have {model} whole: {what} is missing")]
    NotCached {
        /// The model's name.
        model: String,
        /// What the cache lacks.
        what: String,
        /// Why the hub is not asked.
        reason: String,
    },
    /// A model that is to be deleted is not in the cache.
    #[error("the cache {} does not have {model}", .folder.display())]
    Absent {
        /// The model's name.
        model: String,
        /// The cache's folder.
        folder: PathBuf,
    },
    /// A file or folder of the cache cannot be read or written.
    #[error("{path}: {message}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        message: String,
    },
}

impl HubError {
    /// Whether the fault is the connection's or the hub's own, so that another try may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            HubError::Connection { .. } => true,
            HubError::Status { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }

    /// An error about a file or folder of the cache.
    pub(crate) fn file(path: &Path, message: impl ToString) -> Self {
        HubError::File { path: path.to_owned(), message: message.to_string() }
    }
}
