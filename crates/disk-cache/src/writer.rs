//! The writer's thread: values from the staging queue go to the file, within the limit and the day's budget.
use crate::error::DiskError;
use crate::file::{CellFile, OpenFile};
use crate::folder::Folder;
use crate::format::HEADER_BYTES;
use crate::index::ValueRecord;
use crate::room::{delete_empty, trim, unused_files};
use crate::state::{Shared, State, WriteFailure};
use crate::value::OfferedValue;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many bytes are written between two looks at the limits, where the limit is not small.
const BATCH_BYTES: u64 = 8 << 20;
/// How much room is made in other files at once, since each must be opened for it.
const TRIM_BYTES: u64 = 64 << 20;
/// A failure is logged as a warning at most once in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(3600);
/// After other files were found to hold nothing older than this one, they are not opened again for this long.
const OTHERS_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// The most ids in [`State::beyond`]; when it is full, it is emptied.
const MOST_BEYOND: usize = 1 << 16;

pub(crate) struct Writer<'a> {
    shared: &'a Shared,
    tidied: Instant,
    others: Option<OthersCheck>,
    /// When a failure was logged as a warning last.
    warned: Option<Instant>,
}

/// The last look at other identities' files.
struct OthersCheck {
    at: Instant,
    /// The stamp of use of the value there that is deleted first; `u64::MAX` if there is none.
    oldest_use: u64,
}

enum WriterTask {
    Write(Vec<Arc<OfferedValue>>),
    Tidy,
    Clear,
    End,
}

impl<'a> Writer<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Writer { shared, tidied: Instant::now(), others: None, warned: None }
    }

    /// Works until the cache closes.
    pub fn run(mut self) {
        loop {
            let result = match self.next_task() {
                WriterTask::Write(values) => self.write(&values),
                WriterTask::Tidy => self.tidy(),
                WriterTask::Clear => self.clear(),
                WriterTask::End => break,
            };
            if let Err(error) = result {
                self.failed(&error);
            }
            self.shared.wake();
        }
        if let Err(error) = self.tidy() {
            tracing::debug!("when values were used last is not noted: {error}");
        }
    }

    fn next_task(&self) -> WriterTask {
        let mut state = self.shared.state();
        loop {
            if !state.clearing.is_empty() {
                return WriterTask::Clear;
            }
            if !state.paused && !is_late(&state) && !state.staging.is_empty() {
                let bytes = BATCH_BYTES.min(self.shared.limit / 16);
                return WriterTask::Write(state.staging.next(bytes as usize));
            }
            if state.closing.is_some() {
                return WriterTask::End;
            }
            let tidy_due = self.tidied.elapsed() >= self.shared.tuning.tidy_after;
            if tidy_due
                && !state.paused
                && state.failure.is_none()
                && (state.index.any_stale_stamps() || state.index.any_discarded())
            {
                return WriterTask::Tidy;
            }
            state = self.shared.wait(state, self.shared.tuning.tidy_after);
        }
    }

    /// Writes these values, as far as the limits let it.
    fn write(&mut self, values: &[Arc<OfferedValue>]) -> Result<(), DiskError> {
        self.reopen_if_gone()?;
        self.erase_discarded()?;
        let file = self.shared.state().file.clone();
        let values = self.prepare(&file, values)?;
        for value in values {
            if is_late(&self.shared.state()) {
                break;
            }
            self.write_value(&file, value)?;
            self.shared.wake();
        }
        Ok(())
    }

    /// Notes how many bytes will be written, and makes the file as large as the values need it and the limit allows.
    /// Returns the values that the day's budget has room for; the others are refused.
    fn prepare<'e>(
        &mut self,
        file: &CellFile,
        values: &'e [Arc<OfferedValue>],
    ) -> Result<&'e [Arc<OfferedValue>], DiskError> {
        let folder = Folder::lock(&self.shared.options.dir)?;
        let day = self.shared.tuning.day();
        let left = self.shared.options.writes_per_day.saturating_sub(folder.written_on(day));
        let (mut count, mut bytes, mut cells) = (0, 0, 0);
        for value in values {
            let cells_of_value = file.geometry().cells_of_value(value.bytes.len() as u64);
            // Each cell's header costs two writes: one erased the value that was there before, one writes this value's.
            let cost = value.bytes.len() as u64 + 2 * cells_of_value * HEADER_BYTES as u64;
            if bytes + cost > left {
                self.spent(day);
                break;
            }
            (count, bytes, cells) = (count + 1, bytes + cost, cells + cells_of_value);
        }
        bytes += self.grow(&folder, file, cells, left - bytes)?;
        let written = folder.note_written(day, bytes)?;
        self.shared.state().written = written;
        Ok(&values[..count])
    }

    /// Makes the file larger, so that `need` cells are free. Where the limit does not allow that, deletes values from
    /// other identities' files, but only such as were used before every value of this file. Returns how many bytes were
    /// written for that, `left` at most.
    fn grow(&mut self, folder: &Folder, file: &CellFile, need: u64, left: u64) -> Result<u64, DiskError> {
        let (cells, free, oldest) = {
            let state = self.shared.state();
            (state.index.cells(), state.index.free_cells() as u64, state.index.oldest(None))
        };
        let wanted = u32::try_from(u64::from(cells) + need.saturating_sub(free)).unwrap_or(u32::MAX);
        if wanted == cells {
            return Ok(0);
        }
        let geometry = file.geometry();
        let own = geometry.file_bytes(cells);
        let allowed = || -> Result<u32, DiskError> {
            let others = folder.bytes()?.saturating_sub(own);
            Ok(geometry.cells_in(self.shared.limit.saturating_sub(others)))
        };
        let mut written = 0;
        let mut most = allowed()?;
        let own_oldest_use = oldest.map_or(u64::MAX, |(_, last_used)| last_used);
        let futile = self
            .others
            .as_ref()
            .is_some_and(|check| check.at.elapsed() < OTHERS_CHECK_INTERVAL && check.oldest_use >= own_oldest_use);
        if most < wanted && !futile {
            let lacking = geometry.file_bytes(wanted) - geometry.file_bytes(most.min(wanted));
            let goal = lacking.max(TRIM_BYTES.min(self.shared.limit / 8));
            // Making the files smaller by `goal` bytes moves at most `goal` bytes, so the budget holds if `goal` is
            // within it.
            if goal <= left {
                let mut files = unused_files(&self.shared.options.dir, file.path())?;
                written += trim(&mut files, goal, own_oldest_use)
                    .map_err(DiskError::io("making room in", &self.shared.options.dir))?;
                let oldest = files.iter().filter_map(|open| open.index.oldest(None));
                let oldest_use = oldest.map(|(_, last_used)| last_used).min().unwrap_or(u64::MAX);
                self.others = Some(OthersCheck { at: Instant::now(), oldest_use });
                delete_empty(files)?;
                most = allowed()?;
            }
        }
        let cells_then = wanted.min(most).max(cells);
        if cells_then > cells {
            written += file.resize(cells, cells_then).map_err(DiskError::io("enlarging", file.path()))?;
            self.shared.state().index.resize(cells_then);
        }
        Ok(written)
    }

    /// Writes a value into free cells, unless it is refused.
    fn write_value(&self, file: &CellFile, value: &Arc<OfferedValue>) -> Result<(), DiskError> {
        let Some(cells) = self.take_cells(file, value)? else { return Ok(()) };
        let record = ValueRecord {
            parent: value.parent,
            tokens: value.tokens,
            len: value.bytes.len() as u64,
            hash: *blake3::hash(&value.bytes).as_bytes(),
            last_used: self.shared.state().index.stamp(self.shared.tuning.micros()),
            cells,
        };
        let id = value.id();
        let result = file.write_value(id, &record, &value.bytes);
        let mut state = self.shared.state();
        if result.is_err() || !is_staged(&state, value) {
            state.index.discard(&record.cells);
        } else {
            state.index.insert(id, record);
            state.beyond.remove(&id);
            state.staging.remove(&id);
            if state.failure.take().is_some() {
                tracing::info!("the disk cache is written again");
            }
        }
        result.map(|_| ()).map_err(DiskError::io("writing", file.path()))
    }

    /// Takes cells for a value. While too few are free, the value used longest ago is deleted, except this value's
    /// parent. Returns `None` if the offer is refused or no longer waits.
    fn take_cells(&self, file: &CellFile, value: &Arc<OfferedValue>) -> Result<Option<Box<[u32]>>, DiskError> {
        let (id, parent) = (value.id(), value.parent_id());
        let count = file.geometry().cells_of_value(value.bytes.len() as u64);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        loop {
            let mut state = self.shared.state();
            if !is_staged(&state, value) {
                return Ok(None);
            }
            if let Some(cells) = state.index.take_cells(count) {
                return Ok(Some(cells));
            }
            let useless = state.index.get(&parent).is_none() && state.beyond.contains(&parent);
            let oldest = if useless { None } else { state.index.oldest(Some(parent)) };
            let Some(evicted) = oldest.and_then(|(oldest, _)| state.index.remove(&oldest)) else {
                if state.beyond.len() >= MOST_BEYOND {
                    state.beyond.clear();
                }
                state.beyond.insert(id);
                state.staging.remove(&id);
                state.refused += 1;
                return Ok(None);
            };
            drop(state);
            let erased = file.erase(&evicted.cells);
            let mut state = self.shared.state();
            match erased {
                Ok(_) => state.index.release(&evicted.cells),
                Err(error) => {
                    state.index.discard(&evicted.cells);
                    return Err(DiskError::io("writing", file.path())(error));
                }
            }
        }
    }

    /// Erases the headers of discarded cells, and notes when values were used last.
    fn tidy(&mut self) -> Result<(), DiskError> {
        self.tidied = Instant::now();
        self.erase_discarded()?;
        let (file, records) = {
            let mut state = self.shared.state();
            let ids = state.index.take_stale_stamps();
            let record = |id| state.index.get(&id).map(|record| (id, record.clone()));
            (state.file.clone(), ids.into_iter().filter_map(record).collect::<Vec<_>>())
        };
        if records.is_empty() {
            return Ok(());
        }
        let folder = Folder::lock(&self.shared.options.dir)?;
        let (day, bytes) = (self.shared.tuning.day(), (records.len() * HEADER_BYTES) as u64);
        if folder.written_on(day).saturating_add(bytes) > self.shared.options.writes_per_day {
            return Ok(());
        }
        let written = folder.note_written(day, bytes)?;
        drop(folder);
        self.shared.state().written = written;
        for (id, record) in records {
            // Only this thread writes, so the value still has its cells, unless it is found damaged at this moment.
            file.write_header(id, &record, 0).map_err(DiskError::io("writing", file.path()))?;
        }
        Ok(())
    }

    fn erase_discarded(&self) -> Result<(), DiskError> {
        let (file, cells) = {
            let mut state = self.shared.state();
            (state.file.clone(), state.index.take_discarded())
        };
        let erased = file.erase(&cells);
        let mut state = self.shared.state();
        match erased {
            Ok(_) => state.index.release(&cells),
            Err(_) => state.index.discard(&cells),
        }
        erased.map(|_| ()).map_err(DiskError::io("writing", file.path()))
    }

    /// Deletes all values, those that wait to be written too.
    fn clear(&self) -> Result<(), DiskError> {
        let (file, cells, waiting) = {
            let mut state = self.shared.state();
            state.staging.clear();
            state.beyond.clear();
            let cells = std::mem::take(&mut state.index).cells();
            (state.file.clone(), cells, std::mem::take(&mut state.clearing))
        };
        file.resize(cells, 0).map_err(DiskError::io("emptying", file.path()))?;
        for sender in waiting {
            // Whoever asked may have given up.
            let _ = sender.send(());
        }
        Ok(())
    }

    /// Begins a new file if the old one was removed while it was open. Errors: [`DiskError::Gone`] at the first call
    /// that finds it removed.
    fn reopen_if_gone(&self) -> Result<(), DiskError> {
        let (file, failing) = {
            let state = self.shared.state();
            (state.file.clone(), state.failure.is_some())
        };
        if file.is_in_place() {
            return Ok(());
        }
        if !failing {
            return Err(DiskError::Gone { path: file.path().to_path_buf() });
        }
        Folder::create(&self.shared.options.dir)?;
        let OpenFile { file, index } = CellFile::open(&self.shared.options.dir, &self.shared.contents)?;
        let mut state = self.shared.state();
        (state.file, state.index) = (Arc::new(file), index);
        state.beyond.clear();
        Ok(())
    }

    fn failed(&mut self, error: &DiskError) {
        let mut state = self.shared.state();
        state.refused += state.staging.clear();
        let failure =
            WriteFailure { reason: error.to_string(), retry_at: Instant::now() + self.shared.tuning.retry_after };
        state.failure = Some(failure);
        drop(state);
        if self.warned.is_none_or(|when| when.elapsed() > WARNING_INTERVAL) {
            self.warned = Some(Instant::now());
            tracing::warn!("the disk cache is not written for now: {error}");
        } else {
            tracing::debug!("the disk cache cannot be written again: {error}");
        }
    }

    fn spent(&self, day: u64) {
        let mut state = self.shared.state();
        state.refused += state.staging.clear();
        if state.spent_day.replace(day) != Some(day) {
            let budget = self.shared.options.writes_per_day;
            tracing::info!(
                "the disk cache is not written until midnight UTC: --kv-disk-writes-per-day is {budget} bytes"
            );
        }
    }
}

fn is_late(state: &State) -> bool {
    state.closing.is_some_and(|until| Instant::now() >= until)
}

/// Whether this very offer still waits to be written, and the file does not hold the value already.
fn is_staged(state: &State, value: &Arc<OfferedValue>) -> bool {
    let id = value.id();
    state.index.get(&id).is_none() && state.staging.get(&id).is_some_and(|staged| Arc::ptr_eq(staged, value))
}
