//! `tallow service`: a server that the system starts, and starts again.
mod definition;
mod manager;

use crate::args::{ServiceAction, ServiceArgs, ServiceInstall, ServiceManager};
use crate::launch::quoted;
use crate::settings::Settings;
use crate::{front, log, output};
use anyhow::{Context, Result, bail};
use definition::ServiceDefinition;
use manager::{ManagerCommand, ServicePlaces};
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Variables that change what a server does beside those that begin with `TALLOW_` or `HF_`.
const VARIABLES: [&str; 9] = [
    "XDG_CACHE_HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// Runs the command.
///
/// Errors: settings that `serve` would refuse, a file that cannot be written, no manager of services, one that refuses.
pub async fn service(args: ServiceArgs) -> Result<()> {
    let places = ServicePlaces::of_user()?;
    match args.action {
        ServiceAction::Install(args) => install(*args, &places).await,
        ServiceAction::Uninstall { dry_run } => uninstall(&places, dry_run),
        ServiceAction::Status => {
            let manager = installed(&places)?;
            manager.status(&places).run().context("the service does not run")
        }
        ServiceAction::Logs { lines, follow } => installed(&places)?.logs(&places, lines, follow).run(),
    }
}

/// The manager of this system.
///
/// Errors: it has no service of this program.
fn installed(places: &ServicePlaces) -> Result<ServiceManager> {
    let manager = ServiceManager::of_system();
    let file = manager.file(places);
    if !file.exists() {
        bail!("no service is installed: {} is not there; `tallow service install` makes it", file.display());
    }
    Ok(manager)
}

async fn install(args: ServiceInstall, places: &ServicePlaces) -> Result<()> {
    let manager = args.manager.unwrap_or_else(ServiceManager::of_system);
    let settings = Settings::of_command(&args.serve)?;
    let models = front::check(&settings, &args.serve.several.more).await?;
    let definition = ServiceDefinition {
        program: std::env::current_exe().context("the system does not say where this program is")?,
        arguments: arguments(&settings, &models, manager, places),
        environment: environment(&settings),
        folder: std::env::current_dir().context("the system does not say in which folder this is")?,
        shutdown_timeout: settings.shutdown_timeout,
    };
    if manager == ServiceManager::Systemd {
        definition.check_for_systemd()?;
    }
    let (file, text) = (manager.file(places), manager.text(&definition, places));
    let commands = manager.install(places);
    if args.dry_run {
        output::print(format_args!("# {}\n{text}\n", file.display()));
        return show(&commands);
    }
    if manager == ServiceManager::Launchd {
        let logs = places.logs();
        fs::create_dir_all(&logs).with_context(|| format!("{}", logs.display()))?;
    }
    write(&file, &text).with_context(|| format!("{} cannot be written", file.display()))?;
    output::line(format_args!("{} is written", file.display()));
    commands.iter().try_for_each(ManagerCommand::run)?;
    output::line(format_args!("The service runs. `tallow service status` and `tallow service logs` tell of it."));
    manager.hint().into_iter().for_each(|hint| output::line(format_args!("{hint}.")));
    Ok(())
}

fn uninstall(places: &ServicePlaces, dry_run: bool) -> Result<()> {
    let manager = installed(places)?;
    let (file, end, forget) = (manager.file(places), manager.uninstall(places), manager.forget());
    if dry_run {
        show(&end)?;
        output::line(format_args!("rm {}", quoted(&file.to_string_lossy())));
        return show(&forget);
    }
    end.iter().try_for_each(ManagerCommand::run)?;
    fs::remove_file(&file).with_context(|| format!("{} cannot be deleted", file.display()))?;
    output::line(format_args!("The service has ended, and {} is deleted.", file.display()));
    forget.iter().try_for_each(ManagerCommand::run)
}

fn show(commands: &[ManagerCommand]) -> Result<()> {
    for command in commands {
        let words: Vec<String> = command.words.iter().map(|word| quoted(word)).collect();
        output::line(format_args!("{}", words.join(" ")));
    }
    Ok(())
}

/// The arguments of a server with these settings: its flags but for the key, and its models.
fn arguments(settings: &Settings, models: &[String], manager: ServiceManager, places: &ServicePlaces) -> Vec<String> {
    let flags = settings.arguments(&["model", "api_key"]);
    let (log_format, _) = log::of_process(false);
    // systemd keeps what a service writes; launchd does not.
    let log_file = (manager == ServiceManager::Launchd).then(|| format!("--log-file={}", places.log().display()));
    let words = ["serve".to_owned(), log_format].into_iter().chain(log_file).chain(flags);
    words.chain((!models.is_empty()).then(|| "--".to_owned())).chain(models.iter().cloned()).collect()
}

/// The variables by which a server would be what it is if it were started here and now.
fn environment(settings: &Settings) -> Vec<(String, String)> {
    const KEY: &str = "TALLOW_API_KEY";
    let is_read =
        |name: &str| ["TALLOW_", "HF_"].iter().any(|begin| name.starts_with(begin)) || VARIABLES.contains(&name);
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    // What came by a configuration file stays there.
    let key = settings.flags.iter().find(|(key, _)| key == "api_key").map(|(_, value)| (KEY.to_owned(), value.clone()));
    let known = key.is_some();
    let mut environment: Vec<_> = variables.filter(|(name, _)| is_read(name) && !(known && name == KEY)).collect();
    environment.extend(key);
    environment.sort();
    environment
}

/// Writes a file that its user alone can read, since it may have a key.
fn write(path: &Path, text: &str) -> Result<()> {
    const OWN: u32 = 0o600;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(OWN).open(path)?;
    file.set_permissions(Permissions::from_mode(OWN))?;
    file.write_all(text.as_bytes())?;
    Ok(file.sync_all()?)
}
