//! A log in a file that does not grow without end.
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The most bytes of a file. One more file, the one before, is kept beside it.
const LIMIT: u64 = 10 << 20;

/// A file that is put aside, as `FILE.1`, when it is full.
pub struct BoundedFile {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl BoundedFile {
    /// Goes on with a file, or begins it.
    ///
    /// Errors: it cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, LIMIT)
    }

    fn with_limit(path: &Path, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(BoundedFile { path: path.to_owned(), size: file.metadata()?.len(), file, limit })
    }

    fn put_aside(&mut self) -> io::Result<()> {
        let mut aside = OsString::from(&self.path);
        aside.push(".1");
        std::fs::rename(&self.path, aside)?;
        *self = Self::with_limit(&self.path, self.limit)?;
        Ok(())
    }
}

impl Write for BoundedFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.size > 0 && self.size + line.len() as u64 > self.limit {
            self.put_aside()?;
        }
        let written = self.file.write(line)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_and_no_line_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (path, aside) = (folder.path().join("log"), folder.path().join("log.1"));
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let mut log = BoundedFile::with_limit(&path, 10).unwrap();
        for line in ["one\n", "two\n", "three\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!((read(&path).as_str(), read(&aside).as_str()), ("three\n", "one\ntwo\n"));
        // Another process goes on where the first one ended.
        let mut log = BoundedFile::with_limit(&path, 10).unwrap();
        log.write_all(b"longer than ten\n").unwrap();
        assert_eq!((read(&path).as_str(), read(&aside).as_str()), ("longer than ten\n", "three\n"));
    }
}
