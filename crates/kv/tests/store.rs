//! Random operations on a pool, each compared with a naive model of what its blocks hold.
#![allow(clippy::unwrap_used)] // helpers of tests
use kv::{BlockKey, BlockPool, BlockTable, CacheIdentity, KnownNext, SealedBlock};
use proptest::prelude::*;
use std::collections::HashMap;

const BLOCK_SIZE: usize = 2;
const NUM_BLOCKS: usize = 12;

/// What happens to the sequences of a pool.
#[derive(Debug, Clone)]
enum Operation {
    /// A sequence of these tokens begins with what the pool knows of it.
    Begin(Vec<u32>),
    /// The sequence of this number, modulo how many there are, computes up to so many of its tokens.
    Compute(usize, usize),
    /// It shares its blocks with a new one.
    Fork(usize),
    /// It gives back the blocks behind so many.
    Truncate(usize, usize),
    /// It ends.
    End(usize),
    /// All that nobody holds is forgotten.
    Clear,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    // Few tokens, so that sequences have prefixes in common.
    let tokens = prop::collection::vec(0..2u32, 1..14);
    let any = || 0..64usize;
    let operation = prop_oneof![
        4 => tokens.prop_map(Operation::Begin),
        6 => (any(), 1..8usize).prop_map(|(at, len)| Operation::Compute(at, len)),
        1 => any().prop_map(Operation::Fork),
        1 => (any(), 0..6usize).prop_map(|(at, len)| Operation::Truncate(at, len)),
        3 => any().prop_map(Operation::End),
        1 => Just(Operation::Clear),
    ];
    prop::collection::vec(operation, 1..60)
}

struct Sequence {
    tokens: Vec<u32>,
    keys: Vec<BlockKey>,
    computed: usize,
    table: BlockTable,
}

fn root() -> BlockKey {
    BlockKey::root(&CacheIdentity::new([]), "")
}

/// The pool, and what its blocks would hold.
struct Model {
    pool: BlockPool,
    /// The tokens in each block, with all those before them.
    contents: HashMap<u32, Vec<u32>>,
    sequences: Vec<Sequence>,
}

impl Model {
    fn apply(&mut self, operation: &Operation) {
        let count = self.sequences.len();
        match operation {
            Operation::Begin(tokens) => self.begin(tokens.clone()),
            Operation::Clear => self.pool.evict_cached(),
            _ if count == 0 => {}
            Operation::Compute(at, len) => self.compute(at % count, *len),
            Operation::End(at) => drop(self.sequences.swap_remove(at % count)),
            Operation::Fork(at) => {
                let Sequence { tokens, keys, computed, table } = &self.sequences[at % count];
                let (tokens, keys, table) = (tokens.clone(), keys.clone(), table.clone());
                self.sequences.push(Sequence { tokens, keys, computed: *computed, table });
            }
            Operation::Truncate(at, len) => {
                let seq = &mut self.sequences[at % count];
                seq.table.truncate(*len);
                seq.computed = seq.computed.min(len * BLOCK_SIZE);
            }
        }
    }

    fn begin(&mut self, tokens: Vec<u32>) {
        let keys: Vec<_> = root().chain(&tokens, BLOCK_SIZE).collect();
        let run = self.pool.known_run(&keys);
        let mut table = BlockTable::new(BLOCK_SIZE);
        let cached = self.pool.num_cached();
        table.extend(self.pool.lookup(&keys));
        assert_eq!((table.blocks().len(), cached - self.pool.num_cached()), (run.blocks, run.cached));
        let computed = table.capacity();
        for (index, id) in table.ids().into_iter().enumerate() {
            assert_eq!(self.contents[&id.0], tokens[..(index + 1) * BLOCK_SIZE], "a block under a wrong key");
        }
        let parent = run.blocks.checked_sub(1).map_or(root(), |last| keys[last]);
        if let KnownNext::Other(other) = self.pool.known_next(&parent, keys.get(run.blocks)) {
            assert_ne!(Some(&*other), tokens.get(computed..computed + BLOCK_SIZE), "the block is known");
        }
        self.sequences.push(Sequence { tokens, keys, computed, table });
    }

    fn compute(&mut self, at: usize, len: usize) {
        let seq = &mut self.sequences[at];
        let (from, to) = (seq.computed, (seq.computed + len).min(seq.tokens.len()));
        let (needed, available) = (seq.table.blocks_to_write(from, to), self.pool.num_available());
        let written = seq.table.prepare_write(&self.pool, from, to);
        assert_eq!(written.is_ok(), needed <= available);
        let Ok(copies) = written else { return };
        for copy in copies {
            let copied = self.contents[&copy.from.0].clone();
            self.contents.insert(copy.to.0, copied);
        }
        for position in from..to {
            let id = seq.table.ids()[position / BLOCK_SIZE];
            assert!(seq.table.blocks()[position / BLOCK_SIZE].is_writable());
            self.contents.insert(id.0, seq.tokens[..=position].to_vec());
        }
        for index in seq.computed / BLOCK_SIZE..to / BLOCK_SIZE {
            let end = (index + 1) * BLOCK_SIZE;
            let parent = index.checked_sub(1).map_or(root(), |before| seq.keys[before]);
            let tokens = seq.tokens[end - BLOCK_SIZE..end].into();
            seq.table.seal(&self.pool, index, SealedBlock { key: seq.keys[index], parent, tokens, end });
        }
        seq.computed = to;
    }

    /// Every sequence reads its own tokens, and no block is lost.
    fn check(&self) {
        self.pool.check().unwrap();
        let mut held: Vec<_> = self.sequences.iter().flat_map(|seq| seq.table.ids()).collect();
        held.sort();
        held.dedup();
        assert_eq!(held.len(), self.pool.num_held());
        let (free, cached) = (self.pool.num_free(), self.pool.num_cached());
        assert_eq!(free + held.len() + cached, NUM_BLOCKS);
        for seq in &self.sequences {
            for (index, id) in seq.table.ids().into_iter().enumerate().take(seq.computed.div_ceil(BLOCK_SIZE)) {
                let end = ((index + 1) * BLOCK_SIZE).min(seq.computed);
                let held = &self.contents[&id.0];
                assert_eq!(held[..end.min(held.len())], seq.tokens[..end], "block {} of a sequence", id.0);
            }
        }
    }
}

proptest! {
    #[test]
    fn blocks_hold_what_their_keys_say(operations in operations()) {
        let pool = BlockPool::new(NUM_BLOCKS);
        let mut model = Model { pool, contents: HashMap::new(), sequences: Vec::new() };
        for operation in &operations {
            model.apply(operation);
            model.check();
        }
        model.sequences.clear();
        model.check();
        prop_assert_eq!(model.pool.num_held(), 0);
    }
}
