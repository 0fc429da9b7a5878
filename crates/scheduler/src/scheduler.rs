//! The scheduler: a step's decodes, admission, prefills and preemptions. The crate's documentation states the rules.
use crate::fair::{FairQueue, OUTPUT_WEIGHT};
use crate::limits::{RequestError, RequestLimits};
use crate::sequence::{NewRequest, RequestKey, SeqId, Sequence};
use kv::{Block, BlockCopy, BlockPool};
use std::collections::BTreeSet;
use std::ops::Range;
use thiserror::Error;

/// The limits within which sequences run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Tokens of a block.
    pub block_size: usize,
    /// Blocks of the cache.
    pub num_blocks: usize,
    /// Sequences that may run at once; every choice of a request counts.
    pub max_num_seqs: usize,
    /// Tokens of one step.
    pub max_num_batched_tokens: usize,
}

/// Most `--max-num-seqs`: each sequence has a state slot, whose memory is taken at start.
pub const MAX_NUM_SEQS: usize = 1 << 16;

impl SchedulerConfig {
    /// Errors: numbers of sequences and of tokens that are wrong whatever the number of blocks.
    pub fn check(&self) -> Result<(), SchedulerError> {
        let (tokens, seqs) = (self.max_num_batched_tokens, self.max_num_seqs);
        if !(1..=MAX_NUM_SEQS).contains(&seqs) {
            return Err(SchedulerError::NumSeqs { seqs });
        }
        if tokens < seqs {
            return Err(SchedulerError::Budget { tokens, seqs });
        }
        Ok(())
    }
}

/// Why there is no scheduler for a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchedulerError {
    /// A step has fewer tokens than there may be sequences.
    #[error(
        "--max-num-batched-tokens is {tokens}; it must be at least --max-num-seqs, {seqs}, or running \
         sequences would starve"
    )]
    Budget {
        /// `--max-num-batched-tokens`.
        tokens: usize,
        /// `--max-num-seqs`.
        seqs: usize,
    },
    /// There are no sequences, or too many.
    #[error("--max-num-seqs is {seqs}; it must lie in [1, {MAX_NUM_SEQS}]")]
    NumSeqs {
        /// `--max-num-seqs`.
        seqs: usize,
    },
}

/// The tokens of one sequence that a step computes: `start..start + len`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The sequence.
    pub seq: SeqId,
    /// The position of the first token.
    pub start: usize,
    /// How many tokens there are.
    pub len: usize,
    /// The choices whose next token is sampled from the logits of the last token; none while the prompt goes on.
    pub samples: Range<u32>,
}

/// What a step computes, and what it copies before.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Step {
    /// Copies of blocks, which are carried out first, in order.
    pub copies: Vec<BlockCopy>,
    /// Copies of state slots, which forked choices begin with; they too are carried out first.
    pub state_copies: Vec<BlockCopy>,
    /// What is computed.
    pub chunks: Vec<Chunk>,
    /// Sequences that lost their blocks in this step.
    pub preempted: Vec<SeqId>,
}

impl Step {
    /// Tokens of all chunks.
    pub fn num_tokens(&self) -> usize {
        self.chunks.iter().map(|c| c.len).sum()
    }
}

/// All sequences, and the blocks that they share.
pub struct Scheduler {
    pub(crate) config: SchedulerConfig,
    pub(crate) pool: BlockPool,
    /// The state slots; a running sequence holds one, and there are `max_num_seqs`.
    state_slots: BlockPool,
    /// The state copies of the next step.
    state_copies: Vec<BlockCopy>,
    /// Requests that have not been admitted.
    pub(crate) waiting: FairQueue<NewRequest>,
    /// Sequences that have lost their blocks, oldest first; they are admitted before whatever waits.
    pub(crate) preempted: Vec<Sequence>,
    /// Sequences with blocks, oldest first.
    pub(crate) running: Vec<Sequence>,
    num_preemptions: u64,
}

impl Scheduler {
    /// A scheduler without requests.
    ///
    /// Errors: those of [`SchedulerConfig::check`].
    pub fn new(config: SchedulerConfig) -> Result<Self, SchedulerError> {
        config.check()?;
        Ok(Scheduler {
            pool: BlockPool::new(config.num_blocks),
            state_slots: BlockPool::new(config.max_num_seqs),
            state_copies: Vec::new(),
            config,
            waiting: FairQueue::default(),
            preempted: Vec::new(),
            running: Vec::new(),
            num_preemptions: 0,
        })
    }

    /// Queues a request.
    ///
    /// Errors: what could never be scheduled, with the limit named.
    pub fn add(&mut self, request: NewRequest) -> Result<(), RequestError> {
        let SchedulerConfig { block_size, num_blocks, max_num_seqs, .. } = self.config;
        let limits = RequestLimits { max_choices: max_num_seqs, capacity: num_blocks * block_size };
        limits.check(request.choices as usize, request.max_len)?;
        self.waiting.push(&request.client.clone(), request);
        Ok(())
    }

    /// Decides the next step and takes the blocks for it. An empty step means that nothing is left to do.
    pub fn schedule(&mut self) -> Step {
        let mut step = Step { state_copies: std::mem::take(&mut self.state_copies), ..Step::default() };
        let mut budget = self.config.max_num_batched_tokens;
        self.schedule_decodes(&mut step, &mut budget);
        if step.preempted.is_empty() && budget > 0 {
            self.admit();
        }
        self.schedule_prefills(&mut step, budget);
        step
    }

    fn schedule_decodes(&mut self, step: &mut Step, budget: &mut usize) {
        let mut at = 0;
        while at < self.running.len() {
            if self.running[at].pending() == 1 && *budget > 0 && self.take_blocks(at, 1, step) {
                *budget -= 1;
            }
            at += 1;
        }
    }

    fn schedule_prefills(&mut self, step: &mut Step, budget: usize) {
        for (id, share) in self.prefill_shares(step, budget) {
            // An older one may have preempted it meanwhile.
            let Some(at) = self.running.iter().position(|s| s.id == id) else { continue };
            self.take_blocks(at, share, step);
        }
    }

    /// How many tokens each sequence gets that is not in the step yet, oldest first: half of the budget goes to the
    /// oldest, the rest to those with the fewest tokens left.
    fn prefill_shares(&self, step: &Step, budget: usize) -> Vec<(SeqId, usize)> {
        let decodes: BTreeSet<_> = step.chunks.iter().map(|c| c.seq).collect();
        let prefills = self.running.iter().filter(|s| !decodes.contains(&s.id));
        let mut list: Vec<_> = prefills.map(|s| (s.id, s.pending(), 0)).collect();
        let mut left = budget;
        let mut give = |entry: &mut (SeqId, usize, usize), most: usize| {
            let share = (entry.1 - entry.2).min(most).min(left);
            entry.2 += share;
            left -= share;
            share
        };
        let mut by_age = budget.div_ceil(2);
        for entry in &mut list {
            by_age -= give(entry, by_age);
        }
        let mut by_length: Vec<_> = (0..list.len()).collect();
        by_length.sort_by_key(|&i| list[i].1);
        for i in by_length {
            give(&mut list[i], budget);
        }
        list.into_iter().filter(|e| e.2 > 0).map(|(id, _, share)| (id, share)).collect()
    }

    /// Makes room for the next `len` tokens of `running[at]` and adds the chunk to the step. While no blocks are free,
    /// the newest sequence is preempted: a decode may have to preempt itself, a prefill that is the newest waits with
    /// what it has. False if the tokens must wait.
    fn take_blocks(&mut self, at: usize, len: usize, step: &mut Step) -> bool {
        loop {
            let seq = &mut self.running[at];
            let from = seq.computed;
            if let Ok(copies) = seq.table.prepare_write(&self.pool, from, from + len) {
                let samples =
                    if from + len == seq.tokens.len() { seq.id.choice..seq.id.choice + seq.choices } else { 0..0 };
                step.copies.extend(copies);
                step.chunks.push(Chunk { seq: seq.id, start: from, len, samples });
                return true;
            }
            let waits = seq.pending() > 1;
            let newest = self.running.len() - 1;
            if newest == at && waits {
                return false;
            }
            self.preempt(newest, step);
            if newest == at {
                return false;
            }
        }
    }

    /// Takes all blocks from `running[at]`.
    fn preempt(&mut self, at: usize, step: &mut Step) {
        let mut seq = self.running.remove(at);
        seq.table.clear();
        seq.computed = 0;
        seq.state_slot = None;
        self.num_preemptions += 1;
        step.preempted.push(seq.id);
        // A chunk of it that is in this step already is not computed.
        step.chunks.retain(|c| c.seq != seq.id);
        let place = self.preempted.partition_point(|s| s.id < seq.id);
        self.preempted.insert(place, seq);
    }

    /// Admits sequences while there are blocks and fewer than `max_num_seqs` run; the first that does not fit holds up
    /// those behind it.
    fn admit(&mut self) {
        while let Some(mut seq) = self.next_to_admit() {
            seq.state_slot = self.take_state_slot();
            let place = self.running.partition_point(|s| s.id < seq.id);
            self.running.insert(place, seq);
        }
    }

    /// A state slot. One is free: there are `max_num_seqs`, and no more sequences run.
    fn take_state_slot(&self) -> Option<Block> {
        self.state_slots.allocate(1).ok()?.pop()
    }

    /// Takes the next sequence out of those that wait, if it fits.
    fn next_to_admit(&mut self) -> Option<Sequence> {
        if let Some(seq) = self.preempted.first() {
            return self.fits(seq.tokens.len(), seq.choices).then(|| self.preempted.remove(0));
        }
        let next = self.waiting.peek()?;
        if !self.fits(next.prompt.len(), next.choices) {
            return None;
        }
        let request = self.waiting.pop()?;
        self.waiting.charge(&request.client, request.prompt.len() as u64);
        Some(Sequence::new(request, self.config.block_size))
    }

    /// Whether a sequence of `len` tokens that stands for `choices` choices can run: `max_num_seqs` allows it, and
    /// there are free blocks for its tokens and one more for each choice, beside those that admitted prefills still
    /// need. Where nothing runs, whatever the pool can hold fits.
    fn fits(&self, len: usize, choices: u32) -> bool {
        let running: u32 = self.running.iter().map(|s| s.choices).sum();
        if (running + choices) as usize > self.config.max_num_seqs {
            return false;
        }
        if self.running.is_empty() {
            return true;
        }
        let promised: usize = self
            .running
            .iter()
            .map(|s| s.table.blocks_to_write(s.computed, s.tokens.len()) + s.choices as usize - 1)
            .sum();
        promised + len.div_ceil(self.config.block_size) + choices as usize <= self.pool.num_free()
    }

    /// Notes what a step has computed, and appends the tokens that were sampled from it. A finished prompt with n > 1
    /// is forked into n sequences here.
    pub fn update(&mut self, step: &Step, sampled: &[(SeqId, u32)]) {
        for chunk in &step.chunks {
            let Some(at) = self.running.iter().position(|s| s.id == chunk.seq) else { continue };
            let seq = &mut self.running[at];
            seq.computed = chunk.start + chunk.len;
            if chunk.samples.len() > 1 {
                seq.choices = 1;
                let seq = &self.running[at];
                let forks: Vec<_> =
                    chunk.samples.clone().skip(1).map(|choice| seq.fork(choice, self.take_state_slot())).collect();
                let from = seq.state_slot.as_ref().map(Block::id);
                let copies =
                    forks.iter().filter_map(|f| Some(BlockCopy { from: from?, to: f.state_slot.as_ref()?.id() }));
                self.state_copies.extend(copies);
                self.running.splice(at + 1..at + 1, forks);
            }
        }
        for &(id, token) in sampled {
            if let Some(seq) = self.running.iter_mut().find(|s| s.id == id) {
                seq.tokens.push(token);
                self.waiting.charge(&seq.client, OUTPUT_WEIGHT);
            }
        }
    }

    /// Ends a sequence; its blocks are free at once. Unknown ids are ignored.
    pub fn finish(&mut self, id: SeqId) {
        let ended: Vec<_> = [&mut self.running, &mut self.preempted]
            .into_iter()
            .filter_map(|list| list.iter().position(|s| s.id == id).map(|at| list.remove(at)))
            .collect();
        for seq in ended {
            let others = self.running.iter().chain(&self.preempted).any(|s| s.id.request == id.request);
            if !others {
                self.waiting.end(&seq.client);
            }
        }
    }

    /// Ends a request that waits and all its sequences. Unknown keys are ignored.
    pub fn abort(&mut self, request: RequestKey) {
        self.waiting.remove(|r| r.key == request);
        let ids: Vec<_> = self.sequences().filter(|s| s.id.request == request).map(|s| s.id).collect();
        ids.into_iter().for_each(|id| self.finish(id));
    }

    fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        self.running.iter().chain(&self.preempted)
    }

    /// A running or preempted sequence.
    pub fn sequence(&self, id: SeqId) -> Option<&Sequence> {
        self.sequences().find(|s| s.id == id)
    }

    /// Whether no request is left.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.preempted.is_empty() && self.waiting.is_empty()
    }

    /// Sequences with blocks.
    pub fn num_running(&self) -> usize {
        self.running.len()
    }

    /// Requests and preempted sequences that wait for blocks.
    pub fn num_waiting(&self) -> usize {
        self.waiting.len() + self.preempted.len()
    }

    /// Preemptions so far.
    pub fn num_preemptions(&self) -> u64 {
        self.num_preemptions
    }

    /// The blocks of the cache.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// How many state slots there are.
    pub fn num_state_slots(&self) -> usize {
        self.state_slots.num_blocks()
    }

    /// Checks that no block is lost: free and held blocks are all there are, and those held are the ones in the tables.
    ///
    /// Errors: what is violated, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        self.pool.check()?;
        let held: BTreeSet<_> = self.sequences().flat_map(|s| s.table.ids()).collect();
        let (used, held) = (self.pool.num_used(), held.len());
        if used != held {
            return Err(format!("{used} blocks are in use, the tables hold {held}"));
        }
        self.state_slots.check()?;
        let (slots, running) = (self.state_slots.num_used(), self.running.len());
        if slots != running || self.running.iter().any(|s| s.state_slot.is_none()) {
            return Err(format!("{slots} state slots are in use by {running} running sequences"));
        }
        match self.sequences().find(|s| s.computed > s.tokens.len() || s.computed > s.table.capacity()) {
            Some(s) => Err(format!("sequence {} has {} of {} tokens computed", s.id, s.computed, s.tokens.len())),
            None => Ok(()),
        }
    }
}
