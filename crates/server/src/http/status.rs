//! `/health`, `/version` and `/metrics`, which monitoring asks for without an API key.
use crate::http::error::{ApiError, ErrorCode};
use crate::http::operation::Operation;
use crate::http::paths::Routes;
use crate::http::state::ServerState;
use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};

pub fn routes() -> Routes {
    Routes::new()
        .route("/health", get(health))
        .described(Operation::get("Tells whether requests are served").answers::<Map<String, Value>>().fails(&[
            ErrorCode::ModelLoading,
            ErrorCode::ShuttingDown,
            ErrorCode::EngineEnded,
        ]))
        .route("/version", get(version))
        .described(Operation::get("Tells the version of the program").answers::<Map<String, Value>>())
        .route("/metrics", get(metrics))
        .described(Operation::get("Tells vLLM's metrics, for Prometheus").answers_text("text/plain"))
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
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.prometheus().render()).into_response()
}
