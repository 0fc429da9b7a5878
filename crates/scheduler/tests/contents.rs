//! What blocks and state slots would hold: a random run in which every chunk must find what its sequence needs.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use kv::{BlockKey, CacheIdentity};
use proptest::prelude::*;
use scheduler::{BlockArchive, BlockLoad, NewRequest, PrefixUse, Scheduler, SchedulerConfig, Step};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

const BLOCK_SIZE: usize = 4;

/// What is kept of a sequence at the end of a block: all tokens up to there.
#[derive(Default)]
struct Archived {
    blocks: HashMap<BlockKey, Vec<u32>>,
    snapshots: HashMap<BlockKey, Vec<u32>>,
}

#[derive(Clone, Default)]
struct Archive(Arc<Mutex<Archived>>);

impl BlockArchive for Archive {
    fn run(&self, keys: &[BlockKey]) -> usize {
        let archived = self.0.lock().unwrap();
        keys.iter().take_while(|key| archived.blocks.contains_key(key)).count()
    }

    fn has_snapshot(&self, key: &BlockKey) -> bool {
        self.0.lock().unwrap().snapshots.contains_key(key)
    }
}

/// A machine that computes nothing, and remembers which tokens lie where.
struct Machine {
    scheduler: Scheduler,
    has_states: bool,
    archive: Archive,
    /// The tokens of each block, with all those before them.
    blocks: HashMap<u32, Vec<u32>>,
    /// The tokens that each state slot has taken in.
    states: HashMap<u32, Vec<u32>>,
    loads: Vec<BlockLoad>,
}

impl Machine {
    /// Carries out a step. One that fails leaves anything in what it was to write.
    fn run(&mut self, step: &Step, fails: bool) {
        for eviction in &step.evictions {
            let key = eviction.evicted.sealed.key;
            let mut archived = self.archive.0.lock().unwrap();
            archived.blocks.insert(key, self.blocks[&eviction.evicted.block.0].clone());
            if let Some(slot) = eviction.snapshot {
                archived.snapshots.insert(key, self.states[&slot].clone());
            }
        }
        for copy in &step.copies {
            self.blocks.insert(copy.to.0, self.blocks[&copy.from.0].clone());
        }
        for copy in &step.state_copies {
            self.states.insert(copy.to.0, self.states[&copy.from.0].clone());
        }
        for chunk in &step.chunks {
            let seq = self.scheduler.sequence(chunk.seq).unwrap();
            let (tokens, end) = ([seq.tokens(), &chunk.draft].concat(), chunk.start + chunk.len);
            let ids = seq.table().ids();
            for (index, id) in ids.iter().enumerate().take(chunk.start.div_ceil(BLOCK_SIZE)) {
                let known = chunk.start.min((index + 1) * BLOCK_SIZE);
                assert_eq!(self.blocks[&id.0][..known], tokens[..known], "block {index} of {}", chunk.seq);
            }
            for position in chunk.start..end {
                let written = if fails { vec![u32::MAX] } else { tokens[..=position].to_vec() };
                self.blocks.insert(ids[position / BLOCK_SIZE].0, written);
            }
            let slot = seq.state_slot().unwrap();
            if self.has_states && chunk.start > 0 {
                assert_eq!(self.states[&slot], tokens[..chunk.start], "the states of {}", chunk.seq);
            }
            self.states.insert(slot, if fails { vec![u32::MAX] } else { tokens[..end].to_vec() });
        }
        for copy in &step.snapshots {
            self.states.insert(copy.to.0, self.states[&copy.from.0].clone());
        }
        self.loads.extend(step.loads.iter().cloned());
    }

    /// Ends the oldest load, of which `share` out of 4 can be read.
    fn load(&mut self, share: usize) {
        if self.loads.is_empty() {
            return;
        }
        let load = self.loads.remove(0);
        let Some((targets, slot)) = self.scheduler.load_target(&load) else { return };
        let archived = self.archive.0.lock().unwrap();
        let read = (load.keys.len() * share).div_ceil(4);
        for (key, block) in load.keys.iter().zip(&targets).take(read) {
            self.blocks.insert(block.0, archived.blocks[key].clone());
        }
        let snapshot = load.snapshot.filter(|_| share == 4);
        if let Some(key) = snapshot {
            self.states.insert(slot.unwrap(), archived.snapshots[&key].clone());
        }
        drop(archived);
        self.scheduler.finish_load(&load, read, snapshot.is_some());
    }

    /// Runs until nothing is left. `fails`: steps that the device does not finish.
    fn finish(&mut self, requests: &[Request], fails: &[usize]) {
        for number in 0..2000 {
            for (key, request) in requests.iter().enumerate().filter(|(_, request)| request.arrives == number) {
                self.scheduler.add(request.to_new(key as u64)).unwrap();
            }
            if number > 40 && self.scheduler.is_idle() {
                return;
            }
            let step = self.scheduler.schedule();
            assert!(!step.chunks.is_empty() || self.scheduler.is_idle() || self.loads.len() + step.loads.len() > 0);
            self.run(&step, fails.contains(&number));
            if fails.contains(&number) {
                step.chunks.iter().for_each(|chunk| self.scheduler.abort(chunk.seq.request));
            } else {
                self.sample(&step);
            }
            self.load(1 + number % 4);
            self.scheduler.check().unwrap();
        }
        panic!("not idle:\n{}", self.scheduler);
    }

    /// Answers are runs of tokens, as prompts are, so that some drafts are right, some in part.
    fn sample(&mut self, step: &Step) {
        common::finish_with(&mut self.scheduler, step, |id, at| id.choice ^ u32::from(at % 11 == 3));
        for (at, rows) in self.scheduler.replays(step) {
            let chunk = &step.chunks[at];
            let seq = self.scheduler.sequence(chunk.seq).unwrap();
            let states = self.states.get_mut(&seq.state_slot().unwrap()).unwrap();
            assert_eq!(states[..], seq.tokens()[..chunk.start], "the states before the draft of {}", chunk.seq);
            *states = seq.tokens()[..chunk.start + rows].to_vec();
        }
    }
}

#[derive(Debug, Clone)]
struct Request {
    prompt: Vec<u32>,
    output: usize,
    choices: u32,
    arrives: usize,
    reuse: bool,
}

impl Request {
    fn to_new(&self, key: u64) -> NewRequest {
        let root = BlockKey::root(&CacheIdentity::new([]), "");
        NewRequest {
            key,
            client: String::new(),
            prompt: self.prompt.clone(),
            choices: self.choices,
            max_len: self.prompt.len() + self.output,
            prefix: Some(PrefixUse { root, salted: false, reuse: self.reuse }),
        }
    }
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    // Few tokens in runs, so that prompts have prefixes in common.
    let prompt = prop::collection::vec((0..2u32, 1..9usize), 1..8);
    let prompt = prompt.prop_map(|runs| runs.into_iter().flat_map(|(token, len)| vec![token; len]).collect());
    let request = (prompt, 1..12usize, 1..3u32, 0..40usize, prop::bool::weighted(0.9));
    let request = request.prop_map(|(prompt, output, choices, arrives, reuse)| Request {
        prompt,
        output,
        choices,
        arrives,
        reuse,
    });
    prop::collection::vec(request, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_chunk_finds_what_was_computed_of_its_sequence(
        requests in requests(),
        num_blocks in 20usize..40,
        num_snapshots in 0usize..6,
        archives in any::<bool>(),
        max_draft_tokens in 0usize..9,
        fails in prop::collection::vec(0usize..60, 0..3),
    ) {
        let has_states = num_snapshots > 0;
        let config = SchedulerConfig {
            block_size: BLOCK_SIZE,
            num_blocks,
            max_num_seqs: 4,
            num_snapshots,
            max_num_batched_tokens: 24,
            max_step_time: None,
            max_draft_tokens,
            has_states,
        };
        let archive = Archive::default();
        let scheduler = Scheduler::new(config).unwrap();
        let scheduler = if archives { scheduler.with_archive(Box::new(archive.clone())) } else { scheduler };
        let mut machine = Machine {
            scheduler,
            has_states,
            archive,
            blocks: HashMap::new(),
            states: HashMap::new(),
            loads: Vec::new(),
        };
        machine.finish(&requests, &fails);
        prop_assert_eq!(machine.scheduler.pool().num_held(), 0);
    }
}
