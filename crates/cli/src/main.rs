//! The `tallow` command.
mod args;
mod bench;
mod chat;
mod demo;
mod eval;
mod model;
mod output;
mod plot;
mod progress;
mod serve;
mod settings;

use anyhow::{Context, Result};
use args::{Cli, Command};
use clap::Parser;
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// glibc gives memory of a step's activations back to the system, which clears it again for the next step.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // A chat shows the conversation alone, an evaluation or a benchmark its progress and results; TALLOW_LOG shows
    // more.
    let level =
        if matches!(cli.command, Command::Chat(_) | Command::Eval(_) | Command::Bench(_)) { "warn" } else { "info" };
    let filter = match log_filter(std::env::var("TALLOW_LOG").ok(), level) {
        Ok(filter) => filter,
        Err(error) => return failure(&error),
    };
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !no_colour)
        .init();
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
        Err(error) => failure(&error),
    }
}

fn failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("tallow: {error:#}");
    ExitCode::FAILURE
}

/// What `TALLOW_LOG` asks for; `level` where it is unset or empty.
fn log_filter(asked: Option<String>, level: &str) -> Result<EnvFilter> {
    let asked = asked.filter(|text| !text.is_empty()).unwrap_or_else(|| level.to_owned());
    EnvFilter::try_new(&asked).with_context(|| {
        format!(
            "TALLOW_LOG is {asked:?}; it must be a level (error, warn, info, debug, trace) or CRATE=LEVEL, \
             separated by commas"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::log_filter;

    #[test]
    fn what_is_logged_is_asked_for_in_known_words() {
        assert_eq!(log_filter(None, "warn").unwrap().to_string(), "warn");
        assert_eq!(log_filter(Some("server=debug".into()), "warn").unwrap().to_string(), "server=debug");
        let message = log_filter(Some("server=verbose".into()), "warn").unwrap_err().to_string();
        assert!(message.contains("TALLOW_LOG is \"server=verbose\"") && message.contains("debug"), "{message}");
    }
}
