//! `/tokenize` and `/detokenize`, in vLLM's form.
//!
//! `openai-protocol` has another server's form of them.
use super::prompt::{MessageFields, PromptSource, encode, parse_ids};
use crate::body::{Fields, JsonRequest};
use crate::error::ApiError;
use crate::state::ServerState;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizeFields {
    model: Option<String>,
    prompt: Option<String>,
    add_special_tokens: Option<bool>,
    return_token_strs: Option<bool>,
}

#[derive(Serialize)]
pub(super) struct Tokenized {
    count: usize,
    max_model_len: usize,
    tokens: Vec<u32>,
    /// As the vocabulary spells them.
    token_strs: Option<Vec<String>>,
}

pub(super) async fn tokenize(
    State(state): State<ServerState>,
    request: JsonRequest,
) -> Result<Json<Tokenized>, ApiError> {
    let loaded = state.loaded()?;
    let engine = &loaded.engine;
    let mut fields = Fields::new(&request.object);
    let own: TokenizeFields = fields.view()?;
    let messages: MessageFields = fields.view()?;
    state.note_unknown_fields("/tokenize", fields.unread());
    state.check_model(engine, own.model.as_deref())?;
    let both = request.object.get("messages").is_some_and(|m| !m.is_null());
    let tokens = match own.prompt {
        Some(_) if both => {
            return Err(ApiError::invalid("prompt", "prompt and messages are given; one of them is needed"));
        }
        Some(text) => {
            let prompts =
                encode(engine, vec![PromptSource::Text(text)], own.add_special_tokens.unwrap_or(true)).await?;
            prompts.into_iter().flat_map(|prompt| prompt.ids).collect()
        }
        None if both => messages.encode(loaded).await?,
        None => return Err(ApiError::invalid("prompt", "prompt is missing; it must be a string (or give messages)")),
    };
    let spell = |id: &u32| engine.tokenizer().piece(*id).unwrap_or_default();
    let token_strs = own.return_token_strs.unwrap_or(false).then(|| tokens.iter().map(spell).collect());
    Ok(Json(Tokenized { count: tokens.len(), max_model_len: engine.info().max_model_len, tokens, token_strs }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DetokenizeFields {
    model: Option<String>,
    tokens: Option<Vec<Value>>,
}

pub(super) async fn detokenize(
    State(state): State<ServerState>,
    request: JsonRequest,
) -> Result<Json<Value>, ApiError> {
    let engine = &state.loaded()?.engine;
    let mut fields = Fields::new(&request.object);
    let own: DetokenizeFields = fields.view()?;
    state.note_unknown_fields("/detokenize", fields.unread());
    state.check_model(engine, own.model.as_deref())?;
    let tokens =
        own.tokens.ok_or_else(|| ApiError::invalid("tokens", "tokens is missing; it must be a list of token ids"))?;
    let ids = parse_ids("tokens", &tokens)?;
    let vocab_size = engine.info().vocab_size;
    if let Some(bad) = ids.iter().find(|id| **id as usize >= vocab_size) {
        return Err(ApiError::invalid("tokens", format!("tokens holds {bad}; the vocabulary has {vocab_size}")));
    }
    let tokenizer = engine.tokenizer().clone();
    let text = tokio::task::spawn_blocking(move || tokenizer.decode(&ids, false)).await??;
    Ok(Json(json!({"prompt": text})))
}
