//! `tallow cache`: what earlier servers have left on disk of the prompts that they computed.
use crate::args::{CacheAction, CacheArgs};
use crate::output;
use crate::settings::Settings;
use anyhow::{Context, Result};
use bytesize::ByteSize;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Lists, clears or verifies the cache on disk.
///
/// Errors: a folder that cannot be read or written; damaged values that were found.
pub fn cache(args: &CacheArgs) -> Result<()> {
    let settings = Settings::read(args.config.as_deref(), &(&args.folder,))?;
    let dir = settings.disk_cache_dir.context("--kv-disk-cache-dir: name it; this user has no cache folder")?;
    match args.action {
        CacheAction::List => list(&dir),
        CacheAction::Clear => clear(&dir),
        CacheAction::Verify => verify(&dir),
    }
}

fn list(dir: &Path) -> Result<()> {
    let chains = disk_cache::list(dir)?;
    if chains.is_empty() {
        output::line(format_args!("{} holds no prompts", dir.display()));
        return Ok(());
    }
    output::line(format_args!("{:>8}  {:>10}  {:>8}  {:<12}  model", "tokens", "size", "used", "format"));
    let now = SystemTime::now();
    for chain in &chains {
        let size = ByteSize::b(chain.bytes).to_string();
        let age = age(now.duration_since(chain.last_used).unwrap_or_default());
        let label = &chain.label;
        output::line(format_args!("{:>8}  {size:>10}  {age:>8}  {:<12}  {}", chain.tokens, label.formats, label.model));
    }
    let bytes = chains.iter().map(|chain| chain.bytes).sum();
    output::line(format_args!("{} prompts, {} in {}", chains.len(), ByteSize::b(bytes), dir.display()));
    Ok(())
}

fn clear(dir: &Path) -> Result<()> {
    let report = disk_cache::clear(dir)?;
    output::line(format_args!("{} files, {} deleted", report.files, ByteSize::b(report.bytes)));
    in_use(&report.in_use, "DELETE /v1/cache clears it");
    Ok(())
}

fn verify(dir: &Path) -> Result<()> {
    let report = disk_cache::verify(dir)?;
    output::line(format_args!("{} values, {} read", report.values, ByteSize::b(report.bytes)));
    in_use(&report.in_use, "it was not read");
    for file in &report.damaged_files {
        output::line(format_args!("{} was damaged and is deleted", file.display()));
    }
    let damaged = report.damaged + report.damaged_files.len() as u64;
    if damaged > 0 {
        anyhow::bail!("{damaged} values or files were damaged and are deleted; no server would have used them");
    }
    output::line(format_args!("nothing is damaged"));
    Ok(())
}

/// Tells of files that a server has.
fn in_use(files: &[PathBuf], what: &str) {
    files.iter().for_each(|file| output::line(format_args!("{} is in use by a server; {what}", file.display())));
}

/// How long ago something was, in its largest unit.
pub fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        let told = [5, 60, 7199, 47 * 3600, 48 * 3600].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(told, ["5 s", "1 min", "1 h", "47 h", "2 days"]);
    }
}
