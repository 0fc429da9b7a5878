//! The parts of an answer: text, thoughts and tool calls, told apart while it is generated.
mod deepseek;
mod format;
mod hermes;
mod json;
mod llama_json;
mod mistral;
mod output;
mod parser;
mod part;
mod python;
mod pythonic;
mod qwen_xml;
mod schema;
mod section;
mod syntax;
mod tags;
mod thought;
mod tool;
mod typed;

pub use format::{ToolCallFormat, UnknownToolCallFormat};
pub use json::StringField;
pub use parser::AnswerParser;
pub use part::AnswerPart;
pub use syntax::{AnswerSyntax, ThoughtTags};
pub use tool::Tool;
