//! The writer's thread: values from the staging queue go to the file, within the limit and the day's budget.
use crate::entry::DiskEntry;
use crate::error::DiskError;
use crate::file::CellFile;
use crate::folder::Folder;
use crate::format::HEADER_BYTES;
use crate::index::StoredValue;
use crate::room::{delete_empty, trim, unused_files};
use crate::state::{Shared, State, WriteFailure};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many bytes are written between two looks at the limits, where the limit is not small.
const BATCH_BYTES: u64 = 8 << 20;
/// How much room is made in other files at once, since each must be opened for it.
const TRIM_BYTES: u64 = 64 << 20;
/// For how long a second failure is no further warning.
const WARNED: Duration = Duration::from_secs(3600);
/// How long it is remembered that no other file holds anything older.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many refused blocks are remembered at most.
const BEYOND: usize = 1 << 16;

pub(crate) struct Writer<'a> {
    shared: &'a Shared,
    tidied: Instant,
    /// When other files were looked at last, and the stamp of the oldest value there.
    others: Option<(Instant, u64)>,
    /// When a failure was logged.
    warned: Option<Instant>,
}

enum WriterTask {
    Write(Vec<Arc<DiskEntry>>),
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
                WriterTask::Write(entries) => self.write(&entries),
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
                && (state.index.any_behind() || state.index.any_discarded())
            {
                return WriterTask::Tidy;
            }
            state = self.shared.wait(state, self.shared.tuning.tidy_after);
        }
    }

    /// Writes these values, as far as the limits let it.
    fn write(&mut self, entries: &[Arc<DiskEntry>]) -> Result<(), DiskError> {
        self.reopen_if_gone()?;
        self.erase_discarded()?;
        let file = self.shared.state().file.clone();
        let entries = self.prepare(&file, entries)?;
        for entry in entries {
            if is_late(&self.shared.state()) {
                break;
            }
            self.write_entry(&file, entry)?;
            self.shared.wake();
        }
        Ok(())
    }

    /// Notes what will be written and makes the file as large as it needs to be and may be. Returns the values that the
    /// day's budget has room for; the others are refused.
    fn prepare<'e>(
        &mut self,
        file: &CellFile,
        entries: &'e [Arc<DiskEntry>],
    ) -> Result<&'e [Arc<DiskEntry>], DiskError> {
        let folder = Folder::lock(&self.shared.options.dir)?;
        let day = self.shared.tuning.day();
        let left = self.shared.options.writes_per_day.saturating_sub(folder.written_on(day));
        let (mut count, mut bytes, mut cells) = (0, 0, 0);
        for entry in entries {
            let parts = file.geometry().parts(entry.bytes.len() as u64);
            // A header is written twice: erased, when the value before is evicted, and with this value.
            let cost = entry.bytes.len() as u64 + 2 * parts * HEADER_BYTES as u64;
            if bytes + cost > left {
                self.spent(day);
                break;
            }
            (count, bytes, cells) = (count + 1, bytes + cost, cells + parts);
        }
        bytes += self.grow(&folder, file, cells, left - bytes)?;
        let written = folder.note_written(day, bytes)?;
        self.shared.state().written = (day, written);
        Ok(&entries[..count])
    }

    /// Makes the file larger, so that `need` cells are free, as far as the limit lets it. Where it does not, values of
    /// other identities go that are older than all of this one. Returns how many bytes were written for that, `left` at
    /// most.
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
        let before = oldest.map_or(u64::MAX, |(_, used)| used);
        let futile = self.others.is_some_and(|(when, used)| when.elapsed() < REMEMBERED && used >= before);
        if most < wanted && !futile {
            let lacking = geometry.file_bytes(wanted) - geometry.file_bytes(most.min(wanted));
            let goal = lacking.max(TRIM_BYTES.min(self.shared.limit / 8));
            // What is moved to make files smaller is at most what they become smaller by.
            if goal <= left {
                let mut files = unused_files(&self.shared.options.dir, file.path())?;
                written += trim(&mut files, goal, before)
                    .map_err(DiskError::io("making room in", &self.shared.options.dir))?;
                let oldest = files.iter().filter_map(|(_, index)| index.oldest(None)).map(|(_, used)| used).min();
                self.others = Some((Instant::now(), oldest.unwrap_or(u64::MAX)));
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
    fn write_entry(&self, file: &CellFile, entry: &Arc<DiskEntry>) -> Result<(), DiskError> {
        let Some(cells) = self.take_cells(file, entry)? else { return Ok(()) };
        let value = StoredValue {
            parent: entry.parent,
            tokens: entry.tokens,
            bytes: entry.bytes.len() as u64,
            hash: *blake3::hash(&entry.bytes).as_bytes(),
            used: self.shared.state().index.stamp(self.shared.tuning.micros()),
            cells,
        };
        let id = entry.id();
        let result = file.write_value(id, &value, &entry.bytes);
        let mut state = self.shared.state();
        if result.is_err() || !is_staged(&state, entry) {
            state.index.discard(&value.cells);
        } else {
            state.index.insert(id, value);
            state.beyond.remove(&id);
            state.staging.remove(&id);
            if state.failure.take().is_some() {
                tracing::info!("the disk cache is written again");
            }
        }
        result.map(|_| ()).map_err(DiskError::io("writing", file.path()))
    }

    /// Takes cells for a value. Where too few are free, what was used longest ago goes; but not what this value needs.
    fn take_cells(&self, file: &CellFile, entry: &Arc<DiskEntry>) -> Result<Option<Box<[u32]>>, DiskError> {
        let (id, parent) = (entry.id(), entry.parent_id());
        let parts = usize::try_from(file.geometry().parts(entry.bytes.len() as u64)).unwrap_or(usize::MAX);
        loop {
            let mut state = self.shared.state();
            if !is_staged(&state, entry) {
                return Ok(None);
            }
            if let Some(cells) = state.index.take_cells(parts) {
                return Ok(Some(cells));
            }
            let useless = state.index.get(&parent).is_none() && state.beyond.contains(&parent);
            let oldest = if useless { None } else { state.index.oldest(Some(parent)) };
            let Some(evicted) = oldest.and_then(|(oldest, _)| state.index.remove(&oldest)) else {
                if state.beyond.len() >= BEYOND {
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
        let (file, values) = {
            let mut state = self.shared.state();
            let ids = state.index.take_behind();
            let value = |id| state.index.get(&id).map(|value| (id, value.clone()));
            (state.file.clone(), ids.into_iter().filter_map(value).collect::<Vec<_>>())
        };
        if values.is_empty() {
            return Ok(());
        }
        let folder = Folder::lock(&self.shared.options.dir)?;
        let (day, bytes) = (self.shared.tuning.day(), (values.len() * HEADER_BYTES) as u64);
        if folder.written_on(day).saturating_add(bytes) > self.shared.options.writes_per_day {
            return Ok(());
        }
        let written = folder.note_written(day, bytes)?;
        drop(folder);
        self.shared.state().written = (day, written);
        for (id, value) in values {
            // Only this thread writes, so the value still has its cells, unless it is found damaged at this moment.
            file.write_header(id, &value, 0).map_err(DiskError::io("writing", file.path()))?;
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

    /// Deletes everything, also what waits to be written.
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

    /// A file that was removed while it was open is an error first; a later attempt begins a new one.
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
        let (file, index) = CellFile::open(&self.shared.options.dir, &self.shared.contents)?;
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
        if self.warned.is_none_or(|when| when.elapsed() > WARNED) {
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

/// Whether this very entry still waits to be written, and is not there already.
fn is_staged(state: &State, entry: &Arc<DiskEntry>) -> bool {
    let id = entry.id();
    state.index.get(&id).is_none() && state.staging.get(&id).is_some_and(|staged| Arc::ptr_eq(staged, entry))
}
