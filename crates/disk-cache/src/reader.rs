//! The reader's thread, which reads and checks the values of one job after the other.
use crate::file::Checked;
use crate::state::Shared;
use crate::value::{DiskValueId, DiskValueKind};
use kv::BlockKey;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// The share that a new rate has in the running mean.
const SMOOTHING: f64 = 0.3;
/// A value that the writer replaced or deleted during each of so many lookups counts as missing, so that a read ends in
/// any case.
const LOOKUPS: usize = 3;

/// The result of [`crate::DiskCache::read`].
#[derive(Debug, Default)]
pub struct DiskRead {
    /// The bytes of the first keys' values. If it is shorter than the keys, the next value is missing or was damaged.
    pub values: Vec<Vec<u8>>,
    /// Whether reading ended at a damaged value, which is deleted.
    pub damaged: bool,
    /// The time that reading took.
    pub took: Duration,
}

type Reply = Box<dyn FnOnce(DiskRead) + Send>;

/// Values that are to be read. The reply comes in any case, if only an empty one.
pub(crate) struct ReadJob {
    pub kind: DiskValueKind,
    pub keys: Vec<BlockKey>,
    pub reply: Option<Reply>,
}

impl ReadJob {
    fn reply(mut self, read: DiskRead) {
        if let Some(reply) = self.reply.take() {
            reply(read);
        }
    }
}

impl Drop for ReadJob {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply(DiskRead::default());
        }
    }
}

/// Works until no more jobs can come.
pub(crate) fn run(shared: &Shared, jobs: &Receiver<ReadJob>) {
    for job in jobs {
        let read = read_values(shared, job.kind, &job.keys);
        job.reply(read);
    }
}

/// Reads the values of these keys in order, up to the first that is missing or damaged.
fn read_values(shared: &Shared, kind: DiskValueKind, keys: &[BlockKey]) -> DiskRead {
    let begin = Instant::now();
    let mut read = DiskRead::default();
    let mut from_disk = 0;
    for key in keys {
        match read_value(shared, kind.id(*key)) {
            LookUp::Disk(bytes) => {
                from_disk += bytes.len();
                read.values.push(bytes);
            }
            LookUp::Staging(bytes) => read.values.push(bytes),
            LookUp::Nothing => break,
            LookUp::Damaged => {
                read.damaged = true;
                tracing::warn!("the disk cache's value of {key} was damaged and is deleted");
                break;
            }
        }
    }
    read.took = begin.elapsed();
    let mut state = shared.state();
    let stamp = state.index.stamp(shared.tuning.micros());
    for key in &keys[..read.values.len()] {
        state.index.touch(&kind.id(*key), stamp);
    }
    state.values_given += read.values.len() as u64;
    state.values_missing += (keys.len() - read.values.len()) as u64;
    if from_disk > 0 {
        let rate = from_disk as f64 / read.took.as_secs_f64().max(1e-6);
        let old_rate = state.read_bytes_per_second.unwrap_or(rate);
        state.read_bytes_per_second = Some(old_rate + SMOOTHING * (rate - old_rate));
    }
    read
}

enum LookUp {
    Disk(Vec<u8>),
    Staging(Vec<u8>),
    Nothing,
    Damaged,
}

fn read_value(shared: &Shared, id: DiskValueId) -> LookUp {
    // The writer may delete the value, or write it elsewhere, while it is read; then it is looked up again.
    for _ in 0..LOOKUPS {
        let (file, value) = {
            let state = shared.state();
            if state.closing.is_some() {
                return LookUp::Nothing;
            }
            if let Some(value) = state.staging.get(&id) {
                let value = value.clone();
                drop(state);
                return LookUp::Staging(value.bytes.clone());
            }
            let Some(value) = state.index.get(&id) else { return LookUp::Nothing };
            (state.file.clone(), value.clone())
        };
        match file.read_value(&value) {
            Ok(Checked::Whole(bytes)) => return LookUp::Disk(bytes),
            Ok(Checked::Damaged) => {}
            Err(error) => tracing::debug!("{}: {error}", file.path().display()),
        }
        if shared.state().remove_damaged(&id, &file, &value.cells, &value.hash) {
            return LookUp::Damaged;
        }
    }
    LookUp::Nothing
}
