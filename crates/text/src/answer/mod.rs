//! What an answer is made of: text, thoughts and tool calls, told apart while it is generated.
mod format;
mod hermes;
mod json;
mod output;
mod parser;
mod part;
mod section;
mod syntax;
mod tags;
mod thought;
mod tool;

pub use format::{ToolCallFormat, UnknownToolCallFormat};
pub use parser::AnswerParser;
pub use part::AnswerPart;
pub use syntax::{AnswerSyntax, ThoughtTags};
pub use tool::Tool;
