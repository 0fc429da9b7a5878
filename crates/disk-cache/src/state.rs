//! The state that the threads of a disk cache share.
use crate::file::{CellFile, OpenFile};
use crate::folder::DayWrites;
use crate::index::DiskIndex;
use crate::options::{DiskContents, DiskOptions, Tuning};
use crate::value::{DiskValueId, OfferedValue};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Options and state that are common to the threads. The lock is never held while a file is read or written.
pub(crate) struct Shared {
    pub options: DiskOptions,
    pub contents: DiskContents,
    /// The limit in bytes.
    pub limit: u64,
    pub tuning: Tuning,
    state: Mutex<State>,
    changed: Condvar,
}

/// The part of [`Shared`] that changes.
pub(crate) struct State {
    pub file: Arc<CellFile>,
    pub index: DiskIndex,
    pub staging: Staging,
    pub paused: bool,
    /// The time until which the writer may write; set when the cache closes.
    pub closing: Option<Instant>,
    /// One sender for each caller that waits until everything has been deleted.
    pub clearing: Vec<mpsc::Sender<()>>,
    pub failure: Option<WriteFailure>,
    /// The day whose budget is used up.
    pub spent_day: Option<u64>,
    /// The last day on which something was written, and its bytes, as far as this process knows.
    pub written: DayWrites,
    /// Blocks that were refused because their own chain fills the file; what follows them is of no use.
    pub beyond: HashSet<DiskValueId>,
    pub values_given: u64,
    pub values_missing: u64,
    pub damaged: u64,
    pub refused: u64,
    pub read_bytes_per_second: Option<f64>,
}

/// The reason why nothing is written at the moment.
#[derive(Clone, Debug)]
pub(crate) struct WriteFailure {
    pub reason: String,
    pub retry_at: Instant,
}

/// Values that wait to be written.
#[derive(Default)]
pub(crate) struct Staging {
    values: HashMap<DiskValueId, Arc<OfferedValue>>,
    queue: VecDeque<DiskValueId>,
    bytes: usize,
}

impl Staging {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn get(&self, id: &DiskValueId) -> Option<&Arc<OfferedValue>> {
        self.values.get(id)
    }

    pub fn push(&mut self, value: OfferedValue) {
        let id = value.id();
        self.bytes += value.bytes.len();
        self.queue.push_back(id);
        self.values.insert(id, Arc::new(value));
    }

    /// The next values, in the order they came, up to about `bytes`. They stay until they are removed.
    pub fn next(&self, bytes: usize) -> Vec<Arc<OfferedValue>> {
        let mut sum = 0;
        let values = self.queue.iter().filter_map(|id| self.values.get(id));
        values
            .take_while(|value| {
                let sum_before = sum;
                sum += value.bytes.len();
                sum_before < bytes
            })
            .cloned()
            .collect()
    }

    pub fn remove(&mut self, id: &DiskValueId) {
        if let Some(value) = self.values.remove(id) {
            self.bytes -= value.bytes.len();
        }
        while self.queue.front().is_some_and(|id| !self.values.contains_key(id)) {
            self.queue.pop_front();
        }
    }

    /// Drops all values; returns how many they were.
    pub fn clear(&mut self) -> u64 {
        let count = self.values.len() as u64;
        *self = Staging::default();
        count
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl State {
    pub fn new(OpenFile { file, index }: OpenFile) -> Self {
        State {
            file: Arc::new(file),
            index,
            staging: Staging::default(),
            paused: false,
            closing: None,
            clearing: Vec::new(),
            failure: None,
            spent_day: None,
            written: DayWrites::default(),
            beyond: HashSet::new(),
            values_given: 0,
            values_missing: 0,
            damaged: 0,
            refused: 0,
            read_bytes_per_second: None,
        }
    }

    /// Whether a value is in the file, or waits to be written.
    pub fn holds(&self, id: &DiskValueId) -> bool {
        self.index.get(id).is_some() || self.staging.get(id).is_some()
    }

    /// Removes a value that turned out to be damaged, unless it has been replaced or moved since it was looked up.
    pub fn remove_damaged(&mut self, id: &DiskValueId, file: &Arc<CellFile>, cells: &[u32], hash: &[u8; 32]) -> bool {
        let unchanged = Arc::ptr_eq(&self.file, file)
            && self.index.get(id).is_some_and(|value| *value.cells == *cells && value.hash == *hash);
        if unchanged && let Some(value) = self.index.remove(id) {
            self.index.discard(&value.cells);
            self.damaged += 1;
        }
        unchanged
    }
}

impl Shared {
    pub fn new(options: DiskOptions, contents: DiskContents, limit: u64, tuning: Tuning, state: State) -> Self {
        Shared { options, contents, limit, tuning, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Locks the state. No code that holds it panics; should it happen, the state is used as it is, since each value
    /// is checked when it is read.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits for a change.
    pub fn wake(&self) {
        self.changed.notify_all();
    }

    /// Waits for a change, or until the time is over.
    pub fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }
}
