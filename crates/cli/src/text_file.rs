//! Text files that a flag names.
use anyhow::{Result, ensure};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Far more than a configuration, a report or a text to judge a model on has.
const MOST_MIB: u64 = 64;

/// Reads a file.
///
/// Errors: a file that cannot be read, is not text, or has no end, such as a device.
pub fn read_text(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take((MOST_MIB << 20) + 1).read_to_string(&mut text)?;
    ensure!(read as u64 <= MOST_MIB << 20, "it has more than {MOST_MIB} MiB, which no such file has");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_refused() {
        let error = read_text(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("more than 64 MiB"), "{error}");
    }
}
