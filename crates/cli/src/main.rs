//! The `tallow` command.
mod args;
mod bench;
mod chat;
mod demo;
mod eval;
mod model;
mod plot;
mod serve;
mod settings;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// glibc gives memory of a step's activations back to the system, which clears it again for the next step.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // A chat shows the conversation alone, an evaluation or a benchmark its progress and results; TALLOW_LOG shows more.
    let level =
        if matches!(cli.command, Command::Chat(_) | Command::Eval(_) | Command::Bench(_)) { "warn" } else { "info" };
    let filter = EnvFilter::try_from_env("TALLOW_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr).init();
    let result = match cli.command {
        Command::Serve(args) => serve::serve(args).await,
        Command::Chat(args) => chat::chat(args).await,
        Command::Eval(args) => eval::eval(args).await,
        Command::Bench(args) => bench::bench(args).await,
        Command::Pull(args) => model::pull(args).await,
        Command::Config => {
            print!("{}", settings::DEFAULTS);
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tallow: {error:#}");
            ExitCode::FAILURE
        }
    }
}
