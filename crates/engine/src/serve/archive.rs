//! The cache on disk, as the engine's loop uses it: what leaves memory is written, what comes back is read ahead.
use super::runner::ModelRunner;
use disk_cache::{DiskCache, DiskRead, DiskValueKind, Offered, OfferedValue};
use kv::{BlockId, BlockKey, SealedBlock};
use scheduler::{BlockArchive, BlockLoad, Eviction, Scheduler, Step};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Seconds that a load takes beside the reading: its way to the reader's thread and back.
const LOAD_OVERHEAD: f64 = 0.005;
/// Bytes a second that a disk is thought to give until it has been measured.
const ASSUMED_READ_RATE: f64 = 500e6;
/// Bytes that an idle engine offers before it looks whether a request has come.
const IDLE_SLICE: usize = 4 << 20;
/// Tokens from which on a step tells how fast prompts are computed.
const MEASURED_TOKENS: usize = 32;
/// How much a new measurement counts beside those before.
const WEIGHT: f64 = 0.3;
/// How long a load may take: after that its blocks are computed, since a disk that hangs must not hold a request up.
const LOAD_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait before more is offered where too much waits to be written.
const STAGING_PAUSE: Duration = Duration::from_millis(20);

/// Tokens a second that prompts are computed at, as measured lately; 0 where it is not known.
#[derive(Debug, Default)]
struct PrefillRate(AtomicU64);

impl PrefillRate {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    fn learn(&self, tokens: usize, elapsed: Duration) {
        let (new, old) = (tokens as f64 / elapsed.as_secs_f64().max(1e-9), self.get());
        let rate = if old == 0.0 { new } else { old + WEIGHT * (new - old) };
        self.0.store(rate.to_bits(), Relaxed);
    }
}

/// The disk cache as the scheduler asks it for blocks.
struct DiskBlocks {
    disk: Arc<DiskCache>,
    rate: Arc<PrefillRate>,
    block_bytes: usize,
    block_size: usize,
}

impl BlockArchive for DiskBlocks {
    /// The blocks that are there, unless reading them would take longer than computing them.
    fn run(&self, keys: &[BlockKey]) -> usize {
        let run = self.disk.present_from_first(DiskValueKind::Block, keys);
        if run == 0 {
            return 0;
        }
        let rate = self.disk.stats().read_bytes_per_second.unwrap_or(ASSUMED_READ_RATE);
        let reading = LOAD_OVERHEAD + (run * self.block_bytes) as f64 / rate;
        let computing = (run * self.block_size) as f64 / self.rate.get();
        if reading < computing { run } else { 0 }
    }

    fn has_snapshot(&self, key: &BlockKey) -> bool {
        self.disk.contains(DiskValueKind::Snapshot, *key)
    }
}

/// A load whose values are on their way.
struct OpenLoad {
    load: BlockLoad,
    begun: Instant,
    blocks: Option<DiskRead>,
    snapshot: Option<DiskRead>,
}

impl OpenLoad {
    fn is_complete(&self) -> bool {
        self.blocks.is_some() && (self.snapshot.is_some() || self.load.snapshot.is_none())
    }
}

/// Values that the disk's thread has read for a load.
struct Arrival {
    load: u64,
    kind: DiskValueKind,
    read: DiskRead,
}

/// The cache on disk.
pub(crate) struct Archive {
    disk: Arc<DiskCache>,
    rate: Arc<PrefillRate>,
    arrived: Receiver<Arrival>,
    sender: Sender<Arrival>,
    open: HashMap<u64, OpenLoad>,
    /// The blocks that an idle engine has yet to offer, parents first; `None` until the engine is idle.
    unsaved: Option<VecDeque<(BlockId, SealedBlock)>>,
}

impl Archive {
    pub fn new(disk: Arc<DiskCache>) -> Self {
        let (sender, arrived) = channel();
        Archive { disk, rate: Arc::default(), arrived, sender, open: HashMap::new(), unsaved: None }
    }

    /// Returns the archive that the scheduler asks for blocks of `block_bytes` bytes and `block_size` tokens.
    pub fn blocks(&self, block_bytes: usize, block_size: usize) -> Box<dyn BlockArchive> {
        Box::new(DiskBlocks { disk: self.disk.clone(), rate: self.rate.clone(), block_bytes, block_size })
    }

    /// Whether values are on their way.
    pub fn is_loading(&self) -> bool {
        !self.open.is_empty()
    }

    /// Saves what a step evicts, while its memory is what it was, and begins the step's loads.
    pub fn begin_step(&mut self, step: &Step, runner: &ModelRunner) {
        self.unsaved = None;
        for Eviction { evicted, snapshot } in &step.evictions {
            if evicted.in_long_chain {
                self.save(evicted.block, &evicted.sealed, *snapshot, runner);
            }
        }
        step.loads.iter().for_each(|load| self.begin_load(load));
    }

    fn begin_load(&mut self, load: &BlockLoad) {
        let read = |kind, keys| {
            let (sender, load) = (self.sender.clone(), load.id);
            // An engine that has ended waits for nothing.
            self.disk.read(kind, keys, move |read| drop(sender.send(Arrival { load, kind, read })));
        };
        read(DiskValueKind::Block, load.keys.clone());
        if let Some(key) = load.snapshot {
            read(DiskValueKind::Snapshot, vec![key]);
        }
        self.open.insert(load.id, OpenLoad { load: load.clone(), begun: Instant::now(), blocks: None, snapshot: None });
    }

    /// Puts into memory what has been read. Waits for it for `patience` where loads are open.
    pub fn finish_loads(&mut self, scheduler: &mut Scheduler, runner: &ModelRunner, patience: Duration) {
        let mut patience = patience;
        while self.is_loading()
            && let Ok(Arrival { load, kind, read }) = self.arrived.recv_timeout(patience)
        {
            patience = Duration::ZERO;
            let Some(open) = self.open.get_mut(&load) else { continue };
            match kind {
                DiskValueKind::Block => open.blocks = Some(read),
                DiskValueKind::Snapshot => open.snapshot = Some(read),
            }
            if open.is_complete()
                && let Some(complete) = self.open.remove(&load)
            {
                finish(complete, scheduler, runner);
            }
        }
        self.give_up_late_loads(scheduler);
    }

    /// Ends loads that have taken too long. What still comes of them is left.
    fn give_up_late_loads(&mut self, scheduler: &mut Scheduler) {
        let late = self.open.extract_if(|_, open| open.begun.elapsed() > LOAD_LIMIT);
        for (_, open) in late {
            tracing::warn!("{} blocks were not read from disk in time, and are computed", open.load.keys.len());
            scheduler.finish_load(&open.load, 0, false);
        }
    }

    /// Offers some of what is in memory and not on disk. True if there is more to offer at once.
    pub fn save_some(&mut self, scheduler: &Scheduler, runner: &ModelRunner) -> bool {
        let mut unsaved = self.unsaved.take().unwrap_or_else(|| scheduler.pool().long_chains().into());
        let mut bytes = 0;
        let mut more = true;
        while bytes < IDLE_SLICE {
            let Some((block, sealed)) = unsaved.front() else {
                more = false;
                break;
            };
            let snapshot = scheduler.snapshot(&sealed.key);
            match self.save(*block, sealed, snapshot, runner) {
                Offered::Staged => bytes += runner.backend().spec().bytes_per_block(),
                Offered::Present => self.disk.touch(DiskValueKind::Block, &[sealed.key]),
                Offered::Full => {
                    std::thread::sleep(STAGING_PAUSE);
                    break;
                }
                // Nothing more can be written for some time.
                _ => {
                    unsaved.clear();
                    break;
                }
            }
            unsaved.pop_front();
        }
        self.unsaved = Some(unsaved);
        more
    }

    /// Saves all that is in memory, until the deadline at most.
    pub fn save_all(&mut self, scheduler: &Scheduler, runner: &ModelRunner, deadline: Instant) {
        self.unsaved = None;
        while Instant::now() < deadline && self.save_some(scheduler, runner) {}
        if !self.disk.flush(deadline.saturating_duration_since(Instant::now())) {
            tracing::warn!("a part of the cache could not be written to disk in time");
        }
    }

    /// Offers a block, and the snapshot at its end if there is one.
    fn save(&self, block: BlockId, sealed: &SealedBlock, snapshot: Option<u32>, runner: &ModelRunner) -> Offered {
        let value = |kind, bytes| {
            let SealedBlock { key, parent, end, .. } = *sealed;
            OfferedValue { kind, key, parent, tokens: end as u32, bytes }
        };
        let mut offered = Offered::Present;
        // A block that is there already is not read.
        if !self.disk.contains(DiskValueKind::Block, sealed.key) {
            match runner.read_block(block) {
                Ok(bytes) => offered = self.disk.offer(value(DiskValueKind::Block, bytes)),
                Err(error) => tracing::warn!(%error, "a block cannot be read to be written to disk"),
            }
        }
        if let Some(slot) = snapshot
            && matches!(offered, Offered::Present | Offered::Staged)
            && !self.disk.contains(DiskValueKind::Snapshot, sealed.key)
        {
            match runner.states().read(slot) {
                Ok(bytes) => drop(self.disk.offer(value(DiskValueKind::Snapshot, bytes))),
                Err(error) => tracing::warn!(%error, "a snapshot cannot be read to be written to disk"),
            }
        }
        offered
    }

    /// Stops or resumes writing. What waits to be written is forgotten when it stops, and offered again later.
    pub fn pause(&mut self, paused: bool) {
        self.disk.pause(paused);
        self.unsaved = None;
    }

    /// Learns from a step of `tokens` tokens how fast prompts are computed.
    pub fn measured(&self, tokens: usize, elapsed: Duration) {
        if tokens >= MEASURED_TOKENS {
            self.rate.learn(tokens, elapsed);
        }
    }

    /// Forgets all that is on disk, on a thread of its own.
    pub fn clear(&mut self) {
        self.unsaved = None;
        let disk = Arc::clone(&self.disk);
        std::thread::spawn(move || {
            if let Err(error) = disk.clear() {
                tracing::warn!(%error, "the cache on disk is not cleared");
            }
        });
    }
}

/// Puts what has been read where the load's sequence looks for it.
fn finish(open: OpenLoad, scheduler: &mut Scheduler, runner: &ModelRunner) {
    let Some((blocks, slot)) = scheduler.load_target(&open.load) else { return };
    let values = open.blocks.map(|read| read.values).unwrap_or_default();
    let written = blocks.iter().zip(&values).take_while(|(block, bytes)| runner.write_block(**block, bytes).is_ok());
    let written = written.count();
    let snapshot = open.snapshot.and_then(|read| read.values.into_iter().next());
    let snapshot = match (snapshot, slot) {
        (Some(bytes), Some(slot)) => runner.states().write(slot, &bytes).is_ok(),
        _ => false,
    };
    scheduler.finish_load(&open.load, written, snapshot);
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk_cache::{DiskContents, DiskLimit, DiskOptions};
    use kv::CacheIdentity;
    use scheduler::{NewRequest, PrefixUse, SchedulerConfig};

    /// Blocks that are always said to be there.
    struct EveryBlock;

    impl BlockArchive for EveryBlock {
        fn run(&self, keys: &[BlockKey]) -> usize {
            keys.len()
        }

        fn has_snapshot(&self, _: &BlockKey) -> bool {
            true
        }
    }

    #[test]
    fn a_prompt_whose_blocks_do_not_come_in_time_is_computed() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            DiskOptions { dir: dir.path().to_path_buf(), limit: DiskLimit::Bytes(1 << 20), writes_per_day: 1 << 20 };
        let identity = CacheIdentity::new([]);
        let contents = DiskContents { identity, label: Default::default(), block_bytes: 64 };
        let mut archive = Archive::new(DiskCache::open(&options, &contents).unwrap().into());
        let config = SchedulerConfig {
            block_size: 16,
            num_blocks: 8,
            max_num_seqs: 1,
            num_snapshots: 0,
            max_num_batched_tokens: 64,
            max_step_time: None,
            max_draft_tokens: 0,
            has_states: false,
        };
        let mut scheduler = Scheduler::new(config).unwrap().with_archive(Box::new(EveryBlock));
        let prefix = Some(PrefixUse { root: BlockKey::root(&identity, ""), salted: false, reuse: true });
        let request =
            NewRequest { key: 1, client: String::new(), max_len: 41, prompt: (0..40).collect(), choices: 1, prefix };
        scheduler.add(request).unwrap();
        let step = scheduler.schedule();
        assert!(step.chunks.is_empty(), "the blocks are waited for");
        step.loads.iter().for_each(|load| archive.begin_load(load));

        archive.give_up_late_loads(&mut scheduler);
        assert!(archive.is_loading() && scheduler.schedule().chunks.is_empty(), "there is time left");
        for open in archive.open.values_mut() {
            open.begun -= LOAD_LIMIT + Duration::from_millis(1);
        }
        archive.give_up_late_loads(&mut scheduler);
        assert!(!archive.is_loading());
        let computed: usize = scheduler.schedule().chunks.iter().map(|chunk| chunk.len).sum();
        assert_eq!(computed, 40);
    }
}
