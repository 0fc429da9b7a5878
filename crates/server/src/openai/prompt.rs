//! Prompts: from text, token ids or messages to the engine's token ids.
use crate::http::error::ApiError;
use crate::turn::Turn;
use engine::EngineHandle;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use text::PromptEnd;

/// A prompt as a client gives it.
#[derive(Debug, Clone)]
pub enum PromptSource {
    /// A text to tokenize.
    Text(String),
    /// Token ids.
    Ids(Vec<u32>),
}

/// A prompt as the engine takes it.
#[derive(Debug, Clone)]
pub struct Prompt {
    pub ids: Vec<u32>,
    /// The text that `echo` gives back.
    pub text: String,
    /// How many of the first ids are no part of the text, because the tokenizer added them (BOS).
    pub num_added: usize,
}

/// Reads one prompt or several from the field `field`: a string, a list of strings, a list of token ids, or a list of
/// such lists.
///
/// Errors: anything else, with the path of the wrong value.
pub fn parse_sources(field: &str, value: &Value) -> Result<Vec<PromptSource>, ApiError> {
    const ALLOWED: &str = "a string, a list of strings, a list of token ids or a list of lists of token ids";
    let wrong = || ApiError::invalid(field, format!("{field} must be {ALLOWED}"));
    let list = match value {
        Value::String(text) => return Ok(vec![PromptSource::Text(text.clone())]),
        Value::Array(list) => list,
        _ => return Err(wrong()),
    };
    match list.first() {
        None => Err(ApiError::invalid(field, format!("{field} is an empty list; it must be {ALLOWED}"))),
        Some(Value::Number(_)) => Ok(vec![PromptSource::Ids(parse_ids(field, list)?)]),
        Some(_) => list
            .iter()
            .enumerate()
            .map(|(i, entry)| match entry {
                Value::String(text) => Ok(PromptSource::Text(text.clone())),
                Value::Array(ids) => Ok(PromptSource::Ids(parse_ids(&format!("{field}[{i}]"), ids)?)),
                _ => Err(wrong()),
            })
            .collect(),
    }
}

/// Reads the token ids of the field with the path `field`.
///
/// Errors: a value that is no token id, with its path.
pub fn parse_ids(field: &str, ids: &[Value]) -> Result<Vec<u32>, ApiError> {
    let id = |(i, value): (usize, &Value)| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| {
            let field = format!("{field}[{i}]");
            ApiError::invalid(field.clone(), format!("{field} is {value}; it must be a token id"))
        })
    };
    ids.iter().enumerate().map(id).collect()
}

/// Tokenizes what came in the field `field` on a thread of its own, since a long text would hold up the threads that
/// serve connections. `add_special_tokens` adds what the model expects around a plain text.
pub async fn encode(
    engine: &EngineHandle,
    field: &'static str,
    sources: Vec<PromptSource>,
    add_special_tokens: bool,
) -> Result<Vec<Prompt>, ApiError> {
    let tokenizer = engine.tokenizer().clone();
    let encode = move |source| match source {
        PromptSource::Text(text) => {
            let ids = tokenizer.encode(&text, add_special_tokens).map_err(|e| ApiError::from_text(e, field))?;
            let num_added = usize::from(add_special_tokens && tokenizer.adds_bos_to(&text));
            Ok(Prompt { ids, text, num_added })
        }
        PromptSource::Ids(ids) => {
            let text = tokenizer.decode(&ids, false);
            Ok(Prompt { ids, text, num_added: 0 })
        }
    };
    tokio::task::spawn_blocking(move || sources.into_iter().map(encode).collect()).await?
}

/// The schema of what [`parse_sources`] reads.
pub fn sources_schema(_: &mut SchemaGenerator) -> Schema {
    let ids = || json!({"type": "array", "minItems": 1, "items": id_schema()});
    json_schema!({"anyOf": [
        {"type": "string"},
        ids(),
        {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, ids()]}},
    ]})
}

/// The schema of what [`parse_ids`] reads.
pub fn ids_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": id_schema()})
}

/// Any token id: how many the vocabulary has is not said.
fn id_schema() -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})
}

/// The schema of messages. Which roles there are, and what a message has beside its role, is up to the chat template.
fn messages_schema(_: &mut SchemaGenerator) -> Schema {
    let message =
        json!({"type": "object", "required": ["role"], "properties": {"role": {"type": "string", "minLength": 1}}});
    json_schema!({"type": ["array", "null"], "minItems": 1, "items": message})
}

/// The fields that make a prompt of messages.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MessageFields {
    /// The conversation. The model's chat template makes the prompt of it.
    #[schemars(schema_with = "messages_schema")]
    messages: Value,
    /// The header of the answer follows the last message, as it does by default.
    add_generation_prompt: Option<bool>,
    /// The answer continues the text of the last message.
    continue_final_message: Option<bool>,
    /// The tokenizer's own special tokens are put around what the template gives.
    add_special_tokens: Option<bool>,
    /// Variables of the chat template.
    chat_template_kwargs: Option<Map<String, Value>>,
}

impl MessageFields {
    /// The field that errors of the messages are about.
    pub const FIELD: &'static str = "messages";

    /// How the prompt ends. An assistant's message that comes last is closed like any other, unless it is to be
    /// continued.
    ///
    /// Errors: fields that contradict each other.
    fn end(&self) -> Result<PromptEnd, ApiError> {
        match (self.continue_final_message.unwrap_or(false), self.add_generation_prompt) {
            (true, Some(true)) => {
                let message = "continue_final_message does not go with add_generation_prompt: true; an answer either \
                               continues the last message or begins a new one";
                Err(ApiError::invalid("continue_final_message", message))
            }
            (true, _) => Ok(PromptEnd::OpenMessage),
            (false, Some(false)) => Ok(PromptEnd::ClosedMessage),
            (false, _) => Ok(PromptEnd::Answer),
        }
    }

    /// The text of a last message that is the assistant's, or that the prompt does not follow by an answer's header:
    /// what the answer begins with where it is to be echoed.
    ///
    /// Errors: those of [`end`](Self::end).
    pub fn begun_answer(&self) -> Result<String, ApiError> {
        let Some(last) = self.messages.as_array().and_then(|messages| messages.last()) else {
            return Ok(String::new());
        };
        if last["role"] != "assistant" && self.end()? == PromptEnd::Answer {
            return Ok(String::new());
        }
        Ok(match &last["content"] {
            Value::String(text) => text.clone(),
            // As templates that take no parts are given them.
            Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
            _ => String::new(),
        })
    }

    /// The turn that these messages are, without tools.
    ///
    /// Errors: messages that are missing, fields that contradict each other.
    pub fn turn(self) -> Result<Turn, ApiError> {
        if self.messages.is_null() {
            let message = "messages is missing; it must be a list of messages";
            return Err(ApiError::invalid(MessageFields::FIELD, message));
        }
        Ok(Turn {
            end: self.end()?,
            messages: self.messages,
            kwargs: self.chat_template_kwargs.unwrap_or_default(),
            add_special_tokens: self.add_special_tokens.unwrap_or(false),
            ..Turn::default()
        })
    }
}
