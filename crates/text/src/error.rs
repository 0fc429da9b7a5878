//! Errors of this crate.
use std::path::PathBuf;
use thiserror::Error;

/// Why a model's text files, messages or a text cannot be used.
#[derive(Debug, Error)]
pub enum TextError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{} is not valid: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why it is not valid.
        message: String,
    },
    /// A field of a file has a value that is not allowed.
    #[error("{}: {field}: {message}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field's name.
        field: &'static str,
        /// The value and what is allowed.
        message: String,
    },
    /// The tokenizer fails at a text.
    #[error("the text cannot be tokenized: {0}")]
    Encode(String),
    /// The template does not compile.
    #[error("{}: the chat template does not compile: {message}", path.display())]
    Template {
        /// The file that the template comes from.
        path: PathBuf,
        /// Where and why it does not compile.
        message: String,
    },
    /// The template refused the messages with `raise_exception`.
    #[error("the chat template refuses these messages: {0}")]
    Raised(String),
    /// The template itself fails, or does not end.
    #[error("the chat template failed: {0}")]
    Render(String),
    /// The messages have a shape that no template takes.
    #[error("{path}: {message}")]
    Messages {
        /// The path of the wrong value, such as `messages[2].content[0]`.
        path: String,
        /// The value and what is allowed.
        message: String,
    },
}
