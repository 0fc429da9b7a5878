//! What keeps services running: systemd's user manager, or launchd.
use super::definition::ServiceDefinition;
use crate::args::ServiceManager;
use anyhow::{Context, Result, bail};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The unit's name, and the agent's.
const UNIT: &str = "tallow.service";
const LABEL: &str = "org.tallow.server";

/// The places of a service's files, and the user whose it is.
#[derive(Debug)]
pub struct ServicePlaces {
    home: PathBuf,
    /// Where a user's configuration is kept on Linux.
    config: PathBuf,
    user: u32,
}

/// A command that a service takes.
#[derive(Debug, PartialEq, Eq)]
pub struct ManagerCommand {
    pub words: Vec<String>,
    /// Nothing is wrong if it fails.
    may_fail: bool,
    /// How often it is tried.
    tries: u32,
}

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(500);

impl ServicePlaces {
    /// Errors: the environment names no home.
    pub fn of_user() -> Result<Self> {
        let home = std::env::home_dir().filter(|home| home.is_absolute()).context("this user has no home folder")?;
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let user = home.metadata().with_context(|| format!("{}", home.display()))?.uid();
        Ok(ServicePlaces { config: config.unwrap_or_else(|| home.join(".config")), home, user })
    }

    /// Where launchd's services log.
    pub fn logs(&self) -> PathBuf {
        self.home.join("Library/Logs/tallow")
    }

    /// The log, which is kept within bounds.
    pub fn log(&self) -> PathBuf {
        self.logs().join("server.log")
    }
}

impl ServiceManager {
    /// The one of this system.
    pub fn of_system() -> Self {
        if cfg!(target_os = "macos") { ServiceManager::Launchd } else { ServiceManager::Systemd }
    }

    /// Where the service's definition is.
    pub fn file(self, places: &ServicePlaces) -> PathBuf {
        match self {
            ServiceManager::Systemd => places.config.join("systemd/user").join(UNIT),
            ServiceManager::Launchd => places.home.join("Library/LaunchAgents").join(format!("{LABEL}.plist")),
        }
    }

    /// The service's definition.
    pub fn text(self, definition: &ServiceDefinition, places: &ServicePlaces) -> String {
        match self {
            ServiceManager::Systemd => definition.systemd_unit(),
            ServiceManager::Launchd => definition.launchd_agent(LABEL, &places.logs().join("errors.log")),
        }
    }

    /// Starts a service whose definition has been written, anew if it runs.
    pub fn install(self, places: &ServicePlaces) -> Vec<ManagerCommand> {
        match self {
            ServiceManager::Systemd => vec![
                must(&["systemctl", "--user", "daemon-reload"]),
                must(&["systemctl", "--user", "enable", UNIT]),
                must(&["systemctl", "--user", "restart", UNIT]),
            ],
            ServiceManager::Launchd => {
                let file = self.file(places).to_string_lossy().into_owned();
                // An agent that was told to end is there for a while yet, and cannot be replaced meanwhile.
                let start = must(&["launchctl", "bootstrap", &domain(places), &file]);
                vec![may(&["launchctl", "bootout", &target(places)]), ManagerCommand { tries: 20, ..start }]
            }
        }
    }

    /// Ends a service.
    pub fn uninstall(self, places: &ServicePlaces) -> Vec<ManagerCommand> {
        match self {
            ServiceManager::Systemd => vec![may(&["systemctl", "--user", "disable", "--now", UNIT])],
            ServiceManager::Launchd => vec![may(&["launchctl", "bootout", &target(places)])],
        }
    }

    /// Makes the end known once the definition is deleted.
    pub fn forget(self) -> Vec<ManagerCommand> {
        match self {
            ServiceManager::Systemd => vec![must(&["systemctl", "--user", "daemon-reload"])],
            ServiceManager::Launchd => Vec::new(),
        }
    }

    /// Tells how the service is.
    pub fn status(self, places: &ServicePlaces) -> ManagerCommand {
        match self {
            ServiceManager::Systemd => must(&["systemctl", "--user", "--no-pager", "status", UNIT]),
            ServiceManager::Launchd => must(&["launchctl", "print", &target(places)]),
        }
    }

    /// Shows the last lines of the log, and what follows where `follow`.
    pub fn logs(self, places: &ServicePlaces, lines: usize, follow: bool) -> ManagerCommand {
        let lines = lines.to_string();
        let mut command = match self {
            ServiceManager::Systemd => must(&["journalctl", "--user", "--no-pager", "--unit", UNIT, "--lines", &lines]),
            ServiceManager::Launchd => must(&["tail", "-n", &lines]),
        };
        match self {
            ServiceManager::Systemd => command.words.extend(follow.then(|| "--follow".to_owned())),
            ServiceManager::Launchd => {
                // Also where the file is put aside for a new one.
                command.words.extend(follow.then(|| "-F".to_owned()));
                command.words.push(places.log().to_string_lossy().into_owned());
            }
        }
        command
    }

    /// What a user should know of an installed service.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            ServiceManager::Systemd => Some(
                "It runs while you are logged in; `loginctl enable-linger` has it run from the start of the machine on",
            ),
            ServiceManager::Launchd => None,
        }
    }
}

/// The user's session, and the service in it, as launchd names them.
fn domain(places: &ServicePlaces) -> String {
    format!("gui/{}", places.user)
}

fn target(places: &ServicePlaces) -> String {
    format!("{}/{LABEL}", domain(places))
}

fn must(words: &[&str]) -> ManagerCommand {
    ManagerCommand { words: words.iter().map(|word| (*word).to_owned()).collect(), may_fail: false, tries: 1 }
}

fn may(words: &[&str]) -> ManagerCommand {
    ManagerCommand { may_fail: true, ..must(words) }
}

impl ManagerCommand {
    /// Runs the command, whose output is the user's.
    ///
    /// Errors: a program that is not here, with what that means; a command that fails.
    pub fn run(&self) -> Result<()> {
        let (program, arguments) = (&self.words[0], &self.words[1..]);
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        if self.may_fail {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        for left in (0..self.tries).rev() {
            match command.status() {
                Ok(status) if status.success() || self.may_fail => return Ok(()),
                Ok(_) if left > 0 => std::thread::sleep(PAUSE),
                Ok(status) => bail!("`{}` failed ({status})", self.words.join(" ")),
                Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                    "there is no {program} here, so this system has no manager of services that tallow knows (systemd \
                     on Linux, launchd on macOS); have what it has run `tallow serve`"
                ),
                Err(error) => return Err(error).with_context(|| format!("{program} cannot be run")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> ServicePlaces {
        ServicePlaces { home: "/Users/me & you".into(), config: "/c".into(), user: 501 }
    }

    #[test]
    fn each_manager_has_its_files_and_commands() {
        let told = |manager: ServiceManager| {
            let places = places();
            let changes = [manager.install(&places), manager.uninstall(&places), manager.forget()];
            let looks = [manager.status(&places), manager.logs(&places, 7, true)];
            let commands = changes.iter().flatten().chain(&looks).map(|command| command.words.join(" "));
            let lines: Vec<String> =
                [manager.file(&places).display().to_string()].into_iter().chain(commands).collect();
            lines.join("\n")
        };
        insta::assert_snapshot!(told(ServiceManager::Systemd));
        insta::assert_snapshot!(told(ServiceManager::Launchd));
    }

    #[test]
    fn a_program_that_is_not_here_is_told() {
        let error = must(&["no-such-manager", "x"]).run().unwrap_err().to_string();
        assert!(error.contains("there is no no-such-manager here") && error.contains("tallow serve"), "{error}");
        assert!(must(&["false"]).run().unwrap_err().to_string().contains("`false` failed"));
        assert!(may(&["false"]).run().is_ok() && must(&["true"]).run().is_ok());
    }
}
