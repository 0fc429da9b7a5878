//! The response object.
use super::items::OutputItem;
use crate::generation::Tally;
use crate::http::state::unix_seconds;
use crate::openai::usage::ResponseUsage;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseState {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

impl ResponseState {
    /// The name of the event that tells of it.
    pub fn event(self) -> &'static str {
        match self {
            ResponseState::InProgress => "response.in_progress",
            ResponseState::Completed => "response.completed",
            ResponseState::Incomplete => "response.incomplete",
            ResponseState::Failed => "response.failed",
        }
    }
}

/// A response, whole or so far. It has all keys of OpenAI's, null where there is nothing to tell, and repeats what the
/// request asked for.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ResponseObject {
    pub id: String,
    pub object: &'static str,
    /// Seconds since the epoch.
    pub created_at: u64,
    pub completed_at: Option<u64>,
    pub status: ResponseState,
    pub background: bool,
    pub error: Option<Value>,
    pub incomplete_details: Option<Value>,
    pub instructions: Option<String>,
    pub max_output_tokens: Option<usize>,
    pub max_tool_calls: Option<usize>,
    pub metadata: Value,
    pub model: String,
    pub output: Vec<OutputItem>,
    pub parallel_tool_calls: bool,
    pub previous_response_id: Option<String>,
    pub prompt_cache_key: Option<String>,
    pub reasoning: Value,
    pub safety_identifier: Option<String>,
    pub service_tier: Option<String>,
    pub store: bool,
    pub temperature: f32,
    pub text: Value,
    pub tool_choice: Value,
    pub tools: Vec<Value>,
    pub top_logprobs: usize,
    pub top_p: f32,
    pub truncation: &'static str,
    pub usage: Option<ResponseUsage>,
    pub user: Option<String>,
}

impl ResponseObject {
    /// Ends the response.
    pub fn end(&mut self, status: ResponseState, tally: &Tally) {
        self.status = status;
        self.completed_at = Some(unix_seconds());
        self.usage = Some(ResponseUsage::from(tally));
    }
}
