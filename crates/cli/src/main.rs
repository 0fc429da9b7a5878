//! The `tallow` command.
//
// These macros end the program by a panic at a closed pipe or a full disk; `output` has what replaces them.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod args;
mod bench;
mod cache;
mod chat;
mod demo;
mod eval;
mod log;
mod model;
mod output;
mod plan;
mod plot;
mod progress;
mod serve;
mod settings;
mod signals;

use anyhow::{Context, Result};
use args::{Cli, Command};
use clap::Parser;
use signals::Signals;
use std::process::ExitCode;

/// glibc gives memory of a step's activations back to the system, which clears it again for the next step.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all, so that no moment is without them.
    let signals = Signals::install().context("SIGINT and SIGTERM cannot be handled");
    let result = signals.and_then(|signals| run(Cli::parse(), signals)).and_then(|()| output::finish());
    log::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(format_args!("tallow: {}", output::describe(&error)));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, signals: Signals) -> Result<()> {
    // A chat shows the conversation alone, an evaluation or a benchmark its progress and results, lists themselves;
    // TALLOW_LOG shows more.
    let quiet = !matches!(cli.command, Command::Serve(_) | Command::Pull(_) | Command::Config);
    log::start(if quiet { "warn" } else { "info" })?;
    let runtime = tokio::runtime::Runtime::new().context("the system gives no threads")?;
    let result = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::serve(args, &signals).await,
            Command::Plan(args) => plan::plan(args).await,
            Command::Chat(args) => chat::chat(args, &signals).await,
            Command::Eval(args) => eval::eval(args).await,
            Command::Bench(args) => bench::bench(args).await,
            Command::Pull(args) => model::pull(args).await,
            Command::Cache(args) => cache::cache(&args),
            Command::Config => {
                output::print(format_args!("{}", settings::DEFAULTS));
                Ok(())
            }
        }
    });
    // What still runs, such as the loading of a model, does not hold up the end.
    runtime.shutdown_background();
    result
}
