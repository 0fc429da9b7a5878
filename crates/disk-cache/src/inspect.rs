//! The operations of a command line on a folder, whether a server runs or not.
use crate::chains::{ChainSummary, chains_of};
use crate::error::DiskError;
use crate::file::{CellFile, Checked, OpenFile};
use crate::folder::{Folder, cache_files};
use std::path::{Path, PathBuf};

/// The result of [`verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// How many values were read.
    pub values: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them were damaged, and are deleted.
    pub damaged: u64,
    /// Files that were damaged as a whole, and are deleted.
    pub damaged_files: Vec<PathBuf>,
    /// Files that other processes use, which were not read.
    pub in_use: Vec<PathBuf>,
}

/// The result of [`clear`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClearReport {
    /// How many files were deleted.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that other processes use, which stay.
    pub in_use: Vec<PathBuf>,
}

/// Lists the chains of all identities in a folder, the one used last first. Files that a process uses are listed as far
/// as it has written them.
pub fn list(dir: &Path) -> Result<Vec<ChainSummary>, DiskError> {
    let mut chains: Vec<_> = cache_files(dir)?.iter().flat_map(|path| chains_of_file(path)).collect();
    chains.sort_by_key(|chain| std::cmp::Reverse(chain.last_used));
    Ok(chains)
}

/// The chains of a file; none where it cannot be read.
pub(crate) fn chains_of_file(path: &Path) -> Vec<ChainSummary> {
    match CellFile::open_to_list(path) {
        Ok(open) => chains_of(open.file.identity(), open.file.label(), &open.index),
        Err(error) => {
            tracing::debug!("not listed: {error}");
            Vec::new()
        }
    }
}

/// Deletes the files of all identities that no process uses.
pub fn clear(dir: &Path) -> Result<ClearReport, DiskError> {
    let mut report = ClearReport::default();
    if cache_files(dir)?.is_empty() {
        return Ok(report);
    }
    let _folder = Folder::lock(dir)?;
    for path in cache_files(dir)? {
        let bytes = std::fs::metadata(&path).map_or(0, |data| data.len());
        match CellFile::open_existing(&path) {
            Ok(open) => open.file.delete()?,
            Err(DiskError::Damaged { .. }) => delete(&path)?,
            Err(DiskError::Locked { .. }) => {
                report.in_use.push(path);
                continue;
            }
            Err(error) if error.is_missing() => continue,
            Err(error) => return Err(error),
        }
        report.files += 1;
        report.bytes += bytes;
    }
    Ok(report)
}

/// Reads all values of the files that no process uses, and deletes those that are not as they were written.
pub fn verify(dir: &Path) -> Result<VerifyReport, DiskError> {
    let mut report = VerifyReport::default();
    for path in cache_files(dir)? {
        match CellFile::open_existing(&path) {
            Ok(open) => verify_file(open, &mut report)?,
            Err(DiskError::Locked { .. }) => report.in_use.push(path),
            Err(DiskError::Damaged { .. }) => {
                delete(&path)?;
                report.damaged_files.push(path);
            }
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

fn verify_file(open: OpenFile, report: &mut VerifyReport) -> Result<(), DiskError> {
    let OpenFile { file, mut index } = open;
    // Headers that are not valid belonged to a value once.
    let mut discarded = index.take_discarded();
    for value in index.values().values() {
        report.values += 1;
        report.bytes += value.len;
        if !matches!(file.read_value(value), Ok(Checked::Whole(_))) {
            report.damaged += 1;
            discarded.extend_from_slice(&value.cells);
        }
    }
    file.erase(&discarded).map_err(DiskError::io("writing", file.path()))?;
    Ok(())
}

fn delete(path: &Path) -> Result<(), DiskError> {
    std::fs::remove_file(path).map_err(DiskError::io("deleting", path))
}
