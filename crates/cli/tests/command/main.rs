//! The command as its users run it: spawned, with an environment of its own.
#![allow(clippy::unwrap_used)] // helpers of tests
mod bench;
mod common;
mod files;
mod front;
mod front_ends;
mod help;
mod hub;
mod process;
mod running;
mod service;
mod settings;
