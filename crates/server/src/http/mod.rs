//! What every protocol needs of HTTP: connections, rules for web pages, paths, bodies, errors, the API key, event
//! streams, metrics.
pub mod auth;
pub mod body;
pub mod cache_header;
mod client;
mod connection;
mod encoding;
pub mod error;
pub mod ids;
pub mod listener;
pub mod metrics;
pub mod operation;
pub mod pages;
pub mod paths;
pub mod sse;
pub mod state;
pub mod status;
mod strict_value;
mod unknown_fields;
mod unread;
