//! Admission: the sequences that run, and how much of their tokens is already computed.
use crate::known_prefix::{KnownPrefix, miss};
use crate::prefix::PrefixReport;
use crate::scheduler::Scheduler;
use crate::sequence::{SeqId, Sequence};
use crate::step::{BlockLoad, Step};
use kv::{BlockCopy, BlockId};
use std::collections::BTreeSet;

impl Scheduler {
    /// Admits sequences while there are blocks and fewer than `max_num_seqs` run; the first that does not fit holds up
    /// those after it.
    pub(crate) fn admit(&mut self, step: &mut Step) {
        while let Some((mut seq, prefix)) = self.next_to_admit() {
            seq.state_slot = self.take_state_slot();
            self.reuse(&mut seq, &prefix, step);
            let place = self.running.partition_point(|s| s.id < seq.id);
            self.running.insert(place, seq);
        }
    }

    /// Takes the next sequence out of those that wait, if it fits and may be admitted.
    fn next_to_admit(&mut self) -> Option<(Sequence, KnownPrefix)> {
        if self.runs_one() && (!self.running.is_empty() || self.preempted.is_empty()) {
            return None;
        }
        if let Some(seq) = self.preempted.first() {
            let prefix = self.known_prefix(seq, true);
            return self.fits(seq, &prefix).then(|| (self.preempted.remove(0), prefix));
        }
        let next = self.waiting.peek()?;
        let prefix = self.known_prefix(next, true);
        if !self.fits(next, &prefix) {
            return None;
        }
        let mut seq = self.waiting.pop()?;
        let reused = prefix.blocks() * self.config.block_size;
        self.waiting.charge(&seq.client, (seq.tokens.len() - reused) as u64);
        seq.report = Some(self.report(&seq, &prefix));
        Some((seq, prefix))
    }

    /// Whether a sequence can run: `max_num_seqs` allows its choices, and there are blocks for its tokens, without
    /// those that are known, and one more for each choice, beside those that admitted prefills still need. A block
    /// that nobody holds counts, whether it is free or cached. Where nothing runs, whatever the pool can hold fits.
    fn fits(&self, seq: &Sequence, prefix: &KnownPrefix) -> bool {
        let running: u32 = self.running.iter().map(|s| s.choices).sum();
        if (running + seq.choices) as usize > self.config.max_num_seqs {
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
        let needed = seq.tokens.len().div_ceil(self.config.block_size) - prefix.in_memory + seq.choices as usize;
        // Cached blocks that it uses itself are not available to it.
        promised + needed + prefix.cached <= self.pool.num_available()
    }

    /// The first blocks of a sequence that need not be computed: those that the pool has, and after them those of the
    /// archive. Where there are recurrent states, the last of them must have a snapshot.
    fn known_prefix(&self, seq: &Sequence, with_archive: bool) -> KnownPrefix {
        let keys = seq.reusable_keys(self.config.block_size);
        let run = self.pool.known_run(keys);
        let archive = self.archive.as_ref().filter(|_| with_archive);
        let archived = archive.map_or(0, |archive| archive.run(&keys[run.blocks..]));
        let known = run.blocks + archived;
        let has_snapshot = |blocks: &usize| {
            let key = &keys[blocks - 1];
            self.snapshots.contains(key) || archive.is_some_and(|archive| archive.has_snapshot(key))
        };
        let used = match self.snapshots.capacity() {
            0 => known,
            _ => (1..=known).rev().find(has_snapshot).unwrap_or(0),
        };
        let in_memory = used.min(run.blocks);
        let cached = if in_memory == run.blocks { run.cached } else { self.pool.known_run(&keys[..in_memory]).cached };
        KnownPrefix { in_memory, cached, archived: used - in_memory, without_snapshot: known - used }
    }

    fn report(&self, seq: &Sequence, prefix: &KnownPrefix) -> PrefixReport {
        let block_size = self.config.block_size;
        PrefixReport {
            prompt: seq.prompt_len,
            from_memory: prefix.in_memory * block_size,
            from_archive: prefix.archived * block_size,
            miss: miss(seq, prefix, &self.pool, block_size),
        }
    }

    /// Gives a sequence that holds nothing the blocks that are known, and the states at their end. Blocks of the
    /// archive are taken from the pool and loaded into.
    fn reuse(&mut self, seq: &mut Sequence, prefix: &KnownPrefix, step: &mut Step) {
        let block_size = self.config.block_size;
        let keys = seq.keys[..prefix.blocks()].to_vec();
        seq.table.extend(self.pool.lookup(&keys[..prefix.in_memory]));
        seq.sealed = prefix.in_memory;
        seq.computed = prefix.in_memory * block_size;
        let last = keys.last().filter(|_| self.snapshots.capacity() > 0).copied();
        let in_memory = last.and_then(|key| self.snapshots.find(&key));
        if let (Some(from), Some(to)) = (in_memory, seq.state_slot.as_ref()) {
            self.state_copies.push(BlockCopy { from: BlockId(from), to: to.id() });
        }
        let target = self.pool.allocate(prefix.archived).unwrap_or_default();
        if !target.is_empty() || (last.is_some() && in_memory.is_none()) {
            seq.table.extend(target);
            self.num_loads += 1;
            seq.load = Some(self.num_loads);
            let keys = keys[prefix.in_memory..].to_vec();
            let snapshot = last.filter(|_| in_memory.is_none());
            step.loads.push(BlockLoad { id: self.num_loads, seq: seq.id, keys, snapshot });
        }
        if self.snapshots.capacity() > 0 && seq.prefix.is_some() {
            seq.plan_cuts(block_size);
            // Where what is known ends without a snapshot, others have parted before, and more will.
            if prefix.without_snapshot > 0 {
                seq.add_cut((prefix.blocks() + prefix.without_snapshot) * block_size);
            }
        }
    }

    /// Where a load puts its blocks, and the state slot for its snapshot; `None` if nobody waits for it any more.
    pub fn load_target(&self, load: &BlockLoad) -> Option<(Vec<BlockId>, Option<u32>)> {
        let seq = self.running.iter().find(|seq| seq.id == load.seq && seq.load == Some(load.id))?;
        let mut ids = seq.table.ids();
        Some((ids.split_off(ids.len() - load.keys.len()), seq.state_slot()))
    }

    /// Ends a load: of its blocks the first `blocks` have been written, and the snapshot if `snapshot` is true. What
    /// has not is computed.
    pub fn finish_load(&mut self, load: &BlockLoad, blocks: usize, snapshot: bool) {
        let is_it = |seq: &Sequence| seq.id == load.seq && seq.load == Some(load.id);
        let Some(at) = self.running.iter().position(is_it) else { return };
        let mut seq = self.running.remove(at);
        let block_size = self.config.block_size;
        seq.load = None;
        let loaded = seq.sealed + blocks.min(load.keys.len());
        seq.table.truncate(loaded);
        seq.computed = loaded * block_size;
        let in_memory = seq.sealed;
        seq.seal_computed(&self.pool, block_size);
        let whole = blocks >= load.keys.len() && (snapshot || load.snapshot.is_none());
        if self.snapshots.capacity() > 0 && !whole {
            // States at the end of what was loaded are missing: what memory has must do.
            seq.clear();
            let prefix = self.known_prefix(&seq, false);
            self.reuse(&mut seq, &prefix, &mut Step::default());
        }
        if let Some(report) = seq.report.as_mut().filter(|_| !seq.was_preempted) {
            let computed = seq.computed.min(report.prompt);
            report.from_memory = computed.min(in_memory * block_size);
            report.from_archive = computed - report.from_memory;
        }
        self.running.insert(at, seq);
    }

    /// The sequences whose prompt can go on in this step. One that stands at a block's boundary takes over what others
    /// have computed of its prompt meanwhile; and while an older one is about to compute the same, it waits.
    pub(crate) fn ready_prefills(&mut self, decodes: &BTreeSet<SeqId>) -> BTreeSet<SeqId> {
        let mut ready = BTreeSet::new();
        for at in 0..self.running.len() {
            let seq = &self.running[at];
            if decodes.contains(&seq.id) || seq.load.is_some() {
                continue;
            }
            self.catch_up(at);
            if !self.waits_for_older(at) {
                ready.insert(self.running[at].id);
            }
        }
        ready
    }

    /// Takes over blocks that others have computed after those that `running[at]` has.
    fn catch_up(&mut self, at: usize) {
        let block_size = self.config.block_size;
        let seq = &self.running[at];
        let done = seq.computed / block_size;
        let next = seq.reusable_keys(block_size).get(done).filter(|_| seq.computed.is_multiple_of(block_size));
        if next.is_none_or(|key| self.pool.known_run(&[*key]).blocks == 0) {
            return;
        }
        let prefix = self.known_prefix(seq, false);
        if prefix.blocks() <= done {
            return;
        }
        let mut seq = self.running.remove(at);
        let before = seq.computed;
        seq.clear();
        self.reuse(&mut seq, &prefix, &mut Step::default());
        if let Some(report) = seq.report.as_mut().filter(|_| !seq.was_preempted) {
            report.from_memory += (seq.computed - before).min(report.computed());
        }
        self.running.insert(at, seq);
    }

    /// Whether an older sequence that has come at least as far as `running[at]` is about to compute more of what both
    /// have in common. Where there are recurrent states, it leaves a snapshot where the two part.
    fn waits_for_older(&mut self, at: usize) -> bool {
        let block_size = self.config.block_size;
        let (older, rest) = self.running.split_at_mut(at);
        let (keys, computed) = (rest[0].reusable_keys(block_size), rest[0].computed);
        let done = computed / block_size;
        if done >= keys.len() || !computed.is_multiple_of(block_size) {
            return false;
        }
        let common = |seq: &Sequence| seq.keys.iter().zip(keys).take_while(|(a, b)| a == b).count() * block_size;
        let is_ahead = |seq: &Sequence| seq.keys.get(done) == Some(&keys[done]) && seq.computed >= computed;
        let Some(first) = older.iter_mut().find(|seq| is_ahead(seq) && seq.computed < common(seq)) else {
            return false;
        };
        if self.snapshots.capacity() > 0 {
            first.add_cut(common(first));
        }
        true
    }
}
