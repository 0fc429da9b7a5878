//! A server without a model of its own, which hands requests on to servers that have one each.
mod lists;
mod metrics;
mod stream;

use crate::anthropic;
use crate::cache;
use crate::http::body::UnreadRequest;
use crate::http::error::{ApiError, ErrorCode};
use crate::http::ids::{HttpRequestId, REQUEST_ID};
use crate::http::operation::Operation;
use crate::http::paths::Routes;
use crate::http::state::ServerState;
use crate::openai;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONNECTION,
    CONTENT_LENGTH, EXPECT, HOST, ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post};
use serde::Deserialize;
use serde_json::Value;
use std::future::Future;
use std::net::SocketAddr;
use stream::RelayedBody;

pub use lists::{ModelState, RelayedModel};
pub(crate) use lists::{list_routes, status_routes};

/// The header in which a front tells a model's server whose request it is.
const CLIENT: HeaderName = HeaderName::from_static("x-tallow-client");

/// Headers that are about a connection, not about a request or an answer (RFC 9110, section 7.6.1), the length of a
/// body, which is counted anew, and what the server that is asked by the client has settled itself.
const OWN_HEADERS: [HeaderName; 17] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    ORIGIN,
    ACCESS_CONTROL_REQUEST_METHOD,
    ACCESS_CONTROL_REQUEST_HEADERS,
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
];

/// Routes that tell how a model's server is. To look at it is no use of the model: it is not loaded for that.
const LOOKS: [&str; 5] = [cache::PATH, "/slots", "/load", "/v1/loads", "/server_info"];
/// Where responses are that a model's server keeps.
const KEPT_RESPONSES: &str = "/v1/responses/";

/// The error of a request that is handed on, beside the errors that its model's server answers.
const RELAY_ERRORS: [ErrorCode; 5] = [
    ErrorCode::ModelNotLoaded,
    ErrorCode::LoadQueueFull,
    ErrorCode::ModelFailed,
    ErrorCode::ModelEnded,
    ErrorCode::ModelTooLarge,
];

/// The models that a relaying server hands requests on to, by their numbers from 0.
pub trait Relay: Clone + Send + Sync + 'static {
    /// All models, each at its number. Requests that name none are answered by the first. There is at least one, and
    /// none is added or taken away.
    fn models(&self) -> Vec<RelayedModel>;

    /// The one of all models' names that is spelt almost like `name`.
    fn nearest(&self, name: &str) -> Option<String>;

    /// Sends a request to the server of a model, which is loaded for it unless the request is a look alone.
    ///
    /// Errors: a model that cannot be loaded, or whose server does not answer.
    fn send(&self, model: usize, request: RelayedRequest) -> impl Future<Output = Result<Response, ApiError>> + Send;

    /// Returns the answers of all loaded models' servers at `/metrics`.
    fn metrics(&self) -> impl Future<Output = Vec<String>> + Send;
}

/// A request that is handed on.
#[derive(Debug, Clone)]
pub struct RelayedRequest {
    /// The method.
    pub method: Method,
    /// The path and the query.
    pub path: String,
    /// The headers, but for those that are the connection's and the client's key.
    pub headers: HeaderMap,
    /// The body, as it came.
    pub body: Bytes,
    /// The request looks at a model's server, and does not need the model.
    pub is_look: bool,
}

/// The routes that `operations` describe, handed on.
pub fn routes<R: Relay>(operations: Vec<(&'static str, Operation)>, relay: &R) -> Routes {
    let operations = operations.into_iter().map(|(path, operation)| (path, operation.fails(&RELAY_ERRORS))).collect();
    Routes::described_as(operations, |path, method| {
        let relay = relay.clone();
        let hand_on = move |State(state): State<ServerState>, request: Request| hand_on(relay, state, request);
        let route: MethodRouter<ServerState> = match method {
            "get" => get(hand_on),
            "delete" => delete(hand_on),
            _ => post(hand_on),
        };
        match path {
            anthropic::MESSAGES | anthropic::COUNT_TOKENS => route.head(anthropic::probe),
            _ => route,
        }
    })
}

/// The query of a request without a body.
#[derive(Deserialize)]
struct ModelQuery {
    model: Option<String>,
}

async fn hand_on<R: Relay>(relay: R, state: ServerState, request: Request) -> Result<Response, ApiError> {
    state.check_open()?;
    let active = state.begin();
    let path = request.uri().path().to_owned();
    if path == cache::PATH && request.method() == Method::DELETE {
        cache::check_may_clear(&state, &request)?;
    }
    let for_anthropic = anthropic::error::is_for(&request);
    let id = request.extensions().get::<HttpRequestId>().cloned();
    let id = id.unwrap_or_else(|| state.ids().of(request.headers()));
    let mut relayed = RelayedRequest {
        method: request.method().clone(),
        path: request.uri().path_and_query().map_or_else(|| path.clone(), ToString::to_string),
        headers: headers_of(&request, &id),
        body: Bytes::new(),
        is_look: LOOKS.contains(&path.as_str()) || path.starts_with(KEPT_RESPONSES),
    };
    let response = if path.starts_with(KEPT_RESPONSES) {
        kept_response(&relay, relayed).await?
    } else {
        let named = match *request.method() {
            Method::POST => {
                let read = UnreadRequest::read(request, &state).await?;
                relayed.body = read.bytes.into();
                read.model
            }
            _ => Query::<ModelQuery>::try_from_uri(request.uri()).ok().and_then(|query| query.0.model).map(Value::from),
        };
        let model = number_of(&relay, named.as_ref(), for_anthropic)?;
        relay.send(model, relayed).await?
    };
    Ok(RelayedBody::answer(response, path, for_anthropic, id, active))
}

/// The headers that go on to a model's server.
fn headers_of(request: &Request, id: &HttpRequestId) -> HeaderMap {
    let mut headers = without_own(request.headers().clone());
    // What an answer is packed with would have to be unpacked to be told event from event.
    headers.remove(ACCEPT_ENCODING);
    headers.remove(CLIENT);
    let client = request.extensions().get::<ConnectInfo<SocketAddr>>();
    if let Some(client) = client.and_then(|client| HeaderValue::try_from(client.0.to_string()).ok()) {
        headers.insert(CLIENT, client);
    }
    if let Some(id) = id.to_header() {
        headers.insert(REQUEST_ID, id);
    }
    headers
}

/// The headers but for [`OWN_HEADERS`] and those that `Connection` names.
fn without_own(mut headers: HeaderMap) -> HeaderMap {
    let named = headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> = named.flat_map(|names| names.split(',')).map(|name| name.trim().to_lowercase()).collect();
    for name in OWN_HEADERS.iter().map(HeaderName::as_str).chain(named.iter().map(String::as_str)) {
        headers.remove(name);
    }
    headers
}

/// The headers of an answer that go on to the client. What depends on the client's origin is told by the server that it
/// has asked.
fn answer_headers(headers: HeaderMap) -> HeaderMap {
    let mut headers = without_own(headers);
    headers.remove(VARY);
    headers
}

/// The number of the model that a request names.
///
/// Errors: a name that is not known, with those that are; one that is no text.
fn number_of<R: Relay>(relay: &R, named: Option<&Value>, for_anthropic: bool) -> Result<usize, ApiError> {
    let asked = match named {
        None => return Ok(0),
        Some(Value::String(asked)) if asked.is_empty() => return Ok(0),
        Some(Value::String(asked)) => asked,
        Some(other) => return Err(ApiError::invalid("model", format!("model is {other}; it must be a text"))),
    };
    let models = relay.models();
    match models.iter().position(|model| model.name == *asked) {
        Some(number) => Ok(number),
        // Clients of Anthropic's ask for its own models too, which the first one stands for.
        None if for_anthropic && asked.starts_with(anthropic::CLAUDE) => Ok(0),
        None => Err(unknown(relay, &models, asked)),
    }
}

/// Tells that no model has a name.
fn unknown<R: Relay>(relay: &R, models: &[RelayedModel], asked: &str) -> ApiError {
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    let near = relay.nearest(asked).map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    let message = format!("the model {asked:?} is not served here; this server serves {}{near}", names.join(", "));
    ApiError::new(ErrorCode::ModelNotFound, message).at("model")
}

/// Asks the servers of all loaded models for a response that one of them keeps.
///
/// Errors: none of them has it.
async fn kept_response<R: Relay>(relay: &R, request: RelayedRequest) -> Result<Response, ApiError> {
    let models = relay.models();
    for (number, _) in models.iter().enumerate().filter(|(_, model)| model.state == ModelState::Loaded) {
        let answer = relay.send(number, request.clone()).await;
        match answer {
            Ok(answer) if answer.status() != ErrorCode::ResponseNotFound.status() => return Ok(answer),
            // It may have been unloaded just now, and what it kept is gone with it.
            _ => {}
        }
    }
    let id = request.path[KEPT_RESPONSES.len()..].split(['/', '?']).next().unwrap_or_default();
    Err(openai::not_stored("the response", id))
}

/// Behind a front, the client of a request is the one that the front names.
pub async fn client_of_front(mut request: Request, next: Next) -> Response {
    let client = request.headers().get(CLIENT).and_then(|client| client.to_str().ok()?.parse::<SocketAddr>().ok());
    if let Some(client) = client {
        request.extensions_mut().insert(ConnectInfo(client));
    }
    next.run(request).await
}
