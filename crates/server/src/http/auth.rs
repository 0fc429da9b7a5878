//! The API key.
use crate::http::error::{ApiError, ErrorCode};
use crate::http::state::ServerState;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;

/// Lets a request pass if it carries the configured key, or if no key is configured.
///
/// Errors: [`ErrorCode::InvalidApiKey`].
pub async fn require_key(State(state): State<ServerState>, request: Request, next: Next) -> Result<Response, ApiError> {
    let Some(key) = &state.config().api_key else {
        return Ok(next.run(request).await);
    };
    let given = request.headers().get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    let message = match given {
        // The time that the comparison takes depends on the key's length alone.
        Some(given) if bool::from(given.ct_eq(key.as_bytes())) => return Ok(next.run(request).await),
        Some(_) => "the API key is wrong",
        None => "an API key is needed: send the header \"Authorization: Bearer KEY\"",
    };
    Err(ApiError::new(ErrorCode::InvalidApiKey, message))
}

/// The credentials of a `Bearer` header. The case of the scheme's name does not matter (RFC 9110, section 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}
