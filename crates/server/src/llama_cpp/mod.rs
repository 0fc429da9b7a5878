//! Endpoints of llama.cpp's server in its form. What is not known here is left out.
mod infill;
mod infill_answer;
mod props;
mod slots;
mod template;

use crate::http::operation::Operation;
use crate::http::paths::Routes;
use axum::routing::{get, post};
use serde_json::{Map, Value};

/// The routes of llama.cpp's endpoints.
pub fn routes() -> Routes {
    Routes::new()
        .route(template::PATH, post(template::apply_template))
        .described(template::operation())
        .route(infill::PATH, post(infill::infill))
        .described(infill::operation())
        .route("/props", get(props::props))
        .described(Operation::get("Tells what the server is and how it samples").answers::<Map<String, Value>>())
        .route("/slots", get(slots::slots))
        .described(slots::operation())
}
