//! `GET /v1/models` and `GET /v1/models/{name}`.
use crate::http::error::ApiError;
use crate::http::state::{ServedModel, ServerState};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use openai_protocol::models::ModelObject;
use serde::Serialize;
use serde_json::{Value, json};

/// OpenAI's model object with the context length that vLLM adds.
#[derive(Serialize)]
struct ServedModelObject {
    #[serde(flatten)]
    object: ModelObject,
    max_model_len: usize,
}

impl ServedModelObject {
    fn new(name: &str, served: &ServedModel) -> Self {
        let object = ModelObject {
            id: name.to_owned(),
            object: "model".into(),
            created: served.created as i64,
            owned_by: "tallow".into(),
        };
        ServedModelObject { object, max_model_len: served.engine.info().max_model_len }
    }
}

pub async fn models(State(state): State<ServerState>) -> Result<Json<Value>, ApiError> {
    let served = state.served()?;
    let data: Vec<_> = served.names.iter().map(|name| ServedModelObject::new(name, served)).collect();
    Ok(Json(json!({"object": "list", "data": data})))
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
