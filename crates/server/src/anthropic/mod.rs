//! Anthropic's protocol: messages, the counting of their tokens, its form of errors and of the list of models.
mod answer;
mod blocks;
mod conversation;
pub mod error;
mod events;
mod models;
mod options;
mod partial_json;
mod request;
mod tools;

pub use error::VERSION;
pub use models::{ModelEntry, ModelPage};
pub use request::{CLAUDE, COUNT_TOKENS, MESSAGES, model_name, probe};

use crate::http::paths::Routes;
use axum::routing::post;

/// The routes of this protocol.
pub fn routes() -> Routes {
    Routes::new()
        .route(MESSAGES, post(request::messages).head(probe))
        .described(request::operation())
        .route(COUNT_TOKENS, post(request::count_tokens).head(probe))
        .described(request::count_operation())
}
