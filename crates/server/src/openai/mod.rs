//! OpenAI's protocol. Each endpoint has its request and its answer, whole and streamed, beside each other; what all
//! endpoints share lies here.
mod answer;
mod bad_words;
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
mod usage;

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

mod responses {
    mod answer;
    mod events;
    mod input;
    mod items;
    mod object;
    pub mod request;
    pub mod store;
    pub mod stored;
    mod tools;
    mod writer;
}

mod embeddings {
    mod answer;
    pub mod request;
}

use crate::http::paths::Routes;
use axum::Extension;
use axum::routing::{get, post};
use responses::store::{ResponseStore, StoreLimits};
use responses::stored;
use std::sync::Arc;

pub use responses::stored::not_stored;

/// Where responses are asked for.
pub const RESPONSES: &str = responses::request::ENDPOINT.path;

/// The routes of this protocol.
pub fn routes() -> Routes {
    let store = Extension(Arc::new(ResponseStore::new(StoreLimits::default())));
    Routes::new()
        .route(chat::request::ENDPOINT.path, post(chat::request::chat_completions))
        .described(chat::request::operation())
        .route(completions::request::ENDPOINT.path, post(completions::request::completions))
        .described(completions::request::operation())
        .route(embeddings::request::PATH, post(embeddings::request::embeddings))
        .described(embeddings::request::operation())
        .route(responses::request::ENDPOINT.path, post(responses::request::responses).layer(store.clone()))
        .described(responses::request::operation())
        .route("/v1/responses/{id}", get(stored::response).delete(stored::delete).layer(store.clone()))
        .described(stored::operation())
        .described(stored::delete_operation())
        .route("/v1/responses/{id}/input_items", get(stored::input_items).layer(store))
        .described(stored::items_operation())
}
