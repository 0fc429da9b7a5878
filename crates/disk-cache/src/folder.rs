//! The folder, which several processes may use: its lock, its size, and how much was written today.
use crate::error::DiskError;
use crate::file::EXTENSION;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The name of the file that is locked while room is made or taken, and in which today's written bytes are noted.
const LEDGER: &str = "writes";
/// The ledger's bytes: day, bytes written in it, checksum.
pub(crate) const LEDGER_BYTES: usize = 24;
/// How long the lock is waited for. Others hold it for as long as it takes to make room.
const PATIENCE: Duration = Duration::from_secs(3);

/// A day and the bytes that were written in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DayWrites {
    /// Days since 1970, in UTC.
    pub day: u64,
    pub bytes: u64,
}

impl DayWrites {
    /// Returns how many bytes were written on `day`: none, if these are another day's.
    pub fn on(self, day: u64) -> u64 {
        if self.day == day { self.bytes } else { 0 }
    }
}

/// The folder, locked. Files grow under this lock alone, so that their sizes together stay below the limit.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    ledger: File,
}

impl Folder {
    /// Makes the folder where it is missing.
    pub fn create(dir: &Path) -> Result<(), DiskError> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(DiskError::io("making the folder", dir))
    }

    /// Locks the folder, which must be there.
    pub fn lock(dir: &Path) -> Result<Self, DiskError> {
        let path = dir.join(LEDGER);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let ledger = options.open(&path).map_err(DiskError::io("opening", &path))?;
        let begin = Instant::now();
        loop {
            match ledger.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(DiskError::io("locking", &path)(error)),
                Err(TryLockError::WouldBlock) if begin.elapsed() > PATIENCE => {
                    return Err(DiskError::Busy { path, seconds: PATIENCE.as_secs() });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        let folder = Folder { dir: dir.to_path_buf(), ledger };
        // The ledger has its size before any file grows into the room that it takes.
        if folder.read().is_none() {
            folder.write(DayWrites::default())?;
        }
        Ok(folder)
    }

    /// The bytes of all files in the folder.
    pub fn bytes(&self) -> Result<u64, DiskError> {
        folder_bytes(&self.dir)
    }

    /// How many bytes were written on this day.
    pub fn written_on(&self, day: u64) -> u64 {
        self.read().map_or(0, |noted| noted.on(day))
    }

    /// Notes that `bytes` more are written on this day; returns the day's bytes with them.
    pub fn note_written(&self, day: u64, bytes: u64) -> Result<DayWrites, DiskError> {
        let writes = DayWrites { day, bytes: self.written_on(day).saturating_add(bytes) };
        self.write(writes)?;
        Ok(writes)
    }

    /// Reads the ledger; `None` if nothing is noted in it, or it is damaged.
    fn read(&self) -> Option<DayWrites> {
        let mut bytes = [0; LEDGER_BYTES];
        self.ledger.read_exact_at(&mut bytes, 0).ok()?;
        let noted = DayWrites {
            day: u64::from_le_bytes(*bytes.first_chunk()?),
            bytes: u64::from_le_bytes(*bytes[8..].first_chunk()?),
        };
        (encode(noted) == bytes).then_some(noted)
    }

    fn write(&self, noted: DayWrites) -> Result<(), DiskError> {
        let written = self.ledger.write_all_at(&encode(noted), 0);
        written.map_err(DiskError::io("writing", &self.dir.join(LEDGER)))
    }
}

fn encode(noted: DayWrites) -> [u8; LEDGER_BYTES] {
    let mut bytes = [0; LEDGER_BYTES];
    bytes[..8].copy_from_slice(&noted.day.to_le_bytes());
    bytes[8..16].copy_from_slice(&noted.bytes.to_le_bytes());
    let checksum = blake3::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&checksum.as_bytes()[..8]);
    bytes
}

/// The bytes of all files in a folder.
pub(crate) fn folder_bytes(dir: &Path) -> Result<u64, DiskError> {
    let mut sum = 0;
    for file in std::fs::read_dir(dir).map_err(DiskError::io("reading", dir))? {
        let file = file.map_err(DiskError::io("reading", dir))?;
        match file.metadata() {
            Ok(data) if data.is_file() => sum += data.len(),
            Ok(_) => {}
            // Another process may delete a file at any moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(DiskError::io("asking for the size of", &file.path())(error)),
        }
    }
    Ok(sum)
}

/// The identities' files in a folder, in order; none where there is no folder.
pub(crate) fn cache_files(dir: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let files = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(DiskError::io("reading", dir))?,
    };
    let mut paths = Vec::new();
    for file in files {
        let path = file.map_err(DiskError::io("reading", dir))?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
