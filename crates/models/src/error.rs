//! Why a model could not be loaded.
use std::path::{Path, PathBuf};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ModelError {
    #[error("{path}: {message}")]
    File { path: PathBuf, message: String },
    #[error("{path}: tensor {tensor}: {message}")]
    Tensor { path: PathBuf, tensor: String, message: String },
    #[error("{path}: tensor {tensor} is missing")]
    MissingTensor { path: PathBuf, tensor: String },
    #[error("{path}: {field} {message}")]
    Config { path: PathBuf, field: &'static str, message: String },
    #[error("{path}: the architecture is {architecture}; known are {known}")]
    UnknownArchitecture { path: PathBuf, architecture: String, known: String },
    #[error("{path}: a model of type {model_type} cannot be served: {reason}")]
    Refused { path: PathBuf, model_type: String, reason: String },
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl ModelError {
    pub(crate) fn file(path: &Path, message: impl ToString) -> Self {
        ModelError::File { path: path.to_owned(), message: message.to_string() }
    }
}
