//! `tallow service`.
use super::ServeCommand;
use super::numbers::whole;
use clap::{Args, Subcommand, ValueEnum};

/// `tallow service`.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    #[command(subcommand)]
    pub action: ServiceAction,
}

/// What is done with the service.
#[derive(Debug, Subcommand)]
pub enum ServiceAction {
    /// Have the system run a server: `tallow serve` with the same models and flags
    #[command(after_help = "\
The service is started at once, whenever you log in, and again when it fails. It runs in the folder in which it is
installed, with the variables TALLOW_* and HF_* that are set now. Installing it again replaces it.

Examples:
  tallow service install qwen3:4b --api-key KEY
  tallow service install --models-dir ~/models --idle-unload 30m --dry-run")]
    Install(Box<ServiceInstall>),
    /// End the service, and delete what the system knows of it
    Uninstall {
        /// Print what would be done instead
        #[arg(long)]
        dry_run: bool,
    },
    /// Tell whether the service runs
    Status,
    /// Show the service's log
    Logs {
        /// The last lines of it
        #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = whole::<usize>)]
        lines: usize,
        /// Go on with what is logged from now on
        #[arg(short, long)]
        follow: bool,
    },
}

/// `tallow service install`.
#[derive(Debug, Args)]
pub struct ServiceInstall {
    /// Print the service's definition and the commands instead
    #[arg(long)]
    pub dry_run: bool,
    /// For another system's manager: systemd or launchd [default: this system's]
    #[arg(long, value_name = "NAME", requires = "dry_run", value_enum, hide_possible_values = true)]
    pub manager: Option<ServiceManager>,
    #[command(flatten)]
    pub serve: ServeCommand,
}

/// What keeps services running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ServiceManager {
    /// systemd's manager of a user's units
    Systemd,
    /// macOS's launchd
    Launchd,
}
