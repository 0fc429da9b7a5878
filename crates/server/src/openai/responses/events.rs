//! The events of a streamed response.
use super::items::{ItemText, OutputItem};
use super::object::ResponseObject;
use crate::openai::token_names::DrawnToken;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// An event of a streamed response. Each kind of event has some of the fields.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct ResponseEvent {
    /// Its name, which is the event's in the stream too.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its place in the stream, from 0.
    pub sequence_number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Box<ResponseObject>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<OutputItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<ItemText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<DrawnToken>>,
    /// What an event of the kind `error` tells.
    #[serde(flatten)]
    pub error: Option<EventError>,
}

/// What an event of the kind `error` tells.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EventError {
    pub code: Value,
    pub message: Value,
    pub param: Value,
}

/// The events that have not been sent.
#[derive(Debug, Default)]
pub struct EventQueue {
    ready: Vec<ResponseEvent>,
    next: u64,
}

impl EventQueue {
    /// Adds an event and numbers it.
    pub fn push(&mut self, event: ResponseEvent) {
        self.ready.push(ResponseEvent { sequence_number: self.next, ..event });
        self.next += 1;
    }

    /// Takes out all events.
    pub fn take(&mut self) -> Vec<ResponseEvent> {
        std::mem::take(&mut self.ready)
    }
}
