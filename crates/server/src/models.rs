//! `GET /v1/models` and `GET /v1/models/{name}`, in the form of the protocol that the client speaks.
use crate::anthropic::{ModelEntry, ModelPage, VERSION, model_name};
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::paths::Routes;
use crate::http::state::ServerState;
use crate::openai::models::{ServedModelObject, ServedModels};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Uri};
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The routes of the list, and of one model, whose name may hold slashes.
pub const THE_MODELS: [&str; 2] = ["/v1/models", "/v1/models/{*name}"];

pub fn routes() -> Routes {
    let tells = Operation::get("Tells about a model").answers::<TheModel>().fails(&[ErrorCode::ModelNotFound]);
    Routes::new()
        .route(THE_MODELS[0], get(models))
        .described(Operation::get("Lists what is served").query::<ModelsQuery>().answers::<AllModels>())
        .route(THE_MODELS[1], get(model))
        .described(tells)
}

/// What can be asked of the list.
#[derive(Deserialize, JsonSchema)]
pub struct ModelsQuery {
    /// Codex names its version.
    client_version: Option<String>,
}

impl ModelsQuery {
    /// Whether Codex asks.
    pub fn is_codex(&self) -> bool {
        self.client_version.is_some()
    }
}

/// All models, in Anthropic's form for clients that name a version of its API, else in OpenAI's.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum AllModels {
    OpenAi(ServedModels),
    Anthropic(ModelPage),
}

/// One model, in Anthropic's form for clients that name a version of its API, else in OpenAI's.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum TheModel {
    OpenAi(ServedModelObject),
    Anthropic(ModelEntry),
}

async fn models(
    State(state): State<ServerState>,
    headers: HeaderMap,
    query: Result<Query<ModelsQuery>, QueryRejection>,
) -> Result<Json<AllModels>, ApiError> {
    let served = state.served()?;
    if headers.contains_key(VERSION) {
        return Ok(Json(AllModels::Anthropic(ModelPage::new(served))));
    }
    let for_codex = query.is_ok_and(|query| query.0.is_codex());
    Ok(Json(AllModels::OpenAi(ServedModels::new(served, for_codex))))
}

async fn model(
    State(state): State<ServerState>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<TheModel>, ApiError> {
    let served = state.served()?;
    // No model has a name that is not UTF-8; it is shown as it was sent.
    let name = name.map_or_else(|_| uri.path().to_owned(), |Path(name)| name);
    if headers.contains_key(VERSION) {
        return Ok(Json(TheModel::Anthropic(ModelEntry::new(&model_name(served, Some(&name))?, served))));
    }
    served.name(Some(&name))?;
    Ok(Json(TheModel::OpenAi(ServedModelObject::new(&name, served))))
}
