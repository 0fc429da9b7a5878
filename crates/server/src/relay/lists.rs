//! The endpoints of a relaying server that describe its models: lists, its health, and the metrics of all.
use super::{Relay, metrics, unknown};
use crate::anthropic::{ModelEntry, ModelPage, VERSION};
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::paths::Routes;
use crate::http::state::ServerState;
use crate::http::status;
use crate::models::{ModelsQuery, THE_MODELS};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A model that requests are handed on to.
#[derive(Debug, Clone, PartialEq)]
pub struct RelayedModel {
    /// The name by which clients ask for it.
    pub name: String,
    /// Whether it is loaded.
    pub state: ModelState,
    /// When it was loaded last, or else when this server began, in seconds since the epoch.
    pub created: u64,
    /// The answer of the model's own server at `/v1/models` when it was loaded last; null before.
    pub model_list: Value,
}

/// Whether a model is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelState {
    /// The next request that names it loads it.
    Unloaded,
    /// The model is being loaded, or waits for the memory.
    Loading,
    /// The model answers requests.
    Loaded,
    /// Its process could not be started, or has ended by itself, for this reason.
    Failed(String),
}

impl ModelState {
    fn name(&self) -> &'static str {
        match self {
            ModelState::Unloaded => "unloaded",
            ModelState::Loading => "loading",
            ModelState::Loaded => "loaded",
            ModelState::Failed(_) => "failed",
        }
    }
}

/// OpenAI's model object with what is known of one that may not be loaded.
#[derive(Serialize, JsonSchema)]
struct RelayedModelObject {
    id: String,
    object: &'static str,
    /// When the model was loaded last, or else when this server began, in seconds since the epoch.
    created: u64,
    owned_by: &'static str,
    status: ModelStatus,
    /// The further fields of a server of one model (`root`, `max_model_len`, `meta`), once it has been loaded.
    #[serde(flatten)]
    details: Map<String, Value>,
}

/// Whether a model is loaded, in llama.cpp's form.
#[derive(Serialize, JsonSchema)]
struct ModelStatus {
    /// `unloaded`, `loading`, `loaded` or `failed`.
    value: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The list of all models.
#[derive(Serialize, JsonSchema)]
struct RelayedModels {
    object: &'static str,
    data: Vec<RelayedModelObject>,
    /// The models in llama.cpp's form. The list is empty for Codex, which would read it as its own format.
    models: Vec<Value>,
}

/// All models, in Anthropic's form for clients that name a version of its API, else in OpenAI's.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum AnyModels {
    OpenAi(RelayedModels),
    Anthropic(ModelPage),
}

/// One model, in Anthropic's form for clients that name a version of its API, else in OpenAI's.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum AnyModel {
    OpenAi(RelayedModelObject),
    Anthropic(ModelEntry),
}

impl RelayedModel {
    fn object(&self) -> RelayedModelObject {
        let mut details = self.model_list["data"][0].as_object().cloned().unwrap_or_default();
        for own in ["id", "object", "created", "owned_by"] {
            details.remove(own);
        }
        let reason = match &self.state {
            ModelState::Failed(reason) => Some(reason.clone()),
            _ => None,
        };
        RelayedModelObject {
            id: self.name.clone(),
            object: "model",
            created: self.created,
            owned_by: "tallow",
            status: ModelStatus { value: self.state.name(), reason },
            details,
        }
    }

    fn entry(&self) -> ModelEntry {
        let context = self.model_list["data"][0]["max_model_len"].as_u64().and_then(|tokens| tokens.try_into().ok());
        ModelEntry::described(&self.name, self.created, context)
    }

    fn llama_cpp_entry(&self) -> Value {
        match self.model_list["models"].get(0) {
            Some(entry) => entry.clone(),
            None => json!({"name": self.name, "model": self.name, "type": "model"}),
        }
    }
}

/// `/v1/models` and `/v1/models/{name}`.
pub fn list_routes<R: Relay>(relay: &R) -> Routes {
    let all = relay.clone();
    let all = move |State(state): State<ServerState>, headers: HeaderMap, query| all_models(all, state, headers, query);
    let one = relay.clone();
    let one = move |State(state): State<ServerState>, headers: HeaderMap, name, uri: Uri| {
        one_model(one, state, headers, name, uri)
    };
    let describes = Operation::get("Tells about a model").answers::<AnyModel>().fails(&[ErrorCode::ModelNotFound]);
    Routes::new()
        .route(THE_MODELS[0], get(all))
        .described(
            Operation::get("Lists the models, and whether each is loaded")
                .query::<ModelsQuery>()
                .answers::<AnyModels>(),
        )
        .route(THE_MODELS[1], get(one))
        .described(describes)
}

async fn all_models<R: Relay>(
    relay: R,
    state: ServerState,
    headers: HeaderMap,
    query: Result<Query<ModelsQuery>, QueryRejection>,
) -> Result<Json<AnyModels>, ApiError> {
    state.check_open()?;
    let models = relay.models();
    if headers.contains_key(VERSION) {
        let entries = models.iter().map(RelayedModel::entry).collect();
        return Ok(Json(AnyModels::Anthropic(ModelPage::of(entries))));
    }
    let for_codex = query.is_ok_and(|query| query.0.is_codex());
    Ok(Json(AnyModels::OpenAi(RelayedModels {
        object: "list",
        data: models.iter().map(RelayedModel::object).collect(),
        models: models.iter().filter(|_| !for_codex).map(RelayedModel::llama_cpp_entry).collect(),
    })))
}

async fn one_model<R: Relay>(
    relay: R,
    state: ServerState,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<AnyModel>, ApiError> {
    state.check_open()?;
    // No model has a name that is not UTF-8; it is shown as it was sent.
    let name = name.map_or_else(|_| uri.path().to_owned(), |Path(name)| name);
    let models = relay.models();
    let model = models.iter().find(|model| model.name == name).ok_or_else(|| unknown(&relay, &models, &name))?;
    Ok(Json(match headers.contains_key(VERSION) {
        true => AnyModel::Anthropic(model.entry()),
        false => AnyModel::OpenAi(model.object()),
    }))
}

/// `/health`, `/version` and `/metrics`.
pub fn status_routes<R: Relay>(relay: &R) -> Routes {
    let (health_of, metrics_of) = (relay.clone(), relay.clone());
    let health = Operation::get("Tells whether requests are served, and which models are loaded");
    Routes::new()
        .route(status::HEALTH, get(move |State(state): State<ServerState>| health_answer(health_of, state)))
        .described(health.answers::<Map<String, Value>>().fails(&[ErrorCode::ShuttingDown]))
        .merge(status::version_route())
        .route(status::METRICS, get(move |State(state): State<ServerState>| all_metrics(metrics_of, state)))
        .described(Operation::get("Tells the metrics of all loaded models, for Prometheus").answers_text("text/plain"))
}

async fn health_answer<R: Relay>(relay: R, state: ServerState) -> Result<Json<Value>, ApiError> {
    state.check_open()?;
    let models = relay.models().into_iter().map(|model| (model.name, model.state.name().into()));
    Ok(Json(json!({"status": "ok", "models": models.collect::<Map<String, Value>>()})))
}

async fn all_metrics<R: Relay>(relay: R, state: ServerState) -> Response {
    let mut texts = vec![state.prometheus().render()];
    texts.extend(relay.metrics().await);
    (status::METRICS_TYPE, metrics::merge(&texts)).into_response()
}
