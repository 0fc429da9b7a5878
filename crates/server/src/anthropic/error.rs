//! Errors in Anthropic's form.
use crate::http::error::ApiError;
use axum::Json;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

/// The header by which Anthropic's clients name the version of the API that they speak.
pub const VERSION: HeaderName = HeaderName::from_static("anthropic-version");
/// Where the paths begin that are this protocol's own.
pub const MESSAGES: &str = "/v1/messages";
/// The header in which they look for the request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// An error in Anthropic's form.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ErrorMessage {
    r#type: &'static str,
    error: ErrorContent,
    /// The id by which the request is known.
    request_id: String,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct ErrorContent {
    r#type: &'static str,
    message: String,
}

/// Whether a request comes from a client of Anthropic's API.
pub fn is_for<B>(request: &Request<B>) -> bool {
    let below = request.uri().path().strip_prefix(MESSAGES);
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) || request.headers().contains_key(VERSION)
}

/// Anthropic's type of errors with this status.
fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::REQUEST_TIMEOUT => "timeout_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    }
}

impl ErrorMessage {
    /// The error of the request that is known by `request_id`.
    pub fn new(error: &ApiError, request_id: &str) -> Self {
        let content = ErrorContent { r#type: kind(error.status()), message: error.message().to_owned() };
        ErrorMessage { r#type: "error", error: content, request_id: request_id.to_owned() }
    }
}

/// Brings the answer to a request of Anthropic's clients into their form: an error is written anew, and the request's
/// id is where they look for it.
pub fn in_form(mut response: Response, request_id: &str) -> Response {
    if let Ok(id) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response.headers_mut().remove(CONTENT_LENGTH);
        let written = Json(ErrorMessage::new(&error, request_id)).into_response();
        *response.body_mut() = written.into_body();
    }
    response
}
