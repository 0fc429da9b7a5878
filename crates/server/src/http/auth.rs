//! The API key.
use crate::http::error::{ApiError, ErrorCode};
use crate::http::state::ServerState;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;

/// The header in which Anthropic's clients send the key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Lets a request pass if it carries the configured key in either header, or if no key is configured.
///
/// Errors: [`ErrorCode::InvalidApiKey`].
pub async fn require_key(State(state): State<ServerState>, request: Request, next: Next) -> Result<Response, ApiError> {
    let Some(key) = &state.config().api_key else {
        return Ok(next.run(request).await);
    };
    let message = match carries(key, request.headers()) {
        Some(true) => return Ok(next.run(request).await),
        Some(false) => "the API key is wrong",
        None => "an API key is needed: send the header \"Authorization: Bearer KEY\" or \"x-api-key: KEY\"",
    };
    Err(ApiError::new(ErrorCode::InvalidApiKey, message))
}

/// Whether one of the headers is `key`; `None` if there is none.
fn carries(key: &str, headers: &HeaderMap) -> Option<bool> {
    let header = |name| headers.get(name).map(HeaderValue::as_bytes);
    let given = [header(AUTHORIZATION).and_then(bearer), header(API_KEY).map(<[u8]>::trim_ascii)];
    // The time that a comparison takes depends on the key's length alone.
    let is_key = |given: &[u8]| bool::from(given.ct_eq(key.as_bytes()));
    given.into_iter().flatten().map(is_key).max()
}

/// The credentials of a `Bearer` header. The case of the scheme's name does not matter (RFC 9110, section 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}
