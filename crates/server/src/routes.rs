//! All routes of all protocols.
use crate::http::auth::require_key;
use crate::http::error::{ApiError, ErrorCode};
use crate::http::state::ServerState;
use crate::http::{listener, status};
use crate::{openai, vllm};
use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use std::future::Future;
use std::io;
use tokio::net::TcpListener;

/// Serves until `shutdown` resolves. From then on new requests are refused with status 503, accepted ones may finish
/// within [`ServerConfig::shutdown_limit`](crate::ServerConfig::shutdown_limit), and then the listener closes.
///
/// Errors: the listener fails.
pub async fn serve(
    listener: TcpListener,
    state: ServerState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    listener::serve(listener, router(state.clone()), state, shutdown).await
}

/// Only the routes of `status` are open to clients without the API key, if there is one.
fn router(state: ServerState) -> Router {
    let guarded = openai::routes().merge(vllm::routes()).route_layer(from_fn_with_state(state.clone(), require_key));
    status::routes()
        .merge(guarded)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
}

async fn not_found(method: Method, uri: Uri) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no {method} {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}
