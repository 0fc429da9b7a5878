//! The files that `eval` and `bench` write beside their tables.
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::Path;

/// Writes a report as JSON where `--json` names a file.
pub fn json(path: Option<&Path>, report: &impl Serialize) -> Result<()> {
    write("--json", path, || Ok(serde_json::to_string_pretty(report)? + "\n"))
}

/// Writes a plot where `--plot` names a file. `svg` draws it.
pub fn plot(path: Option<&Path>, svg: impl FnOnce() -> Result<String>) -> Result<()> {
    write("--plot", path, svg)
}

fn write(flag: &str, path: Option<&Path>, text: impl FnOnce() -> Result<String>) -> Result<()> {
    match path {
        Some(path) => std::fs::write(path, text()?).with_context(|| format!("{flag} {}", path.display())),
        None => Ok(()),
    }
}
