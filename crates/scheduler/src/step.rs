//! What one step computes, and what is copied, loaded and kept around it.
use crate::sequence::SeqId;
use kv::{BlockCopy, BlockKey, EvictedBlock};
use std::ops::Range;

/// The tokens of one sequence that a step computes: `start..start + len`, of which the last may be a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The sequence.
    pub seq: SeqId,
    /// The position of the first token.
    pub start: usize,
    /// How many tokens there are, those of the draft included.
    pub len: usize,
    /// The choices whose next token is sampled from the logits of the last token of their own; none while the prompt
    /// goes on.
    pub samples: Range<u32>,
    /// Tokens that are likely to follow the sequence's own, which end before them. As long as the token that is sampled
    /// after one token is the next one here, the row of that is sampled from too.
    pub draft: Vec<u32>,
}

impl Chunk {
    /// The sequences whose next token is sampled from the chunk.
    pub fn sampled(&self) -> impl Iterator<Item = SeqId> {
        self.samples.clone().map(|choice| SeqId { choice, ..self.seq })
    }

    /// How many tokens there are without the draft.
    pub fn own_len(&self) -> usize {
        self.len - self.draft.len()
    }
}

/// Blocks that are brought from the archive for a sequence, which is not computed meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockLoad {
    /// The number of the load; a sequence that is preempted and admitted again has another.
    pub id: u64,
    /// The sequence.
    pub seq: SeqId,
    /// The keys of the blocks, in order.
    pub keys: Vec<BlockKey>,
    /// The key under which the archive has the recurrent states at the end of the last block, where they are needed and
    /// not in memory.
    pub snapshot: Option<BlockKey>,
}

/// A block whose memory a step needs for something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// The block.
    pub evicted: EvictedBlock,
    /// The state slot with the snapshot at the block's end, if there is one.
    pub snapshot: Option<u32>,
}

/// What a step computes, and what it copies before and after. First of all, what it evicts can be archived; then come
/// the copies, the computation, and the snapshots.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Step {
    /// What loses its place to the step's blocks.
    pub evictions: Vec<Eviction>,
    /// Copies of blocks, which are carried out before anything is computed, in order.
    pub copies: Vec<BlockCopy>,
    /// Copies of state slots, with which forked choices and known prefixes begin; they too are carried out before.
    pub state_copies: Vec<BlockCopy>,
    /// What is computed.
    pub chunks: Vec<Chunk>,
    /// Copies of state slots that are carried out when all is computed.
    pub snapshots: Vec<BlockCopy>,
    /// What is to be brought from the archive. [`crate::Scheduler::finish_load`] ends a load.
    pub loads: Vec<BlockLoad>,
    /// Sequences that lost their blocks in this step.
    pub preempted: Vec<SeqId>,
}

impl Step {
    /// Tokens of all chunks.
    pub fn num_tokens(&self) -> usize {
        self.chunks.iter().map(|c| c.len).sum()
    }
}
