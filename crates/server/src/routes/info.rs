//! What the server says of itself.
use crate::error::ApiError;
use crate::state::{Loaded, ServerState};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use openai_protocol::models::ModelObject;
use serde::Serialize;
use serde_json::{Value, json};

/// 200 when requests are served, 503 before and after.
pub(super) async fn health(State(state): State<ServerState>) -> Result<Json<Value>, ApiError> {
    state.loaded()?;
    Ok(Json(json!({"status": "ok"})))
}

pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

pub(super) async fn metrics(State(state): State<ServerState>) -> Response {
    if let Ok(loaded) = state.loaded() {
        loaded.recorders.set_stats(&loaded.engine.stats());
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.prometheus().render()).into_response()
}

/// OpenAI's model object with vLLM's context length.
#[derive(Serialize)]
struct Model {
    #[serde(flatten)]
    object: ModelObject,
    max_model_len: usize,
}

impl Model {
    fn new(name: &str, loaded: &Loaded) -> Self {
        let object = ModelObject {
            id: name.to_owned(),
            object: "model".into(),
            created: loaded.since as i64,
            owned_by: "tallow".into(),
        };
        Model { object, max_model_len: loaded.engine.info().max_model_len }
    }
}

pub(super) async fn models(State(state): State<ServerState>) -> Result<Json<Value>, ApiError> {
    let loaded = state.loaded()?;
    let names = state.model_names(&loaded.engine);
    let data: Vec<Model> = names.into_iter().map(|name| Model::new(name, loaded)).collect();
    Ok(Json(json!({"object": "list", "data": data})))
}

pub(super) async fn model(State(state): State<ServerState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let loaded = state.loaded()?;
    state.check_model(&loaded.engine, Some(&id))?;
    Ok(Json(Model::new(&id, loaded)).into_response())
}
