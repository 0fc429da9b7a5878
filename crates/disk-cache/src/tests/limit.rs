//! The limit on all files together, and what goes first.
use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

const LIMIT: u64 = 1 << 20;

#[test]
fn ten_times_the_limit_is_never_above_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().to_path_buf();
    let done = Arc::new(AtomicBool::new(false));
    let watch = std::thread::spawn({
        let done = done.clone();
        move || {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                // One file grows after another has shrunk; under the lock neither happens between two looks.
                let folder = crate::folder::Folder::lock(&path).expect("the folder");
                most = most.max(size(&path));
                drop(folder);
                std::thread::sleep(Duration::from_micros(200));
            }
            most
        }
    });
    let chains = (10 * LIMIT) as usize / (20 * BLOCK);
    for identity in [1, 2] {
        let cache = open(dir.path(), LIMIT, identity);
        for name in 0..chains / 2 {
            let keys = chain(identity, name, 20);
            store(&cache, &keys);
            assert_eq!(hits(&cache, &keys), 20, "the newest chain is there whole");
        }
        assert_eq!(hits(&cache, &chain(identity, 0, 20)), 0);
        // Nine tenths of the limit hold values: cells are 2 % larger than blocks, and a table takes 16 KiB.
        assert!(cache.stats().bytes > LIMIT / 10 * 9, "{:?}", cache.stats());
    }
    done.store(true, Ordering::Relaxed);
    let most = watch.join().expect("the watch");
    assert!(most <= LIMIT, "{most} bytes");
    // The first identity's values were all older, so that its file is gone.
    assert_eq!(
        crate::list(dir.path()).expect("a list").iter().filter(|c| c.identity == contents(1).identity).count(),
        0
    );
}

#[test]
fn what_was_used_longest_ago_goes_first_over_all_identities() {
    let dir = tempfile::tempdir().expect("a folder");
    let [old, used, own] = [chain(1, 0, 100), chain(1, 1, 100), chain(2, 0, 100)];
    let cache = open(dir.path(), LIMIT, 1);
    store(&cache, &old);
    store(&cache, &used);
    drop(cache);
    let cache = open(dir.path(), LIMIT, 2);
    store(&cache, &own);
    drop(cache);
    let cache = open(dir.path(), LIMIT, 1);
    cache.touch(DiskValueKind::Block, &used[1..]);
    drop(cache);
    // The file has room for 348 cells, of which 300 are taken. A hundred more take the place of the oldest chain's end
    // and of nothing else.
    let cache = open(dir.path(), LIMIT, 2);
    let new = chain(2, 1, 100);
    store(&cache, &new);
    assert_eq!((hits(&cache, &own), hits(&cache, &new)), (100, 100));
    drop(cache);
    assert!(size(dir.path()) <= LIMIT);
    let cache = open(dir.path(), LIMIT, 1);
    assert_eq!(hits(&cache, &used), 100);
    let left = hits(&cache, &old);
    assert!((1..60).contains(&left), "{left} blocks");
}

#[test]
fn a_file_in_use_counts_but_is_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let [first, second] = [1, 2].map(|identity| open(dir.path(), LIMIT, identity));
    let [old, new] = [chain(1, 0, 250), chain(2, 0, 250)];
    store(&first, &old);
    store(&second, &new);
    assert!(size(dir.path()) <= LIMIT);
    assert_eq!(hits(&first, &old), 250);
    // A chain that is too long for what is left keeps its beginning.
    let kept = hits(&second, &new);
    assert!((50..100).contains(&kept), "{kept} blocks");
    assert_eq!(second.stats().values as usize, kept);
    assert_eq!(second.stats().refused as usize, 250 - kept);
}

#[test]
fn a_chain_longer_than_the_limit_that_comes_from_its_end_keeps_its_beginning() {
    let dir = tempfile::tempdir().expect("a folder");
    let keys = chain(1, 0, 600);
    let cache = open(dir.path(), LIMIT, 1);
    for n in (1..keys.len()).rev() {
        cache.offer(block(&keys, n));
    }
    assert!(cache.flush(WAIT));
    assert!(hits(&cache, &keys) > 300);
}

#[test]
fn a_lower_limit_deletes_the_oldest_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let cache = open(dir.path(), LIMIT, 1);
    let chains: Vec<_> = (0..6).map(|name| chain(1, name, 50)).collect();
    chains.iter().for_each(|keys| store(&cache, keys));
    // Snapshots lie in several cells, which are moved.
    let large = chain(1, 9, 1);
    store(&cache, &large);
    cache.offer(snapshot(&large, 1, 50_000));
    assert!(cache.flush(WAIT));
    assert_eq!(hits(&cache, &chains[0]), 50);
    drop(cache);
    let cache = open(dir.path(), LIMIT / 2, 1);
    assert!(size(dir.path()) <= LIMIT / 2);
    assert_eq!((hits(&cache, &chains[0]), hits(&cache, &chains[5])), (50, 50));
    assert_eq!((hits(&cache, &chains[1]), hits(&cache, &chains[2])), (0, 0));
    assert_eq!(
        read(&cache, DiskValueKind::Snapshot, &large[1..]).values,
        [value(DiskValueKind::Snapshot, large[1], 50_000)]
    );
    drop(cache);
    let cache = open(dir.path(), LIMIT / 2, 1);
    assert_eq!((hits(&cache, &chains[0]), hits(&cache, &chains[5])), (50, 50));
    assert_eq!(crate::verify(dir.path()).expect("a report").damaged, 0);
}

#[test]
fn a_limit_without_room_for_a_block_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let error = DiskCache::open(&options(dir.path(), 10_000), &contents(1)).err().expect("an error");
    assert!(error.to_string().starts_with("--kv-disk-cache is 10000 bytes"), "{error}");
}
