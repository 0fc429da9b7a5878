//! The options that a disk cache is opened with: its folder, its limits, whose blocks it holds.
use crate::error::DiskError;
use kv::CacheIdentity;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const GIB: u64 = 1 << 30;
/// The automatic limit is at most this.
const AUTO_MOST: u64 = 8 * GIB;
/// The automatic limit is nothing where less is free.
const AUTO_LEAST_FREE: u64 = 10 * GIB;

/// Where the disk cache lies, and how much of the disk it may use and wear.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// The folder. It is made where it does not exist, and holds nothing else.
    pub dir: PathBuf,
    /// The largest size of all files in the folder together.
    pub limit: DiskLimit,
    /// How many bytes are written in a day (UTC) at most, by all processes that use the folder together.
    pub writes_per_day: u64,
}

/// The largest size of all files of the folder together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskLimit {
    /// A tenth of what would be free if the cache were empty, at most 8 GiB; nothing if that is below 10 GiB.
    Auto,
    /// This many bytes.
    Bytes(u64),
}

impl DiskLimit {
    /// The limit in bytes, where `free` bytes of the disk are free and the folder's files have `held` bytes.
    pub(crate) fn bytes(self, dir: &Path, free: u64, held: u64) -> Result<u64, DiskError> {
        match self {
            DiskLimit::Bytes(bytes) => Ok(bytes),
            DiskLimit::Auto => {
                let free = free.saturating_add(held);
                if free < AUTO_LEAST_FREE {
                    return Err(DiskError::NoRoom { dir: dir.to_path_buf(), free, least: AUTO_LEAST_FREE });
                }
                Ok((free / 10).min(AUTO_MOST))
            }
        }
    }
}

/// Returns how many bytes of the folder's disk this user may still fill.
pub(crate) fn free_bytes(dir: &Path) -> Result<u64, DiskError> {
    let disk = rustix::fs::statvfs(dir).map_err(|error| DiskError::Io {
        action: "asking for the free room of",
        path: dir.to_path_buf(),
        source: error.into(),
    })?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whose blocks a file holds.
#[derive(Clone, Debug)]
pub struct DiskContents {
    /// The hash of all that decides the bits of the blocks. Each identity has a file of its own.
    pub identity: CacheIdentity,
    /// How people know the identity.
    pub label: CacheLabel,
    /// The bytes of one block, as all values of kind [`crate::DiskValueKind::Block`] have. The file is divided into
    /// cells of this size, rounded up a little; a value of another size is cut into several.
    pub block_bytes: usize,
}

/// How people know an identity. It is stored for lists, and decides nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheLabel {
    /// The model's name.
    pub model: String,
    /// The K and V formats, in words.
    pub formats: String,
}

/// How many bytes of offered values wait in memory at most.
pub const STAGING_BYTES: usize = 64 << 20;

/// Settings that only tests change.
#[derive(Clone)]
pub(crate) struct Tuning {
    /// The time.
    pub now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// How long nothing is written after an error.
    pub retry_after: Duration,
    /// How many bytes of offered values wait in memory at most.
    pub staging_bytes: usize,
    /// After what time new stamps of use are written to the file.
    pub tidy_after: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            now: Arc::new(SystemTime::now),
            retry_after: Duration::from_secs(60),
            staging_bytes: STAGING_BYTES,
            tidy_after: Duration::from_secs(30),
        }
    }
}

impl Tuning {
    /// Microseconds since 1970.
    pub fn micros(&self) -> u64 {
        let since = (self.now)().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// Days since 1970, in UTC.
    pub fn day(&self) -> u64 {
        self.micros() / (86_400 * 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_automatic_limit_is_a_tenth_and_at_most_8_gib() {
        let auto = |free, held| DiskLimit::Auto.bytes(Path::new("/x"), free, held).ok();
        assert_eq!(auto(50 * GIB, 0), Some(5 * GIB));
        assert_eq!(auto(45 * GIB, 5 * GIB), Some(5 * GIB), "what the cache holds itself does not make it smaller");
        assert_eq!(auto(1000 * GIB, 0), Some(8 * GIB));
        assert_eq!(auto(10 * GIB - 1, 0), None);
        assert_eq!(DiskLimit::Bytes(7).bytes(Path::new("/x"), 0, 0).ok(), Some(7));
    }
}
