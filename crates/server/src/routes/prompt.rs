//! Prompts: from text, token ids or messages to the engine's token ids.
use crate::error::{ApiError, ErrorCode};
use crate::state::Loaded;
use engine::EngineHandle;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A prompt as a client gives it.
#[derive(Debug, Clone)]
pub(super) enum PromptSource {
    Text(String),
    Ids(Vec<u32>),
}

/// A prompt as the engine takes it.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    pub ids: Vec<u32>,
    /// What `echo` gives back.
    pub text: String,
    /// Leading tokens that were added to the text (BOS).
    pub hidden: usize,
}

/// One prompt or several: a string, a list of strings, a list of token ids, or a list of such lists.
///
/// Errors: anything else, by its place.
pub(super) fn parse_sources(value: &Value) -> Result<Vec<PromptSource>, ApiError> {
    const ALLOWED: &str = "a string, a list of strings, a list of token ids or a list of lists of token ids";
    let wrong = || ApiError::invalid("prompt", format!("prompt must be {ALLOWED}"));
    let list = match value {
        Value::String(text) => return Ok(vec![PromptSource::Text(text.clone())]),
        Value::Array(list) => list,
        _ => return Err(wrong()),
    };
    match list.first() {
        None => Err(ApiError::invalid("prompt", format!("prompt is an empty list; it must be {ALLOWED}"))),
        Some(Value::Number(_)) => Ok(vec![PromptSource::Ids(parse_ids("prompt", list)?)]),
        Some(_) => list
            .iter()
            .enumerate()
            .map(|(i, entry)| match entry {
                Value::String(text) => Ok(PromptSource::Text(text.clone())),
                Value::Array(ids) => Ok(PromptSource::Ids(parse_ids(&format!("prompt[{i}]"), ids)?)),
                _ => Err(wrong()),
            })
            .collect(),
    }
}

/// Token ids at `field`, each of which must be one.
pub(super) fn parse_ids(field: &str, ids: &[Value]) -> Result<Vec<u32>, ApiError> {
    let id = |(i, value): (usize, &Value)| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| {
            let field = format!("{field}[{i}]");
            ApiError::invalid(field.clone(), format!("{field} is {value}; it must be a token id"))
        })
    };
    ids.iter().enumerate().map(id).collect()
}

/// Tokenizes away from the threads that serve connections: a long text takes a while.
pub(super) async fn encode(
    engine: &EngineHandle,
    sources: Vec<PromptSource>,
    add_special_tokens: bool,
) -> Result<Vec<Prompt>, ApiError> {
    let tokenizer = engine.tokenizer().clone();
    let encode = move |source| match source {
        PromptSource::Text(text) => {
            let ids = tokenizer.encode(&text, add_special_tokens)?;
            let hidden = usize::from(add_special_tokens && tokenizer.adds_bos());
            Ok(Prompt { ids, text, hidden })
        }
        PromptSource::Ids(ids) => {
            let text = tokenizer.decode(&ids, false)?;
            Ok(Prompt { ids, text, hidden: 0 })
        }
    };
    tokio::task::spawn_blocking(move || sources.into_iter().map(encode).collect()).await?
}

/// The fields that make a prompt of messages.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct MessageFields {
    messages: Value,
    add_generation_prompt: Option<bool>,
    add_special_tokens: Option<bool>,
    chat_template_kwargs: Option<Map<String, Value>>,
}

impl Default for MessageFields {
    fn default() -> Self {
        MessageFields {
            messages: Value::Null,
            add_generation_prompt: None,
            add_special_tokens: None,
            chat_template_kwargs: None,
        }
    }
}

impl MessageFields {
    /// The prompt's token ids. A template brings its own special tokens, so none are added unless asked for.
    pub async fn encode(self, loaded: &Loaded) -> Result<Vec<u32>, ApiError> {
        if self.messages.is_null() {
            return Err(ApiError::invalid("messages", "messages is missing; it must be a list of messages"));
        }
        let Some(template) = loaded.template.clone() else {
            let message = "this model has no chat template; use /v1/completions";
            return Err(ApiError::new(ErrorCode::InvalidTemplate, message).at("messages"));
        };
        let tokenizer = loaded.engine.tokenizer().clone();
        let work = move || {
            let kwargs = self.chat_template_kwargs.unwrap_or_default();
            let prompt = self.add_generation_prompt.unwrap_or(true);
            let text = template.render(&self.messages, None, prompt, &kwargs)?;
            Ok(tokenizer.encode(&text, self.add_special_tokens.unwrap_or(false))?)
        };
        tokio::task::spawn_blocking(work).await?
    }
}
