//! Errors of this crate.
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why there is no disk cache, or why it cannot be written at the moment.
#[derive(Debug, Error)]
pub enum DiskError {
    /// Another process has the identity's file.
    #[error("{} is in use by another process; one process at a time keeps an identity's blocks", path.display())]
    Locked {
        /// The identity's file.
        path: PathBuf,
    },
    /// The limit leaves no room for a single block.
    #[error("--kv-disk-cache is {limit} bytes; a block of this model needs at least {least}")]
    LimitTooSmall {
        /// The limit.
        limit: u64,
        /// The least that is useful.
        least: u64,
    },
    /// The automatic limit is nothing, because the disk is nearly full.
    #[error(
        "{} has {free} bytes free, and the disk cache is off below {least}; --kv-disk-cache SIZE turns it on",
        dir.display()
    )]
    NoRoom {
        /// The folder.
        dir: PathBuf,
        /// How many bytes would be free if the cache were empty.
        free: u64,
        /// How many bytes must be free.
        least: u64,
    },
    /// The identity's file, or its folder, was removed or replaced while it was in use.
    #[error("{} was removed or replaced", path.display())]
    Gone {
        /// The identity's file.
        path: PathBuf,
    },
    /// A file that is not a cache of this program, or whose first page is damaged.
    #[error("{} is not a cache of this version, or its first page is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Another process holds the folder's lock for long, or the cache does not come to its orders.
    #[error("{} is busy for more than {seconds} s", path.display())]
    Busy {
        /// The file or folder that was waited for.
        path: PathBuf,
        /// The time that was waited, in seconds.
        seconds: u64,
    },
    /// The operating system refuses an operation.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// The operation, in words such as `reading`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

impl DiskError {
    /// Whether a file is not there: another process may delete one at any moment.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, DiskError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Returns a function that makes an error of the operating system's, for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
        move |source| DiskError::Io { action, path: path.to_path_buf(), source }
    }
}
