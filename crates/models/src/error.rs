//! Why a model could not be loaded.
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What is wrong with a checkpoint, and where.
#[derive(Debug, Error)]
pub enum ModelError {
    /// A file is missing, cannot be read, or is not of the format that its name promises.
    #[error("{path}: {message}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A tensor is not as the configuration asks for.
    #[error("{path}: tensor {tensor}: {message}")]
    Tensor {
        /// The file that has the tensor.
        path: PathBuf,
        /// The tensor's name in Hugging Face's checkpoints.
        tensor: String,
        /// What is wrong with it.
        message: String,
    },
    /// A tensor that the model needs is in no file.
    #[error("{path}: tensor {tensor} is missing")]
    MissingTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// A field of `config.json` is missing, of another type, or not allowed.
    #[error("{path}: {field} {message}")]
    Config {
        /// The `config.json`.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// The value, and what is allowed.
        message: String,
    },
    /// The architecture is none that can be served.
    #[error("{path}: the architecture is {architecture}; known are {known}")]
    UnknownArchitecture {
        /// The file that names it.
        path: PathBuf,
        /// Its name there.
        architecture: String,
        /// The names that are known, separated by commas.
        known: String,
    },
    /// The architecture is known, and cannot be served.
    #[error("{path}: a model of type {model_type} cannot be served: {reason}")]
    Refused {
        /// The file that names it.
        path: PathBuf,
        /// The model type, or a GGUF file's architecture.
        model_type: String,
        /// Why it cannot be served.
        reason: String,
    },
    /// `--weight-quant` is given for weights that are quantised already.
    #[error("{path}: --weight-quant is {quant}; it is for floats, and these weights are {kind} already: leave it out")]
    AlreadyQuantised {
        /// The checkpoint.
        path: PathBuf,
        /// The value of the flag.
        quant: &'static str,
        /// The type of some of the weights.
        kind: &'static str,
    },
    /// A tensor operation failed, such as copying a weight to a GPU.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// What loading a part of a model gives.
pub(crate) type LoadResult<T> = Result<T, ModelError>;

impl ModelError {
    pub(crate) fn file(path: &Path, message: impl ToString) -> Self {
        ModelError::File { path: path.to_owned(), message: message.to_string() }
    }
}
