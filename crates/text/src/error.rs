//! What can be wrong with a model's text files, or with a text.
use std::path::PathBuf;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum TextError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not valid: {message}", path.display())]
    Parse { path: PathBuf, message: String },
    #[error("{}: {field}: {message}", path.display())]
    Field { path: PathBuf, field: &'static str, message: String },
    #[error("the text cannot be tokenized: {0}")]
    Encode(String),
    /// The template does not compile.
    #[error("{}: the chat template does not compile: {message}", path.display())]
    Template { path: PathBuf, message: String },
    /// The template refused the messages with `raise_exception`.
    #[error("the chat template refuses these messages: {0}")]
    Raised(String),
    #[error("the chat template failed: {0}")]
    Render(String),
    /// The messages have a shape that no template takes. `field` is a path such as `messages[2].content[0]`.
    #[error("{field}: {message}")]
    Message { field: String, message: String },
}
