//! Tokenizer, chat template, incremental detokenizer and stop strings.
mod config;
mod detokenizer;
mod error;
mod gguf;
mod stop;
mod template;
mod tokenizer;
mod vocabulary;

pub use detokenizer::Detokenizer;
pub use error::TextError;
pub use stop::{StopMatcher, Stopped};
pub use template::ChatTemplate;
pub use tokenizer::Tokenizer;
