//! What is written is read again, in this run and the next, with what is told of it.
use super::*;
use crate::DiskWriteState;
use std::os::unix::fs::PermissionsExt;

const LIMIT: u64 = 1 << 20;

#[test]
fn all_that_fits_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let keys = chain(1, 0, 200);
    let cache = open(dir.path(), LIMIT, 1);
    assert_eq!(hits(&cache, &keys), 0);
    for n in 1..keys.len() {
        assert_eq!(cache.offer(block(&keys, n)), Offered::Staged);
        assert!(cache.contains(DiskValueKind::Block, keys[n]));
        assert_eq!(cache.offer(block(&keys, n)), Offered::Present);
    }
    assert!(cache.close(WAIT));
    let cache = open(dir.path(), LIMIT, 1);
    let order = [&keys[1..3], &[keys[0]], &keys[3..]].concat();
    assert_eq!(cache.present_from_first(DiskValueKind::Block, &order), 2);
    assert_eq!(hits(&cache, &keys), 200);
    assert!(!cache.contains(DiskValueKind::Snapshot, keys[1]));
    let stats = cache.stats();
    assert_eq!(
        (stats.values, stats.bytes, stats.values_given, stats.values_missing),
        (200, 200 * BLOCK as u64, 200, 0)
    );
    assert_eq!((stats.damaged, stats.refused, stats.write_state.clone()), (0, 0, DiskWriteState::On));
    assert!(stats.file_bytes <= size(dir.path()) && stats.read_bytes_per_second.is_some());
    for file in std::fs::read_dir(dir.path()).expect("the folder") {
        let mode = file.expect("a file").metadata().expect("its data").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn values_of_any_size_are_kept_in_several_cells() {
    let dir = tempfile::tempdir().expect("a folder");
    let keys = chain(1, 0, 8);
    let lengths = [0, 1, BLOCK, 3071, 3072, 3073, 100_000, 50_000];
    let cache = open(dir.path(), LIMIT, 1);
    for (n, length) in lengths.iter().enumerate() {
        assert_eq!(cache.offer(snapshot(&keys, n + 1, *length)), Offered::Staged);
    }
    assert!(cache.close(WAIT));
    let cache = open(dir.path(), LIMIT, 1);
    for (n, length) in lengths.iter().enumerate() {
        let read = read(&cache, DiskValueKind::Snapshot, &keys[n + 1..n + 2]);
        assert!(read.values == [value(DiskValueKind::Snapshot, keys[n + 1], *length)], "{length} bytes");
    }
    assert_eq!(cache.offer(snapshot(&chain(1, 1, 1), 1, LIMIT as usize)), Offered::TooLarge);
}

#[test]
fn what_waits_is_read_from_memory_and_a_pause_drops_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let keys = chain(1, 0, 5);
    let tuning = Tuning { staging_bytes: 3 * BLOCK, ..Tuning::default() };
    let cache = DiskCache::open_tuned(&options(dir.path(), LIMIT), &contents(1), tuning).expect("a cache");
    // The writer waits for the folder as long as this test has it.
    let folder = crate::folder::Folder::lock(dir.path()).expect("the folder");
    assert!((1..=3).all(|n| cache.offer(block(&keys, n)) == Offered::Staged));
    assert_eq!(cache.offer(block(&keys, 4)), Offered::Full);
    assert_eq!(hits(&cache, &keys), 3);
    cache.pause(true);
    assert_eq!(cache.offer(block(&keys, 4)), Offered::Paused);
    assert_eq!(cache.stats().write_state, DiskWriteState::Paused);
    assert_eq!(hits(&cache, &keys), 0);
    drop(folder);
    cache.pause(false);
    assert_eq!(cache.stats().refused, 5);
    store(&cache, &keys);
    assert_eq!(hits(&cache, &keys), 5);
}

#[test]
fn chains_are_listed_with_what_they_share_counted_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let keys = chain(1, 0, 4);
    // A second chain parts after two blocks.
    let mut branch = keys[..3].to_vec();
    branch.push(keys[2].next(&[99]));
    let cache = open(dir.path(), LIMIT, 1);
    store(&cache, &branch);
    store(&cache, &keys);
    cache.offer(snapshot(&branch, 3, 10));
    assert!(cache.flush(WAIT));
    let other = open(dir.path(), LIMIT, 2);
    store(&other, &chain(2, 0, 1));
    let summary = |tokens, bytes| (tokens, bytes as u64);
    let listed = |chains: Vec<crate::ChainSummary>| chains.iter().map(|c| (c.tokens, c.bytes)).collect::<Vec<_>>();
    let own = [summary(48, 3 * BLOCK + 10), summary(64, 2 * BLOCK)];
    assert_eq!(listed(cache.chains()), own);
    // A folder is listed while processes use it, and afterwards.
    let all = [summary(16, BLOCK), own[0], own[1]];
    assert_eq!(listed(crate::list(dir.path()).expect("a list")), all);
    drop((cache, other));
    let chains = crate::list(dir.path()).expect("a list");
    assert_eq!((chains[0].identity, &chains[0].label), (contents(2).identity, &contents(2).label));
    assert_eq!(listed(chains), all);
    assert_eq!(crate::list(&dir.path().join("missing")).expect("a list"), []);
}

#[test]
fn clearing_leaves_nothing_but_what_others_use() {
    let dir = tempfile::tempdir().expect("a folder");
    let caches = [1, 2, 3].map(|identity| open(dir.path(), LIMIT, identity));
    let keys = [1, 2, 3].map(|identity| chain(identity, 0, 10));
    caches.iter().zip(&keys).for_each(|(cache, keys)| store(cache, keys));
    let [one, two, three] = caches;
    drop(three);
    one.clear().expect("cleared");
    assert_eq!((hits(&one, &keys[0]), hits(&two, &keys[1])), (0, 10));
    assert_eq!((one.stats().values, one.stats().file_bytes), (0, 0));
    store(&one, &keys[0]);
    assert_eq!(hits(&one, &keys[0]), 10);
    assert!(!crate::file::CellFile::path_of(dir.path(), &contents(3).identity).exists());
    drop(one);
    let report = crate::clear(dir.path()).expect("cleared");
    assert_eq!((report.files, report.in_use.len()), (1, 1));
    drop(two);
    assert_eq!(crate::clear(dir.path()).expect("cleared").files, 1);
    assert_eq!(hits(&open(dir.path(), LIMIT, 2), &keys[1]), 0);
}
