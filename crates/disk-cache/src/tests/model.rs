//! Random operations against a naive map of all that was ever offered.
use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const LIMIT: u64 = 100_000;
const CHAINS: usize = 6;
const BLOCKS: usize = 12;

#[derive(Clone, Debug)]
enum Operation {
    Offer { chain: usize, from: usize, to: usize },
    OfferSnapshot { chain: usize, block: usize, length: usize },
    Flush,
    Read { chain: usize },
    Touch { chain: usize },
    Reopen { identity: u8, half: bool },
    Clear,
    Pause(bool),
}

fn operation() -> impl Strategy<Value = Operation> {
    let chain = 0..CHAINS;
    prop_oneof![
        4 => (chain.clone(), 1..=BLOCKS, 1..=BLOCKS).prop_map(|(chain, from, to)| Operation::Offer { chain, from, to }),
        2 => (chain.clone(), 1..=BLOCKS, 0usize..20_000)
            .prop_map(|(chain, block, length)| Operation::OfferSnapshot { chain, block, length }),
        3 => Just(Operation::Flush),
        4 => chain.clone().prop_map(|chain| Operation::Read { chain }),
        1 => chain.prop_map(|chain| Operation::Touch { chain }),
        2 => (1u8..=2, any::<bool>()).prop_map(|(identity, half)| Operation::Reopen { identity, half }),
        1 => Just(Operation::Clear),
        1 => any::<bool>().prop_map(Operation::Pause),
    ]
}

/// What was offered: a snapshot may come again with another length, and either may be the one that is kept.
type Model = HashMap<(DiskValueKind, BlockKey), Vec<Vec<u8>>>;

fn offer(cache: &DiskCache, model: &mut Model, entry: OfferedValue) {
    let (id, bytes) = ((entry.kind, entry.key), entry.bytes.clone());
    let offered = cache.offer(entry);
    if offered == Offered::Staged {
        model.entry(id).or_default().push(bytes);
    }
}

fn check_chain(cache: &DiskCache, model: &Model, keys: &[BlockKey]) -> Result<(), TestCaseError> {
    for kind in [DiskValueKind::Block, DiskValueKind::Snapshot] {
        for key in &keys[1..] {
            let there = cache.contains(kind, *key);
            let read = read(cache, kind, &[*key]);
            prop_assert!(!read.damaged);
            match read.values.first() {
                Some(bytes) => prop_assert!(model.get(&(kind, *key)).is_some_and(|offered| offered.contains(bytes))),
                // What waits may be refused between the two questions.
                None => prop_assert!(!there || !cache.contains(kind, *key)),
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: testkit::cases(60), ..ProptestConfig::default() })]

    #[test]
    fn a_hit_is_what_was_offered_and_the_limit_is_kept(operations in prop::collection::vec(operation(), 1..60)) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut model = Model::new();
        let (mut identity, mut limit) = (1, LIMIT);
        let mut cache = open(dir.path(), limit, identity);
        for operation in operations {
            match operation {
                Operation::Offer { chain: name, from, to } => {
                    let keys = chain(identity, name, BLOCKS);
                    let step = |n: usize| if from <= to { from + n } else { from - n };
                    (0..=from.abs_diff(to)).for_each(|n| offer(&cache, &mut model, block(&keys, step(n))));
                }
                Operation::OfferSnapshot { chain: name, block, length } => {
                    offer(&cache, &mut model, snapshot(&chain(identity, name, BLOCKS), block, length));
                }
                Operation::Flush => prop_assert!(cache.flush(WAIT)),
                Operation::Read { chain: name } => check_chain(&cache, &model, &chain(identity, name, BLOCKS))?,
                Operation::Touch { chain: name } => cache.touch(DiskValueKind::Block, &chain(identity, name, BLOCKS)),
                Operation::Reopen { identity: next, half } => {
                    prop_assert!(cache.close(WAIT));
                    (identity, limit) = (next, if half { LIMIT / 2 } else { LIMIT });
                    cache = open(dir.path(), limit, identity);
                }
                Operation::Clear => {
                    cache.clear().expect("cleared");
                    prop_assert_eq!(cache.stats().values, 0);
                }
                Operation::Pause(pause) => cache.pause(pause),
            }
            prop_assert!(size(dir.path()) <= limit);
        }
        for name in 0..CHAINS {
            check_chain(&cache, &model, &chain(identity, name, BLOCKS))?;
        }
        prop_assert!(cache.close(WAIT));
        prop_assert_eq!(crate::verify(dir.path()).expect("a report").damaged, 0);
    }
}
