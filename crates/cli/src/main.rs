//! The `tallow` command.
//
// These macros end the program by a panic at a closed pipe or a full disk; `output` has what replaces them.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod args;
mod bench;
mod cache;
mod catalog;
mod chat;
mod demo;
mod doctor;
mod eval;
mod front;
mod launch;
mod log;
mod log_file;
mod machine;
mod model;
mod models;
mod output;
mod plan;
mod plot;
mod progress;
mod running;
mod serve;
mod server_client;
mod service;
mod settings;
mod signals;
mod text_file;

use anyhow::{Context, Result};
use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use signals::Signals;
use std::path::Path;
use std::process::ExitCode;

/// glibc gives memory of a step's activations back to the system, which clears it again for the next step.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all, so that no moment is without them.
    let signals = Signals::install().context("SIGINT and SIGTERM cannot be handled");
    let result = signals.and_then(|signals| run(Cli::parse(), signals)).and_then(|()| output::finish());
    let fault = result.err().map(|error| output::describe(&error));
    let told = fault.as_ref().filter(|fault| log::fault(fault));
    log::flush();
    told.into_iter().for_each(|fault| output::complain(format_args!("tallow: {fault}")));
    if fault.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The name that is spelt almost like `word`.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this share of equal letters (Jaro-Winkler), two names are different words.
    const SIMILAR: f64 = 0.9;
    let likeness = |name: &str| strsim::jaro_winkler(name, word);
    known.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|name| likeness(name) >= SIMILAR)
}

/// Prints the manual page, or writes one for each command.
fn manual(folder: Option<&Path>) -> Result<()> {
    match folder {
        Some(folder) => clap_mangen::generate_to(Cli::command(), folder)
            .with_context(|| format!("--folder {} cannot be written", folder.display())),
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            output::print(format_args!("{}", String::from_utf8_lossy(&page)));
            Ok(())
        }
    }
}

fn run(cli: Cli, signals: Signals) -> Result<()> {
    // A chat shows the conversation alone, an evaluation or a benchmark its progress and results, lists themselves;
    // TALLOW_LOG shows more.
    let quiet = !matches!(cli.command, Command::Serve(_) | Command::Pull(_) | Command::Config);
    let is_for_person = log::start(if quiet { "warn" } else { "info" }, cli.log_format, cli.log_file.as_deref())?;
    let runtime = tokio::runtime::Runtime::new().context("the system gives no threads")?;
    let result = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => front::serve(args, &signals, is_for_person).await,
            Command::Plan(args) => plan::plan(args).await,
            Command::Chat(args) => chat::chat(args, &signals).await,
            Command::Eval(args) => eval::eval(args).await,
            Command::Bench(args) => bench::bench(args).await,
            Command::Pull(args) => model::pull(args).await,
            Command::List(args) => models::list(&args),
            Command::Rm(args) => models::rm(&args),
            Command::Ps(args) => running::ps(&args),
            Command::Service(args) => service::service(args).await,
            Command::Doctor(args) => doctor::doctor(args).await,
            Command::Launch(args) => launch::launch(args).await,
            Command::Cache(args) => cache::cache(&args),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "tallow", &mut script);
                output::print(format_args!("{}", String::from_utf8_lossy(&script)));
                Ok(())
            }
            Command::Man { folder } => manual(folder.as_deref()),
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
