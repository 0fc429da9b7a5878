//! The API key.
use crate::error::{ApiError, ErrorCode};
use crate::state::ServerState;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;

/// Lets requests with the configured key pass, and all if there is none.
pub(crate) async fn require_key(
    State(state): State<ServerState>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Some(key) = &state.config().api_key else {
        return Ok(next.run(request).await);
    };
    let given = request.headers().get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    let message = match given {
        // How long the comparison takes tells nothing of the key but its length.
        Some(given) if bool::from(given.ct_eq(key.as_bytes())) => return Ok(next.run(request).await),
        Some(_) => "the API key is wrong",
        None => "an API key is needed: send the header \"Authorization: Bearer KEY\"",
    };
    Err(ApiError::new(ErrorCode::InvalidApiKey, message))
}

/// The credentials of a `Bearer` header; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}
