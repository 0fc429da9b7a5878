//! What every protocol needs of HTTP: the listener, bodies, errors, the API key, event streams, metrics.
pub mod auth;
pub mod body;
pub mod error;
mod ids;
pub mod listener;
pub mod metrics;
pub mod sse;
pub mod state;
pub mod status;
mod unknown_fields;
