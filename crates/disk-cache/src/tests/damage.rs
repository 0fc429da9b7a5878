//! Files with other bytes than were written.
use super::*;
use crate::file::CellFile;
use crate::format::Geometry;
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::OnceLock;

const LIMIT: u64 = 1 << 20;
const BLOCKS: usize = 30;
const SNAPSHOT: usize = 20_000;

fn path(dir: &Path) -> PathBuf {
    CellFile::path_of(dir, &contents(1).identity)
}

/// The bytes of a file with a chain of blocks and a snapshot at its end.
fn good() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = chain(1, 0, BLOCKS);
        let cache = open(dir.path(), LIMIT, 1);
        store(&cache, &keys);
        cache.offer(snapshot(&keys, BLOCKS, SNAPSHOT));
        assert!(cache.close(WAIT));
        std::fs::read(path(dir.path())).expect("the file")
    })
}

/// How many values are served; each must be right.
fn served(cache: &DiskCache) -> usize {
    let keys = chain(1, 0, BLOCKS);
    let blocks: usize = (1..=BLOCKS).map(|n| hits(cache, &keys[n - 1..=n])).sum();
    let snapshots = read(cache, DiskValueKind::Snapshot, &keys[BLOCKS..]).values;
    assert!(snapshots.iter().all(|bytes| *bytes == value(DiskValueKind::Snapshot, keys[BLOCKS], SNAPSHOT)));
    blocks + snapshots.len()
}

#[derive(Clone, Debug)]
enum Damage {
    Flip(Vec<(prop::sample::Index, u8)>),
    Zero(prop::sample::Index, usize),
    Copy(prop::sample::Index, prop::sample::Index, usize),
    Cut(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        3 => prop::collection::vec((place(), 0u8..8), 1..8).prop_map(Damage::Flip),
        1 => (place(), 1usize..20_000).prop_map(|(at, length)| Damage::Zero(at, length)),
        1 => (place(), place(), 1usize..20_000).prop_map(|(from, to, length)| Damage::Copy(from, to, length)),
        1 => place().prop_map(Damage::Cut),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    let size = bytes.len();
    if size == 0 {
        return;
    }
    match damage {
        // Half of the flips hit the head page and the used headers, which are a small part of the file.
        Damage::Flip(places) => places.iter().for_each(|(place, bit)| {
            let at = place.index(if bit % 2 == 0 { size.min(9000) } else { size });
            bytes[at] ^= 1 << bit;
        }),
        Damage::Zero(at, length) => {
            let at = at.index(size);
            bytes[at..(at + length).min(size)].fill(0);
        }
        Damage::Copy(from, to, length) => {
            let (from, to) = (from.index(size), to.index(size));
            let end = (from + length).min(size).min(from + size - to);
            bytes.copy_within(from..end, to);
        }
        Damage::Cut(at) => bytes.truncate(at.index(size)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: testkit::cases(200), ..ProptestConfig::default() })]

    #[test]
    fn damage_is_a_miss_and_never_a_wrong_value(damages in prop::collection::vec(damage(), 1..3)) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut bytes = good().to_vec();
        damages.iter().for_each(|damage| apply(&mut bytes, damage));
        std::fs::write(path(dir.path()), &bytes).expect("written");
        let cache = open(dir.path(), LIMIT, 1);
        let before = served(&cache);
        prop_assert_eq!(served(&cache), before, "what was damaged is gone; what was not is there");
        // The cache goes on as with any file.
        let keys = chain(1, 0, BLOCKS);
        store(&cache, &keys);
        cache.offer(snapshot(&keys, BLOCKS, SNAPSHOT));
        prop_assert!(cache.close(WAIT));
        let cache = open(dir.path(), LIMIT, 1);
        prop_assert_eq!(served(&cache), BLOCKS + 1);
        drop(cache);
        prop_assert_eq!(crate::verify(dir.path()).expect("a report").damaged, 0);
    }

    #[test]
    fn damage_under_an_open_cache_is_a_miss(damages in prop::collection::vec(damage(), 1..3)) {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(path(dir.path()), good()).expect("written");
        let cache = open(dir.path(), LIMIT, 1);
        let mut bytes = good().to_vec();
        damages.iter().for_each(|damage| apply(&mut bytes, damage));
        std::fs::write(path(dir.path()), &bytes).expect("written");
        let before = served(&cache);
        prop_assert_eq!(served(&cache), before);
        store(&cache, &chain(1, 0, BLOCKS));
        prop_assert!(served(&cache) >= BLOCKS);
    }
}

#[test]
fn one_flipped_byte_is_one_miss_and_verify_finds_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let flip = |cell| {
        let mut bytes = good().to_vec();
        bytes[Geometry::for_blocks(BLOCK).cell_at(cell) as usize + 77] ^= 1;
        std::fs::write(path(dir.path()), bytes).expect("written");
    };
    flip(4);
    let cache = open(dir.path(), LIMIT, 1);
    let keys = chain(1, 0, BLOCKS);
    let run = read(&cache, DiskValueKind::Block, &keys[1..]);
    assert_eq!((run.values.len(), run.damaged), (4, true));
    assert!(!cache.contains(DiskValueKind::Block, keys[5]));
    assert_eq!(served(&cache), BLOCKS);
    assert_eq!(cache.stats().damaged, 1);
    drop(cache);
    flip(6);
    let report = crate::verify(dir.path()).expect("a report");
    assert_eq!((report.values, report.damaged), (BLOCKS as u64 + 1, 1));
    let report = crate::verify(dir.path()).expect("a report");
    assert_eq!((report.values, report.damaged), (BLOCKS as u64, 0));
    assert_eq!(served(&open(dir.path(), LIMIT, 1)), BLOCKS);
}
