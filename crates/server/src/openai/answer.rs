//! The form that the answers of all generating endpoints share.
use crate::generation::CollectedAnswer;
use crate::openai::usage::Usage;
use engine::{Event, FinishReason, MatchedStop};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// How an endpoint writes its answers.
pub trait AnswerFormat: Send + 'static {
    /// The `object` of a whole answer.
    const OBJECT: &'static str;
    /// The `object` of an answer chunk.
    const ANSWER_CHUNK_OBJECT: &'static str;
    /// A choice in a whole answer.
    type Choice: Serialize;
    /// A choice in an answer chunk.
    type ChunkChoice: Serialize;

    /// The fields that the answer and all its answer chunks begin with.
    fn header(&self) -> &AnswerHeader;

    /// The prompt's token ids, where an answer and the first answer chunk of a streamed one carry them.
    fn prompt_token_ids(&self) -> Option<&[u32]> {
        None
    }

    /// The log-probabilities of the prompt's tokens, where a whole answer carries them beside its choices.
    fn prompt_logprobs(&self, _answer: &CollectedAnswer) -> Option<Value> {
        None
    }

    /// The choices of a whole answer.
    fn choices(&mut self, answer: CollectedAnswer) -> Vec<AnswerChoice<Self::Choice>>;

    /// The answer chunks that an event of the prompt with this index leads to. Each answer chunk has one choice.
    fn answer_chunks(&mut self, prompt: usize, event: Event) -> Vec<AnswerChoice<Self::ChunkChoice>>;
}

/// What the answer and all answer chunks of one HTTP request begin with.
#[derive(Debug, Clone)]
pub struct AnswerHeader {
    pub id: String,
    /// Seconds since the epoch.
    pub created: u64,
    pub model: String,
    pub system_fingerprint: String,
}

/// An answer, or one answer chunk of a streamed one.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AnswerWith{C}")]
pub struct Envelope<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<AnswerChoice<C>>,
    /// The outer `None` leaves the field out; the inner one is sent as null, as in all answer chunks before the last
    /// one.
    #[schemars(description = "The tokens that were counted; null in answer chunks that do not tell them.")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
    system_fingerprint: &'a str,
    /// vLLM's field for `return_token_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<&'a [u32]>,
    /// vLLM's field, which completions have in their choices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<Value>,
}

impl AnswerHeader {
    /// The id of a tool call by the numbers of its choice and of the call, the same in a whole and in a streamed
    /// answer.
    pub fn call_id(&self, choice: usize, call: usize) -> String {
        let (_, unique) = self.id.rsplit_once('-').unwrap_or(("", &self.id));
        format!("call_{unique}{choice:02x}{call:02x}")
    }

    pub fn envelope<C>(&self, object: &'static str, choices: Vec<AnswerChoice<C>>) -> Envelope<'_, C> {
        Envelope {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            choices,
            usage: None,
            system_fingerprint: &self.system_fingerprint,
            prompt_token_ids: None,
            prompt_logprobs: None,
        }
    }
}

/// A choice in OpenAI's form, with the fields that vLLM adds.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Extended{C}")]
pub struct AnswerChoice<C> {
    #[serde(flatten)]
    pub inner: C,
    /// The stop string, or the id of the stop token, that ended the text. The outer `None` leaves the field out, as
    /// long as the choice has not ended; null is that none of them did.
    #[schemars(description = "The stop string, or the id of the stop token, that ended the text; null if none did.")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<Option<Value>>,
    /// The ids of the tokens that the text comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

impl<C> AnswerChoice<C> {
    pub fn new(inner: C) -> Self {
        AnswerChoice { inner, stop_reason: None, token_ids: None }
    }

    /// A choice that has ended, with what ended it if that was a stop string or a stop token.
    pub fn ended(inner: C, matched_stop: Option<MatchedStop>) -> Self {
        let stop_reason = matched_stop.map(|matched| match matched {
            MatchedStop::Text(text) => Value::from(text),
            MatchedStop::Token(id) => Value::from(id),
        });
        AnswerChoice { inner, stop_reason: Some(stop_reason), token_ids: None }
    }
}

/// OpenAI's name for a reason.
pub fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
    }
}
