//! OpenAI's protocol. Each endpoint has its request and its answer, whole and streamed, beside each other; what all
//! endpoints share lies here.
mod answer;
mod delivery;
pub mod fields;
pub mod infill;
pub mod models;
pub mod prompt;
mod prompt_logprobs;
pub mod request;
mod structure;
mod token_names;
mod truncation;

pub mod chat {
    mod answer;
    mod message;
    pub mod request;
    pub mod tools;
}

mod completions {
    mod answer;
    mod logprobs;
    pub mod request;
}

use crate::http::paths::Routes;
use axum::routing::post;

/// The routes of this protocol.
pub fn routes() -> Routes {
    Routes::new()
        .route(chat::request::ENDPOINT.path, post(chat::request::chat_completions))
        .described(chat::request::operation())
        .route(completions::request::ENDPOINT.path, post(completions::request::completions))
        .described(completions::request::operation())
}
