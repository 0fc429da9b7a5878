//! `GET /v1/models` and `GET /v1/models/{name}`.
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::state::{ServedModel, ServerState};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use openai_protocol::models::ModelObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// OpenAI's model object with what vLLM and llama.cpp add.
#[derive(Serialize, JsonSchema)]
pub struct ServedModelObject {
    #[serde(flatten)]
    object: ModelObject,
    /// vLLM's name for the model's folder or file.
    root: String,
    /// vLLM's name for the longest context.
    max_model_len: usize,
    meta: ModelMeta,
}

/// What llama.cpp tells of a model.
#[derive(Serialize, JsonSchema)]
struct ModelMeta {
    n_vocab: usize,
    /// The longest context that is served.
    n_ctx: usize,
    /// The longest context that the model was made for.
    n_ctx_train: usize,
    /// Bytes of the weights.
    size: u64,
}

impl ServedModelObject {
    fn new(name: &str, served: &ServedModel) -> Self {
        let info = served.engine.info();
        let object = ModelObject {
            id: name.to_owned(),
            object: "model".into(),
            created: served.created as i64,
            owned_by: "tallow".into(),
        };
        let meta = ModelMeta {
            n_vocab: info.vocab_size,
            n_ctx: info.max_model_len,
            n_ctx_train: info.trained_len,
            size: info.weight_bytes,
        };
        ServedModelObject { object, root: info.path.display().to_string(), max_model_len: info.max_model_len, meta }
    }
}

#[derive(Deserialize, JsonSchema)]
pub struct ModelsQuery {
    /// Codex names its version.
    client_version: Option<String>,
}

/// A model as llama.cpp lists it beside OpenAI's list. Texts that it leaves empty are empty here too.
fn llama_cpp_entry(name: &str) -> Value {
    json!({
        "name": name,
        "model": name,
        "modified_at": "",
        "size": "",
        "digest": "",
        "type": "model",
        "description": "",
        "tags": [""],
        "capabilities": ["completion"],
        "parameters": "",
        "details": {},
    })
}

/// The list of what is served.
#[derive(Serialize, JsonSchema)]
pub struct ServedModels {
    object: &'static str,
    data: Vec<ServedModelObject>,
    /// What llama.cpp lists; it is empty for Codex, which takes such a list for its own.
    models: Vec<Value>,
}

pub fn list_operation() -> Operation {
    Operation::get("Lists what is served").query::<ModelsQuery>().answers::<ServedModels>()
}

pub fn operation() -> Operation {
    Operation::get("Tells about a model").answers::<ServedModelObject>().fails(&[ErrorCode::ModelNotFound])
}

pub async fn models(
    State(state): State<ServerState>,
    query: Result<Query<ModelsQuery>, QueryRejection>,
) -> Result<Json<ServedModels>, ApiError> {
    let served = state.served()?;
    let data: Vec<_> = served.names.iter().map(|name| ServedModelObject::new(name, served)).collect();
    // Codex asks for a list of another form, whose entries bring its instructions. It keeps its own where the list is
    // empty, and reports an error where it is missing.
    let for_codex = query.is_ok_and(|query| query.0.client_version.is_some());
    let names = served.names.iter().filter(|_| !for_codex);
    let models: Vec<_> = names.map(|name| llama_cpp_entry(name)).collect();
    Ok(Json(ServedModels { object: "list", data, models }))
}

pub async fn model(
    State(state): State<ServerState>,
    name: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let served = state.served()?;
    // No model has a name that is not UTF-8; it is shown as it was sent.
    let name = name.map_or_else(|_| uri.path().to_owned(), |Path(name)| name);
    served.name(Some(&name))?;
    Ok(Json(ServedModelObject::new(&name, served)).into_response())
}
