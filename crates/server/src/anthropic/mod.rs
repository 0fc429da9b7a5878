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
pub use request::model_name;

use crate::http::paths::Routes;
use axum::routing::post;

/// The routes of this protocol.
pub fn routes() -> Routes {
    Routes::new()
        .route(request::MESSAGES, post(request::messages).head(request::probe))
        .described(request::operation())
        .route(request::COUNT_TOKENS, post(request::count_tokens).head(request::probe))
        .described(request::count_operation())
}
