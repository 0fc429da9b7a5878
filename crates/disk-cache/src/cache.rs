//! The disk cache of one identity, as a server uses it.
use crate::chains::ChainSummary;
use crate::error::DiskError;
use crate::file::{CellFile, OpenFile};
use crate::folder::{DayWrites, Folder, LEDGER_BYTES, folder_bytes};
use crate::format::Geometry;
use crate::inspect::chains_of_file;
use crate::options::{DiskContents, DiskLimit, DiskOptions, Tuning, free_bytes};
use crate::reader::{DiskRead, ReadJob, run as run_reader};
use crate::room::{delete_empty, trim, unused_files};
use crate::state::{Shared, State};
use crate::value::{DiskValueKind, OfferedValue};
use crate::writer::Writer;
use kv::BlockKey;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long [`DiskCache::clear`] waits for the writer.
const CLEAR_PATIENCE: Duration = Duration::from_secs(20);

/// The outcome of [`DiskCache::offer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// The value waits to be written, and can be read from now on.
    Staged,
    /// The value is there already, or waits already.
    Present,
    /// Too many bytes wait to be written.
    Full,
    /// The day's budget of bytes is used up.
    BudgetSpent,
    /// The value is larger than the limit allows, or than all that may wait.
    TooLarge,
    /// Writing is paused.
    Paused,
    /// Writing failed a short time ago, or the cache closes.
    Off,
}

/// Whether offered values are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskWriteState {
    /// Values are written.
    On,
    /// Writing is paused by [`DiskCache::pause`].
    Paused,
    /// Writing failed for this reason; it is tried again from time to time.
    Failed(String),
}

/// Numbers for metrics and lists.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskStats {
    /// How many values the file holds.
    pub values: u64,
    /// The bytes of these values.
    pub bytes: u64,
    /// The size of the file.
    pub file_bytes: u64,
    /// The largest size of all files of the folder together.
    pub limit: u64,
    /// How many bytes were written today, by all processes that use the folder, as of this one's last write.
    pub written_today: u64,
    /// How many bytes may be written in a day.
    pub writes_per_day: u64,
    /// How many bytes wait to be written.
    pub staged_bytes: u64,
    /// How many values were asked for and given.
    pub values_given: u64,
    /// How many values were asked for and not given: they were missing, damaged, or came after such a one.
    pub values_missing: u64,
    /// How many values were not as they were written. Each was deleted.
    pub damaged: u64,
    /// How many offers were refused.
    pub refused: u64,
    /// How fast values are read and checked, as measured lately.
    pub read_bytes_per_second: Option<f64>,
    /// Whether offered values are written.
    pub write_state: DiskWriteState,
}

/// Blocks and snapshots of one identity on disk. An error after [`DiskCache::open`] makes values missing at worst, and
/// is logged.
pub struct DiskCache {
    shared: Arc<Shared>,
    jobs: Option<mpsc::Sender<ReadJob>>,
    threads: Vec<JoinHandle<()>>,
}

impl DiskCache {
    /// Opens the identity's file in the folder, or begins it, and starts the threads that write and read. Where the
    /// files are larger than the limit, what was used longest ago is deleted first.
    pub fn open(options: &DiskOptions, contents: &DiskContents) -> Result<Self, DiskError> {
        Self::open_tuned(options, contents, Tuning::default())
    }

    pub(crate) fn open_tuned(
        options: &DiskOptions,
        contents: &DiskContents,
        tuning: Tuning,
    ) -> Result<Self, DiskError> {
        let dir = &options.dir;
        Folder::create(dir)?;
        let free = if options.limit == DiskLimit::Auto { free_bytes(dir)? } else { 0 };
        let limit = options.limit.bytes(dir, free, folder_bytes(dir)?)?;
        let least = Geometry::for_blocks(contents.block_bytes).file_bytes(1) + LEDGER_BYTES as u64;
        if limit < least {
            return Err(DiskError::LimitTooSmall { limit, least });
        }
        let day = tuning.day();
        let mut own = CellFile::open(dir, contents)?;
        let written = keep_limit(dir, limit, &mut own, day)?;
        let (values, bytes) = (own.index.values().len(), own.index.bytes());
        let path = own.file.path().display();
        tracing::info!("disk cache {path}: {values} values, {bytes} bytes; limit {limit} bytes");
        let mut state = State::new(own);
        state.written = written;
        let shared = Arc::new(Shared::new(options.clone(), contents.clone(), limit, tuning, state));
        let (jobs, received) = mpsc::channel();
        let mut cache = DiskCache { shared, jobs: Some(jobs), threads: Vec::new() };
        let shared = cache.shared.clone();
        cache.start("disk-cache-writer", move || Writer::new(&shared).run())?;
        let shared = cache.shared.clone();
        cache.start("disk-cache-reader", move || run_reader(&shared, &received))?;
        Ok(cache)
    }

    fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), DiskError> {
        let thread = std::thread::Builder::new().name(name.to_string()).spawn(work);
        self.threads.push(thread.map_err(DiskError::io("starting a thread for", &self.shared.options.dir))?);
        Ok(())
    }

    /// Whether a value is there, or waits to be written. The index in memory is asked, never the disk.
    pub fn contains(&self, kind: DiskValueKind, key: BlockKey) -> bool {
        self.shared.state().holds(&kind.id(key))
    }

    /// How many of these values, counted from the first up to one that is missing, are in the file or wait to be
    /// written. The disk is not asked.
    pub fn present_from_first(&self, kind: DiskValueKind, keys: &[BlockKey]) -> usize {
        let state = self.shared.state();
        keys.iter().take_while(|key| state.holds(&kind.id(**key))).count()
    }

    /// Offers a value, which is written behind, or refused. Never waits for the disk.
    pub fn offer(&self, value: OfferedValue) -> Offered {
        let day = self.shared.tuning.day();
        let mut state = self.shared.state();
        let (size, most) = (value.bytes.len(), self.shared.tuning.staging_bytes);
        let geometry = state.file.geometry();
        let most_cells = geometry.cells_in(self.shared.limit - LEDGER_BYTES as u64);
        let offered = if state.holds(&value.id()) {
            return Offered::Present;
        } else if state.closing.is_some() || state.failure.as_ref().is_some_and(|f| Instant::now() < f.retry_at) {
            Offered::Off
        } else if state.paused {
            Offered::Paused
        } else if state.spent_day == Some(day) {
            Offered::BudgetSpent
        } else if size > most || geometry.cells_of_value(size as u64) > u64::from(most_cells) {
            Offered::TooLarge
        } else if state.staging.bytes() + size > most {
            Offered::Full
        } else {
            Offered::Staged
        };
        if offered == Offered::Staged {
            state.staging.push(value);
            self.shared.wake();
        } else {
            state.refused += 1;
        }
        offered
    }

    /// Reads the values of these keys in order, up to the first that is not there or is damaged, on the reader's
    /// thread, where `reply` is called with them. It is called in any case, also where the cache closes before.
    /// All values of a call are in memory together, so many are better read in several calls.
    pub fn read(&self, kind: DiskValueKind, keys: Vec<BlockKey>, reply: impl FnOnce(DiskRead) + Send + 'static) {
        let job = ReadJob { kind, keys, reply: Some(Box::new(reply)) };
        if let Some(jobs) = &self.jobs {
            // A job that cannot be sent is dropped, and replies then.
            let _ = jobs.send(job);
        }
    }

    /// Notes that these values were used elsewhere, such as in memory, so that they are not the next to be deleted.
    /// A read counts as a use by itself. A value's parents are never deleted before it, so they need not be named.
    pub fn touch(&self, kind: DiskValueKind, keys: &[BlockKey]) {
        let mut state = self.shared.state();
        let stamp = state.index.stamp(self.shared.tuning.micros());
        for key in keys {
            state.index.touch(&kind.id(*key), stamp);
        }
    }

    /// Stops or resumes writing, such as under memory pressure. What waits to be written is dropped when it stops,
    /// since it takes memory.
    pub fn pause(&self, paused: bool) {
        let mut state = self.shared.state();
        state.paused = paused;
        if paused {
            state.refused += state.staging.clear();
        }
        drop(state);
        self.shared.wake();
    }

    /// Waits until all that was offered is written, at most for `time`. Returns whether it is.
    pub fn flush(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.shared.state();
        while !state.staging.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.wait(state, left);
        }
        true
    }

    /// Deletes all values: those of this cache, and those of other identities that no process uses.
    pub fn clear(&self) -> Result<(), DiskError> {
        let (sender, done) = mpsc::channel();
        self.shared.state().clearing.push(sender);
        self.shared.wake();
        crate::inspect::clear(&self.shared.options.dir)?;
        done.recv_timeout(CLEAR_PATIENCE).map_err(|_| {
            let path = self.shared.state().file.path().to_path_buf();
            DiskError::Busy { path, seconds: CLEAR_PATIENCE.as_secs() }
        })
    }

    /// The chains of this cache, as [`crate::list`] tells them of a folder. They are read from the file, for seconds at
    /// worst, so that nobody else has to wait; uses of the last half minute may be missing.
    pub fn chains(&self) -> Vec<ChainSummary> {
        let path = self.shared.state().file.path().to_path_buf();
        chains_of_file(&path)
    }

    /// Numbers for metrics and lists.
    pub fn stats(&self) -> DiskStats {
        let day = self.shared.tuning.day();
        let state = self.shared.state();
        DiskStats {
            values: state.index.values().len() as u64,
            bytes: state.index.bytes(),
            file_bytes: state.file.geometry().file_bytes(state.index.cells()),
            limit: self.shared.limit,
            written_today: state.written.on(day),
            writes_per_day: self.shared.options.writes_per_day,
            staged_bytes: state.staging.bytes() as u64,
            values_given: state.values_given,
            values_missing: state.values_missing,
            damaged: state.damaged,
            refused: state.refused,
            read_bytes_per_second: state.read_bytes_per_second,
            write_state: match &state.failure {
                Some(failure) => DiskWriteState::Failed(failure.reason.clone()),
                None if state.paused => DiskWriteState::Paused,
                None => DiskWriteState::On,
            },
        }
    }

    /// Writes what waits for at most `time`, and ends the threads. Returns whether all was written.
    pub fn close(mut self, time: Duration) -> bool {
        self.end(time);
        self.shared.state().staging.is_empty()
    }

    fn end(&mut self, time: Duration) {
        self.shared.state().closing = Some(Instant::now() + time);
        self.shared.wake();
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::warn!("a thread of the disk cache ended by a panic");
            }
        }
    }
}

impl Drop for DiskCache {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// Deletes the values that were used longest ago, of any identity that no other process has, while the files are larger
/// than the limit. Returns how many bytes were written on this day.
fn keep_limit(dir: &Path, limit: u64, own: &mut OpenFile, day: u64) -> Result<DayWrites, DiskError> {
    let folder = Folder::lock(dir)?;
    let excess = folder.bytes()?.saturating_sub(limit);
    if excess == 0 {
        return Ok(DayWrites { day, bytes: folder.written_on(day) });
    }
    let mut others = unused_files(dir, own.file.path())?;
    let files = others.iter_mut().chain([own]);
    let bytes = trim(files, excess, u64::MAX).map_err(DiskError::io("making room in", dir))?;
    let written = folder.note_written(day, bytes)?;
    delete_empty(others)?;
    Ok(written)
}
