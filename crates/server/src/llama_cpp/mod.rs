//! Endpoints of llama.cpp's server in its form. What is not known here is left out.
mod infill;
mod infill_answer;
mod props;
mod slots;
mod template;

use crate::http::paths::Routes;
use axum::routing::{get, post};

/// The routes of llama.cpp's endpoints.
pub fn routes() -> Routes {
    Routes::new()
        .route(template::PATH, post(template::apply_template))
        .route(infill::PATH, post(infill::infill))
        .route("/props", get(props::props))
        .route("/slots", get(slots::slots))
}
