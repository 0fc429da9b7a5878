//! `POST /v1/messages`, an answer to a list of messages, and `POST /v1/messages/count_tokens`, the tokens of their
//! prompt.
use super::answer::{AnswerForm, respond};
use super::conversation::{FIELD, GivenConversation};
use super::error::ErrorMessage;
pub use super::error::MESSAGES;
use super::events::{MessageEvent, SentMessage};
use super::options::OptionFields;
use super::tools::GivenTools;
use crate::generation::Generation;
use crate::http::body::{FieldReader, JsonRequest, Peer};
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::state::{ServedModel, ServerState};
use crate::turn::{PreparedTurn, Turn};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use engine::{GenerationRequest, RequestField, SamplingParams, StopParams};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

pub const COUNT_TOKENS: &str = "/v1/messages/count_tokens";
/// Ids of the models of Anthropic's, which clients may know no others than, begin with it.
pub const CLAUDE: &str = "claude-";
/// Fields that would change the answer and that this server does not do.
const UNSUPPORTED: [&str; 2] = ["mcp_servers", "container"];

/// The fields that are neither about the conversation nor about tools.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct MessagesFields {
    /// The model's name, or any that begins with `claude-`. A server has one model, so that it may be left out.
    model: Option<String>,
    /// The most tokens of the answer. With 0 the prompt is read, and nothing answered.
    max_tokens: Option<usize>,
    /// The answer comes as server-sent events.
    stream: Option<bool>,
    /// The logits are divided by it; 0 takes the most likely token always.
    temperature: Option<f32>,
    /// The smallest set of tokens is kept whose probability reaches it; 0 keeps the likeliest alone.
    top_p: Option<f32>,
    /// As many of the likeliest tokens are kept; 0 keeps all.
    top_k: Option<usize>,
    /// Strings that end the answer.
    stop_sequences: Option<Vec<String>>,
    /// Who asks: the queue is fair between users.
    metadata: Option<RequestMetadata>,
    /// Only requests with the same salt share what the server keeps of their prompts.
    cache_salt: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, expecting = "an object")]
struct RequestMetadata {
    /// The client whose request it is. Its address stands for one that is not named.
    user_id: Option<String>,
}

/// The fields that the conversation is made of.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct ConversationFields {
    /// What the model is told before the conversation: a string or blocks of text.
    system: Value,
    /// The conversation, of the roles `user`, `assistant` and `system`, with a string or content blocks each.
    #[schemars(schema_with = "messages_schema")]
    messages: Value,
}

fn messages_schema(_: &mut SchemaGenerator) -> Schema {
    let block = json!({"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}});
    let content = json!({"anyOf": [{"type": "string"}, {"type": "array", "items": block}]});
    json_schema!({"type": "array", "minItems": 1, "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"enum": ["user", "assistant", "system"]}, "content": content},
    }})
}

/// How many tokens a prompt has.
#[derive(Serialize, JsonSchema)]
pub struct PromptTokens {
    input_tokens: usize,
}

/// A request of either endpoint.
struct MessagesRequest {
    fields: MessagesFields,
    turn: PreparedTurn,
    /// The name of the model in the answer.
    model: String,
    omits_thoughts: bool,
}

/// The fields that both endpoints read, and their errors.
fn described(operation: Operation) -> Operation {
    let read = operation.fields::<MessagesFields>().fields::<ConversationFields>().needs(FIELD);
    let errors = [ErrorCode::InvalidTemplate, ErrorCode::InvalidSchema];
    read.fields::<GivenTools>().fields::<OptionFields>().asks_engine().fails(&errors).errors_as::<ErrorMessage>()
}

pub fn operation() -> Operation {
    let answers = Operation::post("Answers a conversation, as Anthropic's API does");
    described(answers).answers::<SentMessage>().streams::<MessageEvent>()
}

pub fn count_operation() -> Operation {
    described(Operation::post("Counts the tokens of a conversation, as Anthropic's API does")).answers::<PromptTokens>()
}

/// What a client learns that asks whether there is such an endpoint.
pub async fn probe() {}

pub async fn messages(State(state): State<ServerState>, request: JsonRequest) -> Result<Response, ApiError> {
    let served = state.served()?;
    let read = read(&state, served, &request.object, MESSAGES).await?;
    let form = AnswerForm {
        unique: request.peer.request_id.unique().to_owned(),
        request_id: request.peer.request_id.shown().to_owned(),
        model: read.model,
        omits_thoughts: read.omits_thoughts,
        prompt_tokens: read.turn.prompt.len(),
    };
    let streamed = read.fields.stream.unwrap_or(false);
    let generation = submit(&state, served, read.fields, read.turn, request.peer)?;
    respond(form, generation, streamed).await
}

pub async fn count_tokens(
    State(state): State<ServerState>,
    request: JsonRequest,
) -> Result<Json<PromptTokens>, ApiError> {
    let served = state.served()?;
    let read = read(&state, served, &request.object, COUNT_TOKENS).await?;
    Ok(Json(PromptTokens { input_tokens: read.turn.prompt.len() }))
}

/// Reads the body of either endpoint. `path` is the endpoint's.
async fn read(
    state: &ServerState,
    served: &Arc<ServedModel>,
    body: &Value,
    path: &str,
) -> Result<MessagesRequest, ApiError> {
    let mut reader = FieldReader::new(body);
    for field in UNSUPPORTED {
        if reader.get(field).is_some_and(|value| *value != json!([])) {
            let message = format!("{field} is not supported; leave it out");
            return Err(ApiError::new(ErrorCode::UnsupportedParameter, message).at(field));
        }
    }
    let fields: MessagesFields = reader.view()?;
    let conversation: ConversationFields = reader.view()?;
    let tools: GivenTools = reader.view()?;
    let options: OptionFields = reader.view()?;
    reader.log_unread(state, path);

    let model = model_name(served, fields.model.as_deref())?;
    let conversation = GivenConversation::read(&conversation.system, &conversation.messages)?;
    let omits_thoughts = options.omits_thoughts();
    let turn = Turn {
        messages: Value::Array(conversation.messages),
        end: conversation.end,
        tools: tools.resolve()?,
        thinking: options.thinking()?,
        held_to: options.held_to()?,
        ..Turn::default()
    };
    Ok(MessagesRequest { fields, turn: turn.prepare(served, FIELD).await?, model, omits_thoughts })
}

/// The model's name in the answer: the one by which it was asked for, which may be that of any model of Anthropic's.
///
/// Errors: another name that is not served here.
pub fn model_name(served: &ServedModel, asked: Option<&str>) -> Result<String, ApiError> {
    let asked = asked.filter(|asked| !asked.is_empty());
    match asked {
        Some(asked) if asked.starts_with(CLAUDE) => Ok(asked.to_owned()),
        _ => served.name(asked).map(|name| asked.unwrap_or(name).to_owned()),
    }
}

fn submit(
    state: &ServerState,
    served: &ServedModel,
    fields: MessagesFields,
    turn: PreparedTurn,
    peer: Peer,
) -> Result<Generation, ApiError> {
    let defaults = served.engine.info().default_sampling.clone();
    let user = fields.metadata.unwrap_or_default().user_id.filter(|user| !user.is_empty());
    // With 0 only the prompt is to be cached; the engine generates at least one token.
    let prompt_only = fields.max_tokens == Some(0);
    let max_tokens = fields.max_tokens.map(|tokens| tokens.max(1)).or(state.config().max_tokens_default);
    let mut request = GenerationRequest {
        id: peer.request_id.shown().to_owned(),
        client: user.or(peer.address).unwrap_or_default(),
        prompt: turn.prompt.clone(),
        begins_text: false,
        n: 1,
        sampling: SamplingParams {
            temperature: fields.temperature.unwrap_or(defaults.temperature),
            top_p: fields.top_p.unwrap_or(defaults.top_p),
            top_k: fields.top_k.unwrap_or(defaults.top_k),
            ..defaults
        },
        stop: StopParams { max_tokens, stop: fields.stop_sequences.unwrap_or_default(), ..StopParams::default() },
        reading: None,
        constraint: None,
        logprobs: None,
        logprob_token_ids: Vec::new(),
        prompt_logprobs: None,
        cache_salt: fields.cache_salt,
        embedding: None,
    };
    turn.apply(&mut request);
    Generation::submit(served, vec![request], prompt_only, field_name)
}

/// The name that a field of the engine's request has for Anthropic's clients.
fn field_name(field: RequestField) -> &'static str {
    match field {
        RequestField::Prompt => FIELD,
        RequestField::Stop => "stop_sequences",
        other => other.name(),
    }
}
