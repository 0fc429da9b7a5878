//! The OpenAI-compatible HTTP surface.
mod auth;
mod body;
mod completion_logprobs;
mod config;
mod error;
mod generation;
mod metrics;
mod params;
mod routes;
mod serve;
mod sse;
mod state;
mod tokens;
mod wire;

pub use config::ServerConfig;
pub use error::{ApiError, ErrorCode};
pub use metrics::install as install_metrics;
pub use routes::router;
pub use serve::{bind, serve};
pub use state::ServerState;
