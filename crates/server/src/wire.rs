//! The frames of answers. `openai-protocol` gives what is inside; its own frames have no place for vLLM's token ids.
use engine::MatchedStop;
use openai_protocol::common::Usage;
use serde::Serialize;
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// What all answers and chunks of one request have in common.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub id: String,
    pub created: u64,
    pub model: String,
    pub system_fingerprint: String,
}

/// An answer, or one chunk of a streamed one.
#[derive(Debug, Serialize)]
pub(crate) struct Envelope<'a, C> {
    pub id: &'a str,
    pub object: &'static str,
    pub created: u64,
    pub model: &'a str,
    pub choices: Vec<Choice<C>>,
    /// Outer `None`: left out; inner `None`: null, as in the chunks before the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
    pub system_fingerprint: &'a str,
    /// vLLM's `return_token_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
}

impl Head {
    pub fn envelope<C>(&self, object: &'static str, choices: Vec<Choice<C>>) -> Envelope<'_, C> {
        Envelope {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            choices,
            usage: None,
            system_fingerprint: &self.system_fingerprint,
            prompt_token_ids: None,
        }
    }
}

/// A choice in OpenAI's form, with what vLLM adds.
#[derive(Debug, Serialize)]
pub(crate) struct Choice<C> {
    #[serde(flatten)]
    pub inner: C,
    /// The stop string or stop token that ended the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

impl<C> Choice<C> {
    pub fn new(inner: C) -> Self {
        Choice { inner, stop_reason: None, token_ids: None }
    }
}

pub(crate) fn stop_reason(matched: &MatchedStop) -> Value {
    match matched {
        MatchedStop::Text(text) => Value::from(text.as_str()),
        MatchedStop::Token(id) => Value::from(*id),
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
