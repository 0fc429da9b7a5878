//! What an answer is made of: text, thoughts and tool calls, told apart while it is generated.
mod part;
mod tool;

pub use part::AnswerPart;
pub use tool::{Tool, ToolCallFormat, UnknownToolCallFormat};
