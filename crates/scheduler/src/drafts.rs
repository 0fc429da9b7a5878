//! Drafts in a step: tokens that are computed after a sequence's own because they are likely to come next.
use crate::scheduler::Scheduler;
use crate::sequence::{SeqId, Sequence};
use crate::speculation::Surroundings;
use crate::step::{Chunk, Step};
use kv::{BlockCopy, BlockPool};

impl Scheduler {
    /// The drafts for a step whose decodes have been scheduled, the oldest sequence's first. `tokens`: what the step's
    /// budget has left, of which they are taken. Where a sequence had to be preempted there are none.
    pub(crate) fn plan_drafts(&mut self, step: &Step, tokens: &mut usize) -> Vec<(SeqId, Vec<u32>)> {
        let most = self.config.max_draft_tokens;
        if most == 0 || !step.preempted.is_empty() {
            return Vec::new();
        }
        let mut rows = step.num_tokens();
        // Room for logits is made for so many rows.
        let room = self.config.max_sampled_rows().saturating_sub(self.running.len());
        let mut left = room.min(*tokens);
        let waiting = self.running.len();
        let (keeps_snapshots, block_size) = (self.snapshots.capacity() > 0, self.config.block_size);
        let mut drafts = Vec::new();
        for seq in &mut self.running {
            let is_decoded = step.chunks.iter().any(|chunk| chunk.seq == seq.id);
            if !is_decoded || !seq.may_draft() {
                continue;
            }
            // The step itself yields a token beside those of the draft.
            let most = most.min(left).min(seq.max_len.saturating_sub(seq.tokens.len() + 1));
            let most = if keeps_snapshots { most.min(seq.tokens_before_boundary(block_size)) } else { most };
            let around = Surroundings { times: &self.row_times, rows, waiting, most };
            let draft = seq.speculation.draft(&seq.tokens, around);
            if !draft.is_empty() {
                left -= draft.len();
                *tokens -= draft.len();
                rows += draft.len();
                drafts.push((seq.id, draft));
            }
        }
        drafts
    }

    /// Adds drafts to the chunks of their sequences, as far as there is room for them: they preempt nobody.
    pub(crate) fn add_drafts(&mut self, step: &mut Step, drafts: Vec<(SeqId, Vec<u32>)>) {
        // Free state slots have their memory already; those that choices will part into are left to them.
        let promised: usize = self.running.iter().map(|seq| seq.choices as usize - 1).sum();
        let mut spare_slots = self.state_slots.num_free().saturating_sub(promised);
        for (id, mut draft) in drafts {
            let Some(chunk) = step.chunks.iter_mut().find(|chunk| chunk.seq == id) else { continue };
            let Some(seq) = self.running.iter_mut().find(|seq| seq.id == id) else { continue };
            let begin = chunk.start + chunk.len;
            draft.truncate(seq.room_to_draft(&self.pool, begin, self.config.block_size));
            if self.config.has_states && !draft.is_empty() {
                match seq.state_slot.as_ref().zip(self.state_slots.allocate(1).ok().filter(|_| spare_slots > 0)) {
                    Some((own, mut before)) => {
                        spare_slots -= 1;
                        seq.state_before_draft = before.pop();
                        let to = seq.state_before_draft.as_ref().map(|to| BlockCopy { from: own.id(), to: to.id() });
                        self.state_copies.extend(to);
                    }
                    None => draft.clear(),
                }
            }
            // There is room, so it is no error, and blocks that nobody shares are not copied.
            if let Ok(copies) = seq.table.prepare_write(&self.pool, begin, begin + draft.len()) {
                step.copies.extend(copies);
                chunk.len += draft.len();
                chunk.draft = draft;
            }
        }
    }

    /// The chunks of a step, by their numbers, of which recurrent states must take in the first rows again, and how
    /// many: those whose draft was rejected in part, since the state slot of their sequence has the states before the
    /// chunk now. It is to be asked for once [`Scheduler::update`] has been told of the step, and to be carried out
    /// before the next one.
    pub fn replays(&self, step: &Step) -> Vec<(usize, usize)> {
        let rows = |chunk: &Chunk| {
            let seq = self.running.iter().find(|seq| seq.id == chunk.seq).filter(|_| self.config.has_states)?;
            Some(seq.computed - chunk.start).filter(|rows| *rows < chunk.len)
        };
        step.chunks.iter().enumerate().filter_map(|(at, chunk)| Some((at, rows(chunk)?))).collect()
    }

    /// Notes how much of a chunk's draft was accepted, by the tokens that its sequence has now, and gives back the rest
    /// of its blocks.
    pub(crate) fn settle_draft(&mut self, chunk: &Chunk) {
        let Some(seq) = self.running.iter_mut().find(|seq| seq.id == chunk.seq) else { return };
        let own_end = chunk.start + chunk.own_len();
        seq.computed = own_end.max(seq.tokens.len().saturating_sub(1));
        let accepted = seq.computed - own_end;
        seq.speculation.learn(chunk.draft.len(), accepted);
        let before = seq.state_before_draft.take();
        if accepted < chunk.draft.len() && before.is_some() {
            seq.state_slot = before;
        }
        let block_size = self.config.block_size;
        seq.table.truncate(seq.computed.div_ceil(block_size));
        seq.seal_computed(&self.pool, block_size);
    }
}

impl Sequence {
    /// Whether it decodes an answer of its own, so that a draft may be added.
    fn may_draft(&self) -> bool {
        self.decodes() && self.choices == 1 && self.tokens.len() > self.prompt_len
    }

    /// How many tokens may be drafted so that the step ends before a block's boundary, where a snapshot is taken: no
    /// draft's rows may be in it.
    fn tokens_before_boundary(&self, block_size: usize) -> usize {
        let end = self.computed + 1;
        (end.next_multiple_of(block_size) - end).saturating_sub(1)
    }

    /// How many tokens from position `begin` on there is room for in its blocks, in free ones, or else in one that is
    /// only cached. The sequence is about to take that for its own tokens: a server that has run for a while has no
    /// free blocks, and would draft up to a block's end alone.
    fn room_to_draft(&self, pool: &BlockPool, begin: usize, block_size: usize) -> usize {
        let own = self.table.capacity() - begin;
        own + pool.num_free().max(pool.num_available().min(1)) * block_size
    }
}
