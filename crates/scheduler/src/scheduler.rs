//! The scheduler: a step's decodes, admission, prefills and preemptions. The crate's documentation states the rules.
use crate::config::{Restraint, SchedulerConfig, SchedulerError};
use crate::fair::{FairQueue, OUTPUT_WEIGHT};
use crate::limits::{RequestError, RequestLimits};
use crate::prefix::BlockArchive;
use crate::row_times::RowTimes;
use crate::sequence::{NewRequest, RequestKey, SeqId, Sequence};
use crate::snapshots::Snapshots;
use crate::step::{Chunk, Eviction, Step};
use crate::step_time::{MIN_PREFILL_TOKENS, PrefillBudget, StepTimes};
use kv::{Block, BlockCopy, BlockPool};
use std::collections::BTreeSet;
use std::time::Duration;

/// All sequences, and the blocks that they share.
pub struct Scheduler {
    pub(crate) config: SchedulerConfig,
    pub(crate) pool: BlockPool,
    /// The state slots of sequences; a running one holds one, and there are `max_num_seqs`.
    pub(crate) state_slots: BlockPool,
    /// The state slots after those, of snapshots.
    pub(crate) snapshots: Snapshots,
    /// The state copies of the next step.
    pub(crate) state_copies: Vec<BlockCopy>,
    /// Where blocks come from that are not in the pool.
    pub(crate) archive: Option<Box<dyn BlockArchive>>,
    /// Loads so far.
    pub(crate) num_loads: u64,
    /// Requests that have not been admitted.
    pub(crate) waiting: FairQueue<Sequence>,
    /// Sequences that have lost their blocks, oldest first; they are admitted before whatever waits.
    pub(crate) preempted: Vec<Sequence>,
    /// Sequences with blocks, oldest first.
    pub(crate) running: Vec<Sequence>,
    num_preemptions: u64,
    pub(crate) restraint: Restraint,
    step_times: StepTimes,
    /// What further rows add to a step of decodes.
    pub(crate) row_times: RowTimes,
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
            snapshots: Snapshots::new(config.num_snapshots, config.max_num_seqs),
            state_copies: Vec::new(),
            archive: None,
            num_loads: 0,
            config,
            waiting: FairQueue::default(),
            preempted: Vec::new(),
            running: Vec::new(),
            num_preemptions: 0,
            restraint: Restraint::None,
            step_times: StepTimes::default(),
            row_times: RowTimes::default(),
        })
    }

    /// A scheduler that also brings blocks from an archive, where that is worth it.
    pub fn with_archive(self, archive: Box<dyn BlockArchive>) -> Self {
        Scheduler { archive: Some(archive), ..self }
    }

    /// The limits within which it works.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// Queues a request.
    ///
    /// Errors: what could never be scheduled, with the limit named.
    pub fn add(&mut self, request: NewRequest) -> Result<(), RequestError> {
        let SchedulerConfig { block_size, num_blocks, max_num_seqs, .. } = self.config;
        let limits = RequestLimits { max_choices: max_num_seqs, capacity: num_blocks * block_size };
        limits.check(request.choices as usize, request.max_len)?;
        self.waiting.push(&request.client.clone(), Sequence::new(request, block_size));
        Ok(())
    }

    /// Decides the next step and takes the blocks for it. A step without chunks means that nothing is left to do, that
    /// whatever runs waits for a load, or that requests wait for memory.
    pub fn schedule(&mut self) -> Step {
        // What a step planned that was not told of has not happened.
        self.snapshots.drop_planned();
        let mut step = Step::default();
        let mut tokens = self.config.max_num_batched_tokens;
        self.preempt_to_restraint(&mut step);
        self.schedule_decodes(&mut step, &mut tokens);
        if step.preempted.is_empty() && tokens > 0 {
            self.admit(&mut step);
        }
        let drafts = self.plan_drafts(&step, &mut tokens);
        let drafted = drafts.iter().map(|(_, draft)| draft.len()).sum();
        self.schedule_prefills(&mut step, tokens, drafted);
        self.add_drafts(&mut step, drafts);
        step.state_copies = std::mem::take(&mut self.state_copies);
        step.evictions = self.take_evictions();
        self.plan_snapshots(&mut step);
        step
    }

    /// What has been evicted for the step, with its snapshots, which are of no use without it.
    fn take_evictions(&mut self) -> Vec<Eviction> {
        let evicted = self.pool.take_evicted().into_iter();
        let with_snapshot = |evicted: kv::EvictedBlock| {
            let snapshot = self.snapshots.remove(&evicted.sealed.key);
            Eviction { evicted, snapshot }
        };
        evicted.map(with_snapshot).collect()
    }

    /// Plans the snapshots of a step's sequences: at the cuts of prompts, and at each block boundary of an answer,
    /// where it takes the place of the one before.
    fn plan_snapshots(&mut self, step: &mut Step) {
        if self.snapshots.capacity() == 0 || self.restraint >= Restraint::NoSnapshots {
            return;
        }
        let block_size = self.config.block_size;
        for chunk in &step.chunks {
            let Some(seq) = self.running.iter_mut().find(|seq| seq.id == chunk.seq) else { continue };
            let end = chunk.start + chunk.len;
            let answers = end > seq.prompt_len && end == seq.tokens.len();
            if !answers && !seq.cuts.contains(&end) {
                continue;
            }
            seq.extend_keys(block_size);
            let (Some(key), Some(from)) = (seq.key_at(end, block_size), seq.state_slot.as_ref()) else { continue };
            if answers && let Some(before) = seq.decode_snapshot.replace(key) {
                self.snapshots.remove(&before);
            }
            if let Some(to) = self.snapshots.plan(key) {
                step.snapshots.push(BlockCopy { from: from.id(), to: kv::BlockId(to) });
            }
        }
    }

    fn schedule_decodes(&mut self, step: &mut Step, tokens: &mut usize) {
        let mut at = 0;
        while at < self.running.len() {
            if self.running[at].decodes() && *tokens > 0 && self.take_blocks(at, 1, step) {
                *tokens -= 1;
            }
            at += 1;
        }
    }

    /// `drafted`: tokens of drafts that will be added to the step.
    fn schedule_prefills(&mut self, step: &mut Step, tokens: usize, drafted: usize) {
        for (id, share) in self.prefill_shares(step, tokens, drafted) {
            // An older one may have preempted it meanwhile.
            let Some(at) = self.running.iter().position(|s| s.id == id) else { continue };
            self.take_blocks(at, share, step);
        }
    }

    /// How many tokens each sequence gets that is not in the step yet, oldest first: half of the budget goes to the
    /// oldest, the rest to those with the fewest tokens left. Those that wait for a load, or for another sequence to
    /// compute what they have in common, get none.
    fn prefill_shares(&mut self, step: &Step, tokens: usize, drafted: usize) -> Vec<(SeqId, usize)> {
        let decodes: BTreeSet<_> = step.chunks.iter().map(|c| c.seq).collect();
        let ready = self.ready_prefills(&decodes);
        let prefills: Vec<_> = self.running.iter().filter(|s| ready.contains(&s.id)).collect();
        let rows = step.num_tokens() + drafted;
        let mut budget = PrefillBudget { tokens, seconds: self.prefill_seconds(rows, &prefills) };
        let mut shares = vec![0; prefills.len()];
        let mut give = |budget: &mut PrefillBudget, at: usize| {
            let seq = prefills[at];
            shares[at] += budget.take(seq.tokens_to_cut() - shares[at], self.token_seconds(seq));
        };
        let mut by_age = budget.split_half();
        (0..prefills.len()).for_each(|at| give(&mut by_age, at));
        budget.give_back(by_age);
        let mut by_length: Vec<_> = (0..prefills.len()).collect();
        by_length.sort_by_key(|&at| prefills[at].pending());
        by_length.into_iter().for_each(|at| give(&mut budget, at));
        prefills.iter().zip(shares).filter(|(_, share)| *share > 0).map(|(seq, share)| (seq.id, share)).collect()
    }

    /// Seconds that prefills may add to a step whose decodes have `rows` rows: what these leave of `max_step_time`, but
    /// never less than [`MIN_PREFILL_TOKENS`] take. Without decodes nobody waits for the step, and time does not
    /// matter.
    fn prefill_seconds(&self, rows: usize, prefills: &[&Sequence]) -> f64 {
        let Some(most) = self.config.max_step_time.filter(|_| rows > 0) else { return f64::INFINITY };
        let slowest = prefills.iter().map(|seq| self.token_seconds(seq)).fold(0.0, f64::max);
        (most.as_secs_f64() - self.step_times.decodes(rows)).max(MIN_PREFILL_TOKENS as f64 * slowest)
    }

    /// Seconds that the next token of a sequence's prompt adds to a step. Before any has been measured, so many that a
    /// step has time for the fewest tokens alone.
    fn token_seconds(&self, seq: &Sequence) -> f64 {
        let unknown = self.config.max_step_time.unwrap_or_default().as_secs_f64() / MIN_PREFILL_TOKENS as f64;
        self.step_times.per_token(seq.computed).unwrap_or(unknown)
    }

    /// Takes in how long the model took for a step. Later steps are made as long as `max_step_time` allows by it.
    pub fn measured(&mut self, step: &Step, elapsed: Duration) {
        let (decodes, prefills): (Vec<&Chunk>, _) = step.chunks.iter().partition(|chunk| chunk.own_len() == 1);
        let prefills: Vec<_> = prefills.into_iter().map(|chunk| (chunk.start, chunk.len)).collect();
        let rows = decodes.iter().map(|chunk| chunk.len).sum();
        self.step_times.learn(rows, &prefills, elapsed);
        if prefills.is_empty() {
            self.row_times.learn(rows, elapsed.as_secs_f64());
        }
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
                step.chunks.push(Chunk { seq: seq.id, start: from, len, samples, draft: Vec::new() });
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
    pub(crate) fn preempt(&mut self, at: usize, step: &mut Step) {
        let mut seq = self.running.remove(at);
        seq.clear();
        (seq.state_slot, seq.state_before_draft, seq.was_preempted) = (None, None, true);
        self.num_preemptions += 1;
        step.preempted.push(seq.id);
        // A chunk of it that is in this step already is not computed.
        step.chunks.retain(|c| c.seq != seq.id);
        let place = self.preempted.partition_point(|s| s.id < seq.id);
        self.preempted.insert(place, seq);
    }

    /// A state slot. One is free: there are `max_num_seqs`, and no more sequences run.
    pub(crate) fn take_state_slot(&self) -> Option<Block> {
        self.state_slots.allocate(1).ok()?.pop()
    }

    /// Notes what a step has computed, and appends the tokens that were sampled from it: of a sequence with a draft as
    /// many as were found to be right, in order, and the one after them. A finished prompt with n > 1 is forked into n
    /// sequences here.
    pub fn update(&mut self, step: &Step, sampled: &[(SeqId, u32)]) {
        self.snapshots.keep_planned();
        for chunk in &step.chunks {
            let Some(at) = self.running.iter().position(|s| s.id == chunk.seq) else { continue };
            let seq = &mut self.running[at];
            seq.computed = chunk.start + chunk.own_len();
            seq.seal_computed(&self.pool, self.config.block_size);
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
        step.chunks.iter().filter(|chunk| !chunk.draft.is_empty()).for_each(|chunk| self.settle_draft(chunk));
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
        self.waiting.remove(|seq| seq.id.request == request);
        let ids: Vec<_> = self.sequences().filter(|s| s.id.request == request).map(|s| s.id).collect();
        ids.into_iter().for_each(|id| self.finish(id));
    }

    /// Forgets all blocks and snapshots that no sequence holds.
    pub fn clear_cache(&mut self) {
        self.pool.evict_cached();
        drop(self.pool.take_evicted());
        self.snapshots.clear();
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

    /// How many state slots there are, those of snapshots included.
    pub fn num_state_slots(&self) -> usize {
        self.state_slots.num_blocks() + self.snapshots.capacity()
    }

    /// The state slot of the snapshot at the end of a block, if there is one.
    pub fn snapshot(&self, key: &kv::BlockKey) -> Option<u32> {
        self.snapshots.slot(key)
    }

    /// How many snapshots there are.
    pub fn num_snapshots(&self) -> usize {
        self.snapshots.len()
    }

    /// Checks that no block is lost: free, cached and held blocks are all there are, and those held are the ones in the
    /// tables.
    ///
    /// Errors: what is violated, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        self.pool.check()?;
        let held: BTreeSet<_> = self.sequences().flat_map(|s| s.table.ids()).collect();
        let (used, held) = (self.pool.num_held(), held.len());
        if used != held {
            return Err(format!("{used} blocks are held, {held} by the tables"));
        }
        self.snapshots.check()?;
        self.state_slots.check()?;
        let (slots, running) = (self.state_slots.num_held(), self.running.len());
        if slots != running || self.running.iter().any(|s| s.state_slot.is_none()) {
            return Err(format!("{slots} state slots are in use by {running} running sequences"));
        }
        match self.sequences().find(|s| s.computed > s.tokens.len() || s.computed > s.table.capacity()) {
            Some(s) => Err(format!("sequence {} has {} of {} tokens computed", s.id, s.computed, s.tokens.len())),
            None => Ok(()),
        }
    }
}
