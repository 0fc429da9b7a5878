//! `tallow ps`: the servers that this user runs. Each has a file that is locked for as long as it runs.
use crate::args::PsArgs;
use crate::cache::age;
use crate::output;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the list says of a server of several models, each of which has a context and formats of its own.
pub const BY_MODEL: &str = "by model";

/// A server, as its file tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningServer {
    /// The process.
    pub pid: u32,
    /// The address, such as `http://127.0.0.1:8000`.
    pub url: String,
    /// The name that clients ask for.
    pub model: String,
    /// The longest context, tokens; `None` of a server of several models.
    pub max_model_len: Option<usize>,
    /// Formats of K and V; [`BY_MODEL`] of a server of several models.
    pub formats: String,
    /// When it began to serve, seconds since 1970.
    pub since: u64,
}

/// The file of this process's server, which is deleted when this is dropped.
pub struct Registration {
    path: PathBuf,
    _lock: File,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl RunningServer {
    /// Makes this process's server known. `None` where there is no folder for it, which costs `tallow ps` alone.
    pub fn register(self) -> Option<Registration> {
        self.register_in(&folder()?).inspect_err(|error| tracing::debug!("unknown to `tallow ps`: {error}")).ok()
    }

    fn register_in(&self, folder: &Path) -> std::io::Result<Registration> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("{}.json", self.pid));
        // It is seen once it is locked and whole.
        let hidden = path.with_extension("new");
        let lock = File::create(&hidden)?;
        lock.lock()?;
        serde_json::to_writer(&lock, self)?;
        std::fs::rename(hidden, &path)?;
        Ok(Registration { path, _lock: lock })
    }
}

fn folder() -> Option<PathBuf> {
    Some(engine::cache_folder()?.join("running"))
}

/// The servers that run, the last that was started first.
pub fn servers() -> Vec<RunningServer> {
    folder().map(|folder| servers_in(&folder)).unwrap_or_default()
}

fn servers_in(folder: &Path) -> Vec<RunningServer> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
    let mut servers: Vec<RunningServer> = paths.filter_map(|path| server(&path)).collect();
    servers.sort_by_key(|server| std::cmp::Reverse((server.since, server.pid)));
    servers
}

/// The server of a file. A file that nobody holds is of one that was killed, and is deleted.
fn server(path: &Path) -> Option<RunningServer> {
    let file = File::open(path).ok()?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => serde_json::from_reader(file).ok(),
        _ => {
            let _ = std::fs::remove_file(path);
            None
        }
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Prints the servers that run.
pub fn ps(args: &PsArgs) -> Result<()> {
    let servers = servers();
    if args.json {
        output::line(format_args!("{}", serde_json::to_string_pretty(&servers)?));
        return Ok(());
    }
    if servers.is_empty() {
        output::line(format_args!("no server of yours runs; `tallow serve` starts one"));
        return Ok(());
    }
    output::line(format_args!(
        "{:>8}  {:>8}  {:>9}  {:<9}  {:<26}  model",
        "process", "since", "context", "K/V", "address"
    ));
    for RunningServer { pid, url, model, max_model_len, formats, since } in &servers {
        let max_model_len = max_model_len.map_or_else(|| BY_MODEL.to_owned(), |tokens| tokens.to_string());
        let since = age(Duration::from_secs(now().saturating_sub(*since)));
        output::line(format_args!("{pid:>8}  {since:>8}  {max_model_len:>9}  {formats:<9}  {url:<26}  {model}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_as_long_as_its_file_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let server = |pid, since| RunningServer {
            pid,
            url: "http://127.0.0.1:8000".into(),
            model: "demo".into(),
            max_model_len: Some(4096),
            formats: "tq8/tq8".into(),
            since,
        };
        let first = server(1, 10).register_in(folder.path()).unwrap();
        let second = server(2, 20).register_in(folder.path()).unwrap();
        // A server that was killed leaves its file, and the lock goes with the process.
        std::fs::write(folder.path().join("3.json"), serde_json::to_string(&server(3, 30)).unwrap()).unwrap();
        assert_eq!(servers_in(folder.path()), [server(2, 20), server(1, 10)]);
        assert!(!folder.path().join("3.json").exists());
        drop(second);
        assert_eq!(servers_in(folder.path()), [server(1, 10)]);
        drop(first);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
