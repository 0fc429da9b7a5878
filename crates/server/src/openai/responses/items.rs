//! The items of a response's output.
use crate::openai::token_names::DrawnToken;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// How far an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    InProgress,
    Completed,
    /// The answer ended in it, or the call broke.
    Incomplete,
}

/// An item of a response's output.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputItem {
    /// A thought, as summary or as content.
    Reasoning {
        id: String,
        summary: Vec<ItemText>,
        #[serde(skip_serializing_if = "Option::is_none")]
        content: Option<Vec<ItemText>>,
        status: ItemStatus,
    },
    /// Text for whoever asked.
    Message { id: String, role: &'static str, status: ItemStatus, content: Vec<ItemText> },
    /// A call of a function.
    FunctionCall {
        id: String,
        call_id: String,
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        arguments: String,
        status: ItemStatus,
    },
    /// A call of a custom tool.
    CustomToolCall {
        id: String,
        call_id: String,
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        input: String,
        status: ItemStatus,
    },
}

/// A text within an item.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type")]
pub enum ItemText {
    #[serde(rename = "output_text")]
    Output { text: String, annotations: Vec<Value>, logprobs: Vec<DrawnToken> },
    #[serde(rename = "reasoning_text")]
    Reasoning { text: String },
    #[serde(rename = "summary_text")]
    Summary { text: String },
}
