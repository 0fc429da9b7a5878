//! The server over HTTP, with an engine that plays a script.
#![allow(clippy::unwrap_used)]

mod agree;
mod answers;
mod bodies;
mod cache;
mod common;
mod connections;
mod descriptions;
mod embeddings;
mod errors;
mod fields;
mod fuzz;
mod health;
mod ids;
mod infill;
mod limits;
mod messages;
mod messages_fields;
mod metrics;
mod openapi;
mod pages;
mod paths;
mod prompts;
mod relay;
mod responses;
mod responses_input;
mod responses_store;
mod script;
mod tools;
mod vllm_fields;
mod web_page;
