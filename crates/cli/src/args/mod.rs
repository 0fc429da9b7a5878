//! The command line. Doc comments of flags are what `--help` prints, so addresses stand in them as users type them.
#![allow(rustdoc::bare_urls)]
mod measuring;
pub mod numbers;
mod service;
mod settings;

use crate::log::LogFormat;
use crate::machine::Mac;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

pub use measuring::{BenchArgs, EvalArgs, Pairs};
pub use service::{ServiceAction, ServiceArgs, ServiceInstall, ServiceManager};
pub use settings::{CacheFolder, KvSettings, ModelSettings, ServingSettings, SeveralModels, StepSettings};

/// An OpenAI-compatible inference server with a compressed KV cache.
#[derive(Debug, Parser)]
#[command(
    name = "tallow",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  tallow serve qwen3:4b                fetch a model, and serve it on http://127.0.0.1:8000
  tallow plan qwen3:8b --memory 8GiB   tell first what it would take
  tallow chat ./model.gguf             talk to a model in the terminal
  tallow launch claude                 start Claude Code with the server that runs

`tallow COMMAND --help` tells a command's flags."
)]
pub struct Cli {
    /// How lines of the log are written: text or json
    #[arg(
        long,
        value_name = "FORMAT",
        global = true,
        env = "TALLOW_LOG_FORMAT",
        value_enum,
        default_value_t = LogFormat::Text,
        hide_possible_values = true
    )]
    pub log_format: LogFormat,
    /// Write the log to this file, which is put aside as FILE.1 when it has 10 MiB [default: standard error]
    #[arg(long, value_name = "FILE", global = true)]
    pub log_file: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a model over HTTP
    #[command(after_help = "\
Examples:
  tallow serve                                   the bundled demo model
  tallow serve qwen3:4b --context 32768          a model by its short name
  tallow serve Qwen/Qwen3-8B-GGUF:Q4_K_M         one GGUF file of the hub
  tallow serve ./folder --memory 6GiB --host 0.0.0.0 --api-key KEY
  tallow serve qwen3:4b qwen3:0.6b               two models, each loaded when it is asked for
  tallow serve --models-dir ~/models --idle-unload 30m

Every flag is also a key of a configuration file (`tallow config`) and a variable: --host is TALLOW_HOST.")]
    Serve(ServeCommand),
    /// Tell what serving a model would take of memory, without loading it
    #[command(after_help = "\
Of a model of the hub that is not here, headers alone are fetched. With the flags of `serve`, the numbers are those that
it then takes.

Examples:
  tallow plan qwen3:8b --machine \"M2 8GB\"
  tallow plan ./model.gguf --memory 8GiB --context 32768
  tallow plan Qwen/Qwen3-4B --weight-quant q4_k --json")]
    Plan(PlanArgs),
    /// Chat with a model in the terminal
    #[command(after_help = "\
Examples:
  tallow chat qwen3:1.7b
  tallow chat --url http://192.168.1.5:8000 --system \"Answer in one sentence.\"")]
    Chat(ChatArgs),
    /// Run a coding agent with a server of Tallow
    #[command(after_help = "\
Examples:
  tallow launch claude
  tallow launch codex --url http://192.168.1.5:8000 -- exec \"explain this folder\"
  tallow launch opencode --print")]
    Launch(LaunchArgs),
    /// Fetch a model from the Hugging Face hub
    #[command(after_help = "\
A download that has broken off goes on where it ended. Weights are checked against the hash that the hub has for them.

Examples:
  tallow pull qwen3:4b
  tallow pull Qwen/Qwen3-0.6B-GGUF:Q8_0 --verify")]
    Pull(PullArgs),
    /// List the models that are here, or those with a short name
    List(ListArgs),
    /// Delete models that were fetched
    #[command(after_help = "\
Examples:
  tallow rm qwen3:4b
  tallow rm Qwen/Qwen3-8B-GGUF      every quantisation of it")]
    Rm(RmArgs),
    /// List the servers that run
    Ps(PsArgs),
    /// Have the system run a server, and start it again when it fails
    #[command(after_help = "\
Examples:
  tallow service install qwen3:4b      a systemd unit of this user's, or a launchd agent on macOS
  tallow service logs --follow")]
    Service(ServiceArgs),
    /// Check this machine, and tell what to do about what is wrong
    Doctor(DoctorArgs),
    /// Measure what each K/V pair costs a model
    #[command(after_help = "\
Examples:
  tallow eval ./model.gguf --texts wikitext --plot quality.svg
  tallow eval ./model.gguf --kv-preset balanced --needles")]
    Eval(EvalArgs),
    /// Measure how fast a model prefills and decodes with each K/V pair
    #[command(after_help = "\
Examples:
  tallow bench ./model.gguf --contexts 512,8192 --batches 1 --plot speed.svg
  tallow bench ./model.gguf --json now.json --compare before.json      how much faster than then")]
    Bench(BenchArgs),
    /// List, clear or verify what is kept on disk of prompts
    Cache(CacheArgs),
    /// Print the default configuration file
    Config,
    /// Print what completes commands and flags in a shell
    #[command(after_help = "\
Examples:
  tallow completions zsh > ~/.zfunc/_tallow
  tallow completions bash > ~/.local/share/bash-completion/completions/tallow")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    Man {
        /// Write a page for each command into this folder instead
        #[arg(long, value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

/// `tallow cache`.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// What to do with what no running server uses
    pub action: CacheAction,
    /// Configuration file; `tallow config` prints the default one
    #[arg(long, value_name = "FILE", env = "TALLOW_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub folder: CacheFolder,
}

/// What `tallow cache` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CacheAction {
    /// Show prompts with their tokens, sizes and ages
    List,
    /// Delete all
    Clear,
    /// Read all, and delete what is not as it was written
    Verify,
}

/// `tallow serve`.
#[derive(Debug, Args)]
pub struct ServeCommand {
    #[command(flatten)]
    pub serve: ServeArgs,
    #[command(flatten)]
    pub several: SeveralModels,
}

/// What a server of one model is told.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub model: ModelSettings,
    #[command(flatten)]
    pub kv: KvSettings,
    #[command(flatten)]
    pub step: StepSettings,
    #[command(flatten)]
    pub serving: ServingSettings,
    #[command(flatten)]
    pub folder: CacheFolder,
}

/// `tallow plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Plan for this Mac, such as "M2 8GB", instead of this machine. macOS lets a GPU have two thirds of the memory, or
    /// three quarters from 36 GB on; other programs are thought to leave that
    #[arg(long, value_name = "MAC", conflicts_with = "memory")]
    pub machine: Option<Mac>,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// `tallow pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// ORG/NAME, ORG/NAME:QUANT for one GGUF file, or a short name
    pub model: String,
    /// Branch, tag or commit
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub revision: String,
    /// Also read what is here already, and fetch anew what is damaged
    #[arg(long)]
    pub verify: bool,
}

/// `tallow list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// List the models that have a short name, by the size of the Mac that they are for
    #[arg(long)]
    pub known: bool,
    /// Print the list as JSON
    #[arg(long, conflicts_with = "known")]
    pub json: bool,
}

/// `tallow rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Names as `tallow list` prints them, or short names
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<String>,
}

/// `tallow ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

/// `tallow doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Do not ask the hub
    #[arg(long)]
    pub offline: bool,
}

/// `tallow launch`.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// The agent
    pub agent: Agent,
    /// The server's address [default: that of the last server that was started here]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The model, of a server that has several [default: the first that it lists]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// The server's key
    #[arg(long, value_name = "KEY", env = "TALLOW_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Print the environment and the command instead of running it
    #[arg(long)]
    pub print: bool,
    /// What the agent is given further
    #[arg(last = true, value_name = "ARGS")]
    pub arguments: Vec<String>,
}

/// An agent that `tallow launch` runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Agent {
    /// Claude Code
    Claude,
    /// OpenAI's Codex
    Codex,
    /// opencode
    Opencode,
}

/// `tallow chat`.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Chat with this server, such as http://127.0.0.1:8000 [default: without a MODEL, the server that was started last
    /// on this machine, if one runs]
    #[arg(long, value_name = "URL", conflicts_with = "model")]
    pub url: Option<String>,
    /// System message to begin with
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    #[command(flatten)]
    pub serve: ServeArgs,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn flags(command: &str) -> Vec<String> {
        let cli = Cli::command();
        let command = cli.find_subcommand(command).unwrap();
        command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
    }

    /// What `--help` says of a command is what its list of commands says, not the comment of a group of flags.
    #[test]
    fn every_command_says_what_it_does() {
        let abouts = |command: &str| {
            let cli = Cli::command();
            let command = cli.find_subcommand(command).unwrap();
            (command.get_about().unwrap().to_string(), command.get_long_about().map(ToString::to_string))
        };
        assert_eq!(abouts("serve"), ("Serve a model over HTTP".into(), None));
        assert_eq!(abouts("eval"), ("Measure what each K/V pair costs a model".into(), None));
    }

    /// Each flag that `serve` has and `eval` or `bench` does not is refused there, by its name.
    #[test]
    fn measuring_refuses_what_only_serving_uses() {
        let serving = flags("serve");
        assert!(
            ["host", "port", "api-key", "max-queued-requests"].iter().all(|flag| serving.iter().any(|f| f == flag))
        );
        for command in ["eval", "bench"] {
            let known = flags(command);
            let foreign: Vec<_> = serving.iter().filter(|flag| !known.contains(flag)).collect();
            assert!(foreign.len() >= 10, "{command} takes {known:?}");
            for flag in foreign {
                let error =
                    Cli::try_parse_from(["tallow", command, &format!("--{flag}"), "1"]).unwrap_err().to_string();
                assert!(error.contains(&format!("unexpected argument '--{flag}'")), "{error}");
            }
        }
    }
}
