//! `/tokenize`, `/detokenize`, `/tokenizer_info` and `/load` in vLLM's form.
use crate::http::body::{FieldReader, JsonRequest};
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::paths::Routes;
use crate::http::state::ServerState;
use crate::openai::chat::tools::ToolFields;
use crate::openai::prompt::{MessageFields, PromptSource, encode, ids_schema, parse_ids};
use crate::turn::Turn;
use axum::Json;
use axum::extract::State;
use axum::routing::{get, post};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

const TOKENIZE: &str = "/tokenize";
const DETOKENIZE: &str = "/detokenize";

/// The routes of vLLM's endpoints.
pub fn routes() -> Routes {
    Routes::new()
        .route(TOKENIZE, post(tokenize))
        .described(
            Operation::post("Turns a text, or messages, into token ids")
                .fields::<TokenizeFields>()
                .fields::<MessageFields>()
                .fields::<ToolFields>()
                .needs_one_of(&["prompt", MessageFields::FIELD])
                .answers::<Tokenized>()
                .fails(&[ErrorCode::ModelNotFound, ErrorCode::InvalidTemplate]),
        )
        .route(DETOKENIZE, post(detokenize))
        .described(
            Operation::post("Turns token ids into a text")
                .fields::<DetokenizeFields>()
                .needs("tokens")
                .answers::<Detokenized>()
                .fails(&[ErrorCode::ModelNotFound]),
        )
        .route("/tokenizer_info", get(tokenizer_info))
        .described(Operation::get("Describes the tokenizer as its files do").answers::<Map<String, Value>>())
        .route("/load", get(load))
        .described(Operation::get("Tells how many requests are being answered").answers::<ServerLoad>())
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct TokenizeFields {
    /// The model's name. A server has one model, so that it may be left out.
    model: Option<String>,
    /// The text; `messages` may be given in its place.
    prompt: Option<String>,
    /// The tokenizer's own special tokens are put around a text, as they are by default.
    add_special_tokens: Option<bool>,
    /// The tokens come as the vocabulary spells them, too.
    return_token_strs: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
struct Tokenized {
    count: usize,
    max_model_len: usize,
    tokens: Vec<u32>,
    /// The tokens as the vocabulary spells them.
    token_strs: Option<Vec<String>>,
}

async fn tokenize(State(state): State<ServerState>, request: JsonRequest) -> Result<Json<Tokenized>, ApiError> {
    let served = state.served()?;
    let engine = &served.engine;
    let mut fields = FieldReader::new(&request.object);
    let has_messages = fields.get(MessageFields::FIELD).is_some();
    let own: TokenizeFields = fields.view()?;
    let messages: MessageFields = fields.view()?;
    let tools: ToolFields = fields.view()?;
    fields.log_unread(&state, TOKENIZE);
    served.name(own.model.as_deref())?;
    let tokens = match own.prompt {
        Some(_) if has_messages => {
            return Err(ApiError::invalid("prompt", "prompt and messages are given; one of them is needed"));
        }
        Some(text) => {
            let prompts =
                encode(engine, "prompt", vec![PromptSource::Text(text)], own.add_special_tokens.unwrap_or(true))
                    .await?;
            prompts.into_iter().flat_map(|prompt| prompt.ids).collect()
        }
        None if has_messages => {
            let turn = Turn { tools: tools.resolve()?, ..messages.turn()? };
            turn.prepare(served, MessageFields::FIELD).await?.prompt
        }
        None => return Err(ApiError::invalid("prompt", "prompt is missing; it must be a string (or give messages)")),
    };
    let spell = |id: &u32| engine.tokenizer().spelling(*id).unwrap_or_default();
    let token_strs = own.return_token_strs.unwrap_or(false).then(|| tokens.iter().map(spell).collect());
    Ok(Json(Tokenized { count: tokens.len(), max_model_len: engine.info().max_model_len, tokens, token_strs }))
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct DetokenizeFields {
    /// The model's name. A server has one model, so that it may be left out.
    model: Option<String>,
    /// The token ids.
    #[schemars(schema_with = "ids_schema")]
    tokens: Option<Vec<Value>>,
}

#[derive(Serialize, JsonSchema)]
struct Detokenized {
    prompt: String,
}

async fn detokenize(State(state): State<ServerState>, request: JsonRequest) -> Result<Json<Detokenized>, ApiError> {
    let served = state.served()?;
    let mut fields = FieldReader::new(&request.object);
    let own: DetokenizeFields = fields.view()?;
    fields.log_unread(&state, DETOKENIZE);
    served.name(own.model.as_deref())?;
    let tokens =
        own.tokens.ok_or_else(|| ApiError::invalid("tokens", "tokens is missing; it must be a list of token ids"))?;
    let ids = parse_ids("tokens", &tokens)?;
    let vocab_size = served.engine.info().vocab_size;
    if let Some(unknown) = ids.iter().find(|id| **id as usize >= vocab_size) {
        return Err(ApiError::invalid("tokens", format!("tokens holds {unknown}; the vocabulary has {vocab_size}")));
    }
    let tokenizer = served.engine.tokenizer().clone();
    let prompt = tokio::task::spawn_blocking(move || tokenizer.decode(&ids, false)).await?;
    Ok(Json(Detokenized { prompt }))
}

/// The tokenizer and the chat template, under the names that the configuration files of transformers have for them.
async fn tokenizer_info(State(state): State<ServerState>) -> Result<Json<Map<String, Value>>, ApiError> {
    let served = state.served()?;
    let mut info = served.engine.tokenizer().description();
    if let Some(template) = &served.template {
        info.insert("chat_template".into(), template.source().into());
    }
    Ok(Json(info))
}

#[derive(Serialize, JsonSchema)]
struct ServerLoad {
    /// How many requests are being answered.
    server_load: usize,
}

async fn load(State(state): State<ServerState>) -> Result<Json<ServerLoad>, ApiError> {
    let server_load = state.served()?.active.now();
    Ok(Json(ServerLoad { server_load }))
}
