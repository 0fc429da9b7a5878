//! The tools that a model may call.
use serde_json::Value;

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// The JSON schema of its arguments, which are an object.
    pub parameters: Value,
}
