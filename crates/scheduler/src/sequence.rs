//! The tokens of one choice and its place in the cache.
use kv::{Block, BlockTable};
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
}

impl Sequence {
    pub(crate) fn new(request: NewRequest, block_size: usize) -> Self {
        Sequence {
            id: SeqId { request: request.key, choice: 0 },
            client: request.client,
            choices: request.choices,
            prompt_len: request.prompt.len(),
            tokens: request.prompt,
            max_len: request.max_len,
            computed: 0,
            table: BlockTable::new(block_size),
            state_slot: None,
        }
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
        }
    }

    /// Tokens known but not computed: 1 for a sequence that decodes.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
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
