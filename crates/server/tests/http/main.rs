//! The server over HTTP, with an engine that plays a script.
#![allow(clippy::unwrap_used)]

mod answers;
mod common;
mod errors;
mod metrics;
