//! `/health`, `/version` and `/metrics`, which monitoring asks for without an API key.
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::paths::Routes;
use crate::http::state::ServerState;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};

/// Where the server tells whether it serves.
pub const HEALTH: &str = "/health";
/// Where the server tells its metrics.
pub const METRICS: &str = "/metrics";
/// The header that says that an answer is metrics.
pub const METRICS_TYPE: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];

pub fn routes() -> Routes {
    Routes::new()
        .route(HEALTH, get(health))
        .described(Operation::get("Tells whether requests are served").answers::<Map<String, Value>>().fails(&[
            ErrorCode::ModelLoading,
            ErrorCode::ShuttingDown,
            ErrorCode::EngineEnded,
        ]))
        .merge(version_route())
        .route(METRICS, get(metrics))
        .described(Operation::get("Tells vLLM's metrics, for Prometheus").answers_text("text/plain"))
}

/// `/version`.
pub fn version_route() -> Routes {
    let tells = Operation::get("Tells the version of the program").answers::<Map<String, Value>>();
    Routes::new().route("/version", get(version)).described(tells)
}

/// Status 200 while requests are served, 503 before and after.
async fn health(State(state): State<ServerState>) -> Result<Json<Value>, ApiError> {
    state.served()?;
    Ok(Json(json!({"status": "ok"})))
}

async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

async fn metrics(State(state): State<ServerState>) -> Response {
    if let Ok(served) = state.served() {
        served.metrics.set_stats(&served.engine);
    }
    (METRICS_TYPE, state.prometheus().render()).into_response()
}
