//! What tests of the disk cache share. Each value's bytes follow from its key, so that any value that is read can be
//! checked.
#![allow(dead_code)] // Each test program uses a part of it.

use disk_cache::{BlockKey, CacheIdentity, CacheLabel, DiskValueKind};
use disk_cache::{DiskCache, DiskContents, DiskLimit, DiskOptions, DiskRead, Offered, OfferedValue};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

/// Long enough for whatever must happen on any machine.
pub const WAIT: Duration = Duration::from_secs(60);
pub const BLOCK: usize = 3000;

pub fn options(dir: &Path, limit: u64) -> DiskOptions {
    DiskOptions { dir: dir.to_path_buf(), limit: DiskLimit::Bytes(limit), writes_per_day: u64::MAX }
}

pub fn contents(identity: u8) -> DiskContents {
    let label = CacheLabel { model: format!("model {identity}"), formats: "tc4".into() };
    DiskContents { identity: CacheIdentity::from_bytes([identity; 32]), label, block_bytes: BLOCK }
}

pub fn open(dir: &Path, limit: u64, identity: u8) -> DiskCache {
    DiskCache::open(&options(dir, limit), &contents(identity)).expect("a cache")
}

pub fn value(kind: DiskValueKind, key: BlockKey, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hash = blake3::Hasher::new();
    hash.update(&[kind as u8]).update(key.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The keys of a chain's blocks, with the key before the first.
pub fn chain(identity: u8, name: usize, blocks: usize) -> Vec<BlockKey> {
    let root = BlockKey::root(&CacheIdentity::from_bytes([identity; 32]), &name.to_string());
    (0..blocks).fold(vec![root], |mut keys, block| {
        keys.push(keys[block].next(&[block as u32]));
        keys
    })
}

/// The entry of block `n` of a chain, counted from 1.
pub fn block(keys: &[BlockKey], n: usize) -> OfferedValue {
    let (key, parent) = (keys[n], keys[n - 1]);
    let bytes = value(DiskValueKind::Block, key, BLOCK);
    OfferedValue { kind: DiskValueKind::Block, key, parent, tokens: 16 * n as u32, bytes }
}

pub fn snapshot(keys: &[BlockKey], n: usize, length: usize) -> OfferedValue {
    let kind = DiskValueKind::Snapshot;
    OfferedValue { kind, bytes: value(kind, keys[n], length), ..block(keys, n) }
}

/// Offers all blocks of a chain and waits until they are written.
pub fn store(cache: &DiskCache, keys: &[BlockKey]) {
    for n in 1..keys.len() {
        while cache.offer(block(keys, n)) == Offered::Full {
            std::thread::yield_now();
        }
    }
    assert!(cache.flush(WAIT));
}

pub fn read(cache: &DiskCache, kind: DiskValueKind, keys: &[BlockKey]) -> DiskRead {
    let (reply, answer) = mpsc::channel();
    cache.read(kind, keys.to_vec(), move |read| drop(reply.send(read)));
    answer.recv_timeout(WAIT).expect("a reply")
}

/// How many blocks of a chain are read from its first on; each must be right.
pub fn hits(cache: &DiskCache, keys: &[BlockKey]) -> usize {
    let read = read(cache, DiskValueKind::Block, &keys[1..]);
    for (bytes, key) in read.values.iter().zip(&keys[1..]) {
        assert!(*bytes == value(DiskValueKind::Block, *key, BLOCK), "a wrong value of {key}");
    }
    read.values.len()
}

/// The size of all files in the folder, as the disk tells it.
pub fn size(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).expect("the folder");
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
}

/// What this process logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Begins to keep what is logged. The threads of caches log as well, so it is kept for the whole process.
pub fn keep_log() {
    LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        tracing::subscriber::set_global_default(subscriber).expect("the only subscriber");
        log
    });
}

/// The warnings that name this folder.
pub fn warnings(dir: &Path) -> Vec<String> {
    let log = LOG.get().expect("a log").0.lock().expect("the log").clone();
    let names_it = |line: &&str| line.contains("WARN") && line.contains(&*dir.to_string_lossy());
    String::from_utf8(log).expect("text").lines().filter(names_it).map(String::from).collect()
}
