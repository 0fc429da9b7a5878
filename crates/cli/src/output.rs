//! Standard output, and the files that `eval` and `bench` write beside their tables.
use crate::plot::Picture;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Why standard output takes nothing any more.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints as `print!` does, at once, but never panics. Once a write has failed, nothing is printed any more, and
/// [`finish`] tells why.
pub fn print(text: fmt::Arguments<'_>) {
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    if failed.is_none() {
        let mut out = io::stdout().lock();
        *failed = out.write_fmt(text).and_then(|()| out.flush()).err();
    }
}

/// [`print()`], and ends the line.
pub fn line(text: fmt::Arguments<'_>) {
    print(format_args!("{text}\n"));
}

/// Prints to standard error, as well as that goes.
pub fn complain(text: fmt::Arguments<'_>) {
    let _ = io::stderr().write_fmt(format_args!("{text}\n"));
}

/// Whether standard output takes nothing any more.
pub fn is_closed() -> bool {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// What became of all that was printed. A reader that has seen enough, as `head` has, is no fault.
///
/// Errors: something could not be written for another reason, such as a full disk.
pub fn finish() -> Result<()> {
    match FAILED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => bail!("standard output cannot be written: {error}"),
        _ => Ok(()),
    }
}

/// An error with its causes, each told once: some errors tell their cause themselves.
pub fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text += ": ";
            text += &cause;
        }
    }
    text
}

/// Writes a report as JSON where `--json` names a file.
pub fn json(path: Option<&Path>, report: &impl Serialize) -> Result<()> {
    write("--json", path, || Ok(serde_json::to_string_pretty(report)? + "\n"))
}

/// Writes a plot where `--plot` names a file, as the kind of picture that the file's name ends with. `draw` draws it.
pub fn plot(path: Option<&Path>, draw: impl FnOnce(Picture) -> Result<Vec<u8>>) -> Result<()> {
    write("--plot", path, || draw(Picture::of(path)))
}

fn write<T: AsRef<[u8]>>(flag: &str, path: Option<&Path>, content: impl FnOnce() -> Result<T>) -> Result<()> {
    match path {
        Some(path) => std::fs::write(path, content()?).with_context(|| format!("{flag} {}", path.display())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        enum Inner {
            #[error("cannot read x: {source}")]
            TellsItsCause { source: io::Error },
            #[error("cannot read x")]
            LeavesItToTheCaller { source: io::Error },
        }
        let source = || io::Error::from(ErrorKind::NotFound);
        let told = format!("the model: cannot read x: {}", source());
        for inner in [Inner::TellsItsCause { source: source() }, Inner::LeavesItToTheCaller { source: source() }] {
            assert_eq!(describe(&anyhow::Error::new(inner).context("the model")), told);
        }
    }
}
