//! `/v1/responses/{id}`: responses that are stored.
use super::object::ResponseObject;
use super::store::{ResponseStore, StoredResponse};
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use axum::{Extension, Json};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

type Store = Extension<Arc<ResponseStore>>;

/// Items of a page, where the request names no limit, and at most.
const PAGE: (usize, usize) = (20, 100);

const THE_RESPONSE: &str = "the response";

/// The id in a path.
type ResponseId = Result<Path<String>, PathRejection>;

/// What can be asked of a stored response.
#[derive(Deserialize, JsonSchema)]
pub struct ResponseQuery {
    /// Only `false` is possible: a stored response is sent whole.
    #[schemars(schema_with = "false_schema")]
    stream: Option<String>,
}

fn false_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"enum": ["false"]})
}

/// The page of items that is asked for.
#[derive(Deserialize, JsonSchema)]
pub struct ItemsQuery {
    /// `desc`, the newest item first, or `asc`.
    order: Option<String>,
    /// The id of the item after which the page begins.
    after: Option<String>,
    /// Items of the page at most.
    limit: Option<String>,
}

/// A response that has been deleted.
#[derive(Serialize, JsonSchema)]
pub struct DeletedResponse {
    id: String,
    object: &'static str,
    deleted: bool,
}

/// A page of items.
#[derive(Serialize, JsonSchema)]
pub struct ItemPage {
    object: &'static str,
    data: Vec<Value>,
    first_id: Option<Value>,
    last_id: Option<Value>,
    has_more: bool,
}

pub fn operation() -> Operation {
    let operation = Operation::get("Gives a response that is kept").query::<ResponseQuery>();
    operation.answers::<ResponseObject>().fails(&[ErrorCode::ResponseNotFound, ErrorCode::UnsupportedParameter])
}

pub fn delete_operation() -> Operation {
    let operation = Operation::delete("Forgets a response that is kept");
    operation.answers::<DeletedResponse>().fails(&[ErrorCode::ResponseNotFound])
}

pub fn items_operation() -> Operation {
    let operation = Operation::get("Gives the items that a response answers").query::<ItemsQuery>();
    operation.answers::<ItemPage>().fails(&[ErrorCode::ResponseNotFound, ErrorCode::InvalidValue])
}

fn read<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query.map(|query| query.0).map_err(|e| ApiError::new(ErrorCode::InvalidValue, e.body_text()))
}

/// No response has an id that is not UTF-8.
fn id_in(path: ResponseId) -> Result<String, ApiError> {
    path.map(|path| path.0).map_err(|e| ApiError::new(ErrorCode::ResponseNotFound, e.body_text()))
}

/// A response that is not stored; `what` introduces its id.
pub fn not_stored(what: &str, id: &str) -> ApiError {
    let message = format!(
        "{what} {id:?} is not stored here; responses are kept in memory, up to a limit and until the server \
         ends, unless store is false"
    );
    ApiError::new(ErrorCode::ResponseNotFound, message)
}

/// `GET /v1/responses/{id}`.
pub async fn response(
    Extension(store): Store,
    path: ResponseId,
    query: Result<Query<ResponseQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let (id, query) = (id_in(path)?, read(query)?);
    if query.stream.is_some_and(|stream| stream != "false") {
        let message = "stream is not supported here; a stored response is sent whole";
        return Err(ApiError::new(ErrorCode::UnsupportedParameter, message).at("stream"));
    }
    let stored = store.get(&id).ok_or_else(|| not_stored(THE_RESPONSE, &id))?;
    Ok(Json(stored.response.clone()))
}

/// `DELETE /v1/responses/{id}`.
pub async fn delete(Extension(store): Store, path: ResponseId) -> Result<Json<DeletedResponse>, ApiError> {
    let id = id_in(path)?;
    match store.remove(&id) {
        true => Ok(Json(DeletedResponse { id, object: "response", deleted: true })),
        false => Err(not_stored(THE_RESPONSE, &id)),
    }
}

/// `GET /v1/responses/{id}/input_items`: all items that the response answers, those of the responses that it goes on
/// from included, page by page.
pub async fn input_items(
    Extension(store): Store,
    path: ResponseId,
    query: Result<Query<ItemsQuery>, QueryRejection>,
) -> Result<Json<ItemPage>, ApiError> {
    let (id, query) = (id_in(path)?, read(query)?);
    let chain = store.chain(&id).map_err(|missing| not_stored(THE_RESPONSE, &missing))?;
    let mut items = input_of(&chain);
    match query.order.as_deref() {
        None | Some("desc") => items.reverse(),
        Some("asc") => {}
        Some(other) => return Err(ApiError::invalid("order", format!("order is {other:?}; it must be asc or desc"))),
    }
    if let Some(after) = query.after {
        let at = items.iter().position(|item| item["id"] == after.as_str());
        let at = at.ok_or_else(|| ApiError::invalid("after", format!("after is {after:?}, which is no item's id")))?;
        items.drain(..=at);
    }
    let limit = match query.limit.map(|limit| limit.parse::<usize>()) {
        None => PAGE.0,
        Some(Ok(limit)) if (1..=PAGE.1).contains(&limit) => limit,
        Some(_) => return Err(ApiError::invalid("limit", format!("limit must lie in [1, {}]", PAGE.1))),
    };
    let has_more = items.len() > limit;
    items.truncate(limit);
    let id_of = |item: Option<&Value>| item.map(|item| item["id"].clone());
    let (first_id, last_id) = (id_of(items.first()), id_of(items.last()));
    Ok(Json(ItemPage { object: "list", data: items, first_id, last_id, has_more }))
}

/// The items that the last response of `chain` answers.
fn input_of(chain: &[Arc<StoredResponse>]) -> Vec<Value> {
    let Some((last, before)) = chain.split_last() else { return Vec::new() };
    before.iter().flat_map(|stored| stored.items()).chain(&last.input).cloned().collect()
}
