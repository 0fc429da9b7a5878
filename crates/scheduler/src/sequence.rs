//! One continuation of a prompt and its place in the cache.
use kv::{Block, BlockTable};
use std::fmt;

/// Names a request; larger keys arrived later.
pub type RequestKey = u64;

/// Names one of a request's continuations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId {
    pub request: RequestKey,
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
    pub key: RequestKey,
    /// Fairness key.
    pub client: String,
    pub prompt: Vec<u32>,
    /// Continuations of the prompt (`n`).
    pub choices: u32,
    /// Prompt and output together end here.
    pub max_len: usize,
}

/// Tokens known, tokens computed, and the blocks that hold them. Before its prompt is computed, one sequence stands for
/// all choices of its request.
#[derive(Debug)]
pub struct Sequence {
    pub(crate) id: SeqId,
    pub(crate) client: String,
    /// Choices that this sequence still stands for; 1 once they have parted.
    pub(crate) choices: u32,
    pub(crate) tokens: Vec<u32>,
    pub(crate) prompt_len: usize,
    pub(crate) max_len: usize,
    /// Tokens whose K and V are in the cache.
    pub(crate) computed: usize,
    pub(crate) table: BlockTable,
    /// While it runs: its place in the pool of recurrent states.
    pub(crate) slot: Option<Block>,
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
            slot: None,
        }
    }

    /// The choice `choice` of a request whose prompt has been computed; shares all blocks, and has `slot` to itself.
    pub(crate) fn fork(&self, choice: u32, slot: Option<Block>) -> Self {
        Sequence {
            id: SeqId { choice, ..self.id },
            client: self.client.clone(),
            choices: 1,
            tokens: self.tokens.clone(),
            prompt_len: self.prompt_len,
            max_len: self.max_len,
            computed: self.computed,
            table: self.table.clone(),
            slot,
        }
    }

    /// Tokens known but not computed: 1 for a sequence that decodes.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    pub fn id(&self) -> SeqId {
        self.id
    }

    /// Prompt and output so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt_len]
    }

    pub fn output(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }

    pub fn table(&self) -> &BlockTable {
        &self.table
    }

    /// Its place in the pool of recurrent states; `None` while it does not run.
    pub fn state_slot(&self) -> Option<u32> {
        self.slot.as_ref().map(|slot| slot.id().0)
    }

    /// The length limit is reached.
    pub fn is_full(&self) -> bool {
        self.tokens.len() >= self.max_len
    }
}
