//! The tokens of one choice and its place in the cache.
use crate::prefix::{PrefixReport, PrefixUse};
use crate::snapshots::ladder;
use crate::speculation::Speculation;
use kv::{Block, BlockKey, BlockPool, BlockTable, SealedBlock};
use std::fmt;

/// Names a request; larger keys arrived later.
pub type RequestKey = u64;

/// Names one choice of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId {
    /// The request.
    pub request: RequestKey,
    /// The number of the choice, from 0.
    pub choice: u32,
}

impl fmt::Display for SeqId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.request, self.choice)
    }
}

/// What the scheduler has to know of a request.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// Its name.
    pub key: RequestKey,
    /// The client that is charged for it.
    pub client: String,
    /// The tokens of the prompt.
    pub prompt: Vec<u32>,
    /// How many choices are asked for (`n`).
    pub choices: u32,
    /// Tokens of prompt and output together, at most.
    pub max_len: usize,
    /// How the request takes part in the prefix cache; `None`: not at all.
    pub prefix: Option<PrefixUse>,
}

/// The tokens of a choice, how many of them are computed, and the blocks that hold those. Until the prompt is computed,
/// one sequence stands for all choices of its request.
#[derive(Debug)]
pub struct Sequence {
    pub(crate) id: SeqId,
    pub(crate) client: String,
    /// How many choices this sequence stands for; 1 once the prompt is computed.
    pub(crate) choices: u32,
    pub(crate) tokens: Vec<u32>,
    pub(crate) prompt_len: usize,
    pub(crate) max_len: usize,
    /// Tokens whose K and V are in the cache.
    pub(crate) computed: usize,
    pub(crate) table: BlockTable,
    /// Its state slot; `None` while it does not run.
    pub(crate) state_slot: Option<Block>,
    /// The state slot with the states before the draft under way; `None` without one.
    pub(crate) state_before_draft: Option<Block>,
    pub(crate) prefix: Option<PrefixUse>,
    /// The keys of the full blocks of `tokens`, as far as they have been needed; none without `prefix`.
    pub(crate) keys: Vec<BlockKey>,
    /// How many blocks of the table are sealed.
    pub(crate) sealed: usize,
    /// Positions at which chunks end because snapshots are taken there, ascending.
    pub(crate) cuts: Vec<usize>,
    /// The last snapshot that it has taken while it decodes.
    pub(crate) decode_snapshot: Option<BlockKey>,
    /// The number of the load that it waits for.
    pub(crate) load: Option<u64>,
    /// How much of the prompt was known when it was first admitted.
    pub(crate) report: Option<PrefixReport>,
    /// Whether it has lost its blocks before; what it finds then was its own.
    pub(crate) was_preempted: bool,
    /// What its drafts are made of.
    pub(crate) speculation: Speculation,
}

impl Sequence {
    pub(crate) fn new(request: NewRequest, block_size: usize) -> Self {
        let mut seq = Sequence {
            id: SeqId { request: request.key, choice: 0 },
            client: request.client,
            choices: request.choices,
            prompt_len: request.prompt.len(),
            tokens: request.prompt,
            max_len: request.max_len,
            computed: 0,
            table: BlockTable::new(block_size),
            state_slot: None,
            state_before_draft: None,
            prefix: request.prefix,
            keys: Vec::new(),
            sealed: 0,
            cuts: Vec::new(),
            decode_snapshot: None,
            load: None,
            report: None,
            was_preempted: false,
            speculation: Speculation::default(),
        };
        seq.extend_keys(block_size);
        seq
    }

    /// Makes the keys of blocks that have become full.
    pub(crate) fn extend_keys(&mut self, block_size: usize) {
        let Some(usage) = self.prefix else { return };
        let last = self.key_before(self.keys.len(), usage.root);
        self.keys.extend(last.chain(&self.tokens[self.keys.len() * block_size..], block_size));
    }

    /// The key that comes before block `index`: that of the block before, or the root of the chain.
    pub(crate) fn key_before(&self, index: usize, root: BlockKey) -> BlockKey {
        index.checked_sub(1).map_or(root, |before| self.keys[before])
    }

    /// Seals the blocks that are full and computed.
    pub(crate) fn seal_computed(&mut self, pool: &BlockPool, block_size: usize) {
        let Some(usage) = self.prefix else { return };
        let full = self.computed / block_size;
        if full > self.keys.len() {
            self.extend_keys(block_size);
        }
        for index in self.sealed..full {
            let (key, parent) = (self.keys[index], self.key_before(index, usage.root));
            let end = (index + 1) * block_size;
            let tokens = self.tokens[end - block_size..end].into();
            self.table.seal(pool, index, SealedBlock { key, parent, tokens, end });
        }
        self.sealed = self.sealed.max(full);
    }

    /// The blocks of which a prefix could be known: all full ones, but at least one token is left to compute.
    pub(crate) fn reusable_keys(&self, block_size: usize) -> &[BlockKey] {
        match self.prefix {
            Some(PrefixUse { reuse: true, .. }) => {
                let most = self.tokens.len().saturating_sub(1) / block_size;
                &self.keys[..most.min(self.keys.len())]
            }
            _ => &[],
        }
    }

    /// The key of the block that ends at `position`, if one does and it is known.
    pub(crate) fn key_at(&self, position: usize, block_size: usize) -> Option<BlockKey> {
        let whole = position.is_multiple_of(block_size);
        whole.then(|| (position / block_size).checked_sub(1)).flatten().and_then(|last| self.keys.get(last).copied())
    }

    /// Plans where the chunks of what is left end for the sake of snapshots.
    pub(crate) fn plan_cuts(&mut self, block_size: usize) {
        self.cuts = ladder(self.tokens.len(), block_size);
    }

    /// Has a chunk end at a position.
    pub(crate) fn add_cut(&mut self, position: usize) {
        let place = self.cuts.partition_point(|cut| *cut < position);
        if self.cuts.get(place) != Some(&position) {
            self.cuts.insert(place, position);
        }
    }

    /// How many tokens the next chunk may have at most: up to the next cut, or to the end.
    pub(crate) fn tokens_to_cut(&self) -> usize {
        let cut = self.cuts.iter().find(|cut| **cut > self.computed);
        cut.copied().unwrap_or(self.tokens.len()).min(self.tokens.len()) - self.computed
    }

    /// Gives back all blocks; nothing of it is computed any more.
    pub(crate) fn clear(&mut self) {
        self.table.truncate(0);
        (self.computed, self.sealed) = (0, 0);
        self.cuts.clear();
        self.load = None;
    }

    /// The sequence of another choice of the same request; it shares all blocks, and has `state_slot` to itself.
    pub(crate) fn fork(&self, choice: u32, state_slot: Option<Block>) -> Self {
        Sequence {
            id: SeqId { choice, ..self.id },
            client: self.client.clone(),
            choices: 1,
            tokens: self.tokens.clone(),
            prompt_len: self.prompt_len,
            max_len: self.max_len,
            computed: self.computed,
            table: self.table.clone(),
            state_slot,
            state_before_draft: None,
            prefix: self.prefix,
            keys: self.keys.clone(),
            sealed: self.sealed,
            cuts: Vec::new(),
            decode_snapshot: None,
            load: None,
            report: None,
            was_preempted: false,
            speculation: Speculation::default(),
        }
    }

    /// Tokens known but not computed: 1 for a sequence that decodes.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether it decodes: one token is left to compute, and nothing is waited for.
    pub(crate) fn decodes(&self) -> bool {
        self.pending() == 1 && self.load.is_none()
    }

    /// How much of the prompt was known when the sequence was first admitted; `None` before.
    pub fn report(&self) -> Option<&PrefixReport> {
        self.report.as_ref()
    }

    /// Its name.
    pub fn id(&self) -> SeqId {
        self.id
    }

    /// Prompt and output so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The tokens of the prompt.
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt_len]
    }

    /// The tokens that were sampled.
    pub fn output(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }

    /// The blocks that hold its tokens.
    pub fn table(&self) -> &BlockTable {
        &self.table
    }

    /// The number of its state slot; `None` while it does not run.
    pub fn state_slot(&self) -> Option<u32> {
        self.state_slot.as_ref().map(|slot| slot.id().0)
    }

    /// Whether the length limit is reached.
    pub fn is_full(&self) -> bool {
        self.tokens.len() >= self.max_len
    }
}
