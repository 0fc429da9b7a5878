//! `POST /v1/embeddings`: the vector of each text.
use super::answer::{EmbeddingList, VectorEncoding};
use crate::generation::Generation;
use crate::http::body::{FieldReader, JsonRequest};
use crate::http::error::ApiError;
use crate::http::operation::Operation;
use crate::http::state::ServerState;
use crate::openai::prompt::{Prompt, encode, parse_sources, sources_schema};
use crate::openai::request::{UnsupportedField, refuse_unsupported};
use axum::Json;
use axum::extract::State;
use engine::{EmbeddingParams, GenerationRequest, RequestField};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

pub const PATH: &str = "/v1/embeddings";

/// The field of the texts.
const INPUT: &str = "input";

/// Fields of other servers that would change the vectors.
const UNSUPPORTED: &[UnsupportedField] = &[
    ("messages", &[]),
    ("truncate_prompt_tokens", &[]),
    ("normalize", &["true"]),
    ("use_activation", &["true"]),
    ("embed_dtype", &[r#""float32""#]),
    ("endianness", &[r#""native""#, r#""little""#]),
];

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct EmbeddingFields {
    /// The model's name. A server has one model, so that it may be left out.
    model: Option<String>,
    /// A text, texts, token ids or lists of token ids, each of which gets a vector.
    #[schemars(schema_with = "sources_schema")]
    input: Value,
    /// How vectors are written: as lists of numbers, or as the base64 of their bytes, each element an f32 of little
    /// endian.
    encoding_format: Option<VectorEncoding>,
    /// Each vector is cut to as many elements and normalised again, for models that were trained so.
    dimensions: Option<usize>,
    /// The client whose request it is: the queue is fair between clients. Its address stands for one that is not named.
    user: Option<String>,
    /// The tokenizer's own special tokens are put around a text, as they are by default.
    add_special_tokens: Option<bool>,
}

pub fn operation() -> Operation {
    let operation = Operation::post("Gives the vector of one text or of several").fields::<EmbeddingFields>();
    operation.needs(INPUT).answers::<EmbeddingList>().asks_engine()
}

pub async fn embeddings(
    State(state): State<ServerState>,
    request: JsonRequest,
) -> Result<Json<EmbeddingList>, ApiError> {
    let served = state.served()?;
    let mut fields = FieldReader::new(&request.object);
    refuse_unsupported(&fields, UNSUPPORTED)?;
    let own: EmbeddingFields = fields.view()?;
    fields.log_unread(&state, PATH);

    let model = served.name(own.model.as_deref())?.to_owned();
    if own.input.is_null() {
        return Err(ApiError::invalid(INPUT, "input is missing; it must be a string or a list"));
    }
    let sources = parse_sources(INPUT, &own.input)?;
    let prompts = encode(&served.engine, INPUT, sources, own.add_special_tokens.unwrap_or(true)).await?;
    let client = own.user.filter(|user| !user.is_empty()).or(request.peer.address).unwrap_or_default();
    let params = EmbeddingParams { dimensions: own.dimensions };
    let embed = |prompt: Prompt| GenerationRequest {
        id: request.peer.request_id.shown().to_owned(),
        client: client.clone(),
        ..GenerationRequest::embed(prompt.ids, params)
    };
    let requests = prompts.into_iter().map(embed).collect();
    let answer = Generation::submit(served, requests, false, field_name)?.collect().await?;
    Ok(Json(EmbeddingList::new(model, answer, own.encoding_format.unwrap_or_default())))
}

/// The name that a field of the engine's request has here.
fn field_name(field: RequestField) -> &'static str {
    match field {
        RequestField::Prompt | RequestField::MaxTokens => INPUT,
        other => other.name(),
    }
}
