//! The HTTP server: protocols that clients speak, over an [`engine::EngineHandle`].
//!
//! `http` holds what every protocol needs, `generation` follows the engine's events of one HTTP request, and each
//! protocol has a folder of its own beside them, such as `openai`.
#![warn(missing_docs)]

mod anthropic;
mod api_docs;
mod cache;
mod config;
mod content;
mod generation;
mod http;
mod llama_cpp;
mod models;
mod openai;
mod relay;
mod routes;
mod sglang;
mod turn;
mod vllm;
mod web_page;

pub use config::{AllowedHost, CorsOrigin, InvalidSetting, ServerConfig};
pub use http::error::{ApiError, ErrorCode};
pub use http::listener::{bind, raise_descriptor_limit};
pub use http::metrics::install as install_metrics;
pub use http::state::ServerState;
pub use relay::{ModelState, Relay, RelayedModel, RelayedRequest};
pub use routes::{serve, serve_relay};
