//! Measures a disk cache: how much of its limit holds values, how fast it writes and reads, with values of several
//! sizes, four times as many bytes as the limit allows.
//!   usage: cargo run --release -p disk-cache --example measure -- FOLDER
//! FOLDER must be new or empty; it is deleted at the end.
use disk_cache::{BlockKey, CacheIdentity, CacheLabel};
use disk_cache::{DiskCache, DiskContents, DiskError, DiskLimit, DiskOptions, DiskValueKind, Offered, OfferedValue};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const LIMIT: u64 = 512 << 20;
const CHAIN: usize = 64;
const WAIT: Duration = Duration::from_secs(600);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("name a folder that is new or empty")?);
    if dir.read_dir().is_ok_and(|mut files| files.next().is_some()) {
        return Err(format!("{} is not empty", dir.display()).into());
    }
    println!("limit {} MiB, four times as much offered", LIMIT >> 20);
    for block_bytes in [50_000, 140_000, 270_000, 700_000] {
        measure(&dir, block_bytes)?;
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn measure(dir: &std::path::Path, block_bytes: usize) -> Result<(), DiskError> {
    let options = DiskOptions { dir: dir.to_path_buf(), limit: DiskLimit::Bytes(LIMIT), writes_per_day: u64::MAX };
    let identity = CacheIdentity::new([("block_bytes", &block_bytes.to_le_bytes()[..])]);
    let contents = DiskContents { identity, label: CacheLabel::default(), block_bytes };
    let cache = DiskCache::open(&options, &contents)?;
    let chains = (4 * LIMIT as usize).div_ceil(block_bytes * CHAIN);
    let mut bytes = vec![0; block_bytes];
    let begin = Instant::now();
    for chain in 0..chains {
        let mut parent = BlockKey::root(&identity, &chain.to_string());
        for block in 0..CHAIN {
            let (key, tokens) = (parent.next(&[]), 16 * (block as u32 + 1));
            bytes[..16].copy_from_slice(key.as_bytes());
            let entry = OfferedValue { kind: DiskValueKind::Block, key, parent, tokens, bytes: bytes.clone() };
            while cache.offer(entry.clone()) == Offered::Full {
                std::thread::sleep(Duration::from_millis(1));
            }
            parent = key;
        }
    }
    cache.flush(WAIT);
    let written = begin.elapsed();
    let stats = cache.stats();
    let begin = Instant::now();
    drop(cache);
    let cache = DiskCache::open(&options, &contents)?;
    let opened = begin.elapsed();
    let (begin, mut read) = (Instant::now(), 0);
    for chain in 0..chains {
        let mut keys = vec![BlockKey::root(&identity, &chain.to_string()).next(&[])];
        keys.extend((1..CHAIN).scan(keys[0], |key, _| {
            *key = key.next(&[]);
            Some(*key)
        }));
        let (reply, answer) = mpsc::channel();
        cache.read(DiskValueKind::Block, keys, move |run| drop(reply.send(run)));
        read += answer.recv().map_or(0, |run| run.values.iter().map(Vec::len).sum::<usize>());
    }
    println!(
        "values of {block_bytes} bytes: {:.1} % of the limit hold values; written at {:.0} MB/s, read and checked at \
         {:.0} MB/s; opened in {opened:.1?}",
        100.0 * stats.bytes as f64 / LIMIT as f64,
        (chains * CHAIN * block_bytes) as f64 / written.as_secs_f64() / 1e6,
        read as f64 / begin.elapsed().as_secs_f64() / 1e6,
    );
    drop(cache);
    disk_cache::clear(dir)?;
    Ok(())
}
