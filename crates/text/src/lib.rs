//! From messages to token ids and from token ids back to text: tokenizer, chat template, incremental detokenizer and
//! stop strings; and an answer's text, thoughts and tool calls told apart.
#![warn(missing_docs)]

mod answer;
mod config;
mod constraint;
mod detokenizer;
mod error;
mod gguf;
mod pipeline;
mod special;
mod stop;
mod template;
mod tokenizer;
mod vocabulary;

pub use answer::{
    AnswerParser, AnswerPart, AnswerSyntax, StringField, ThoughtTags, Tool, ToolCallFormat, UnknownToolCallFormat,
};
pub use constraint::{
    AnswerConstraint, CallGrammar, Constraint, ConstraintError, ConstraintFactory, Grammar, TokenMask,
};
pub use detokenizer::Detokenizer;
pub use error::TextError;
pub use pipeline::{AnswerEnd, AnswerOptions, AnswerPipeline, AnswerReading, Pushed};
pub use stop::{StopMatcher, Stopped};
pub use template::{ChatTemplate, Conversation, PromptEnd, RenderedPrompt, ThinkingVariables};
pub use tokenizer::{FillInTheMiddle, Infill, Tokenizer};
