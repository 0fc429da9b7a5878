//! How a request uses what others have computed of its prompt, and why it could not use more.
use kv::BlockKey;
use std::fmt;
use std::sync::Arc;

/// How a request takes part in the prefix cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixUse {
    /// The key that comes before the first block.
    pub root: BlockKey,
    /// Whether the request has a salt of its own, with which nobody else shares a block.
    pub salted: bool,
    /// Whether the request uses what it finds. One that needs the logits of its whole prompt computes everything, and
    /// leaves it to others.
    pub reuse: bool,
}

/// Blocks outside of the pool, such as on disk, which can be brought into it.
pub trait BlockArchive: Send {
    /// How many of these blocks, which follow each other, are worth loading: 0, or as many as the archive has of the
    /// first ones.
    fn run(&self, keys: &[BlockKey]) -> usize;

    /// Whether the archive has the recurrent states at the end of a block.
    fn has_snapshot(&self, key: &BlockKey) -> bool;
}

/// Why a part of a prompt had to be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// Nothing that begins like the prompt was known.
    Cold,
    /// The prompt leaves a longer prefix that was known.
    Diverged {
        /// The position of the first token that differs.
        at: usize,
        /// The position of the first of the tokens `known`.
        from: usize,
        /// The tokens that were known to follow.
        known: Arc<[u32]>,
    },
    /// A longer prefix was known, and its memory was needed for something else.
    Evicted,
    /// A longer prefix of so many tokens is known, but not the recurrent states at its end.
    NoSnapshot {
        /// How many tokens are known.
        known: usize,
    },
    /// The request's salt has not been used before.
    Salted,
    /// The request does not take part.
    Off,
}

impl Miss {
    /// The reason in a word or two, as in logs, headers and the list of requests.
    pub fn name(&self) -> &'static str {
        match self {
            Miss::Cold => "cold",
            Miss::Diverged { .. } => "diverged",
            Miss::Evicted => "evicted",
            Miss::NoSnapshot { .. } => "no snapshot",
            Miss::Salted => "salted",
            Miss::Off => "off",
        }
    }

    /// Whether a longer prefix had been known.
    pub fn is_loss(&self) -> bool {
        matches!(self, Miss::Diverged { .. } | Miss::Evicted | Miss::NoSnapshot { .. })
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Miss::Diverged { at, .. } => write!(f, "diverged at token {at}"),
            other => f.write_str(other.name()),
        }
    }
}

/// How much of a prompt was known when its request was admitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrefixReport {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens that were in memory.
    pub from_memory: usize,
    /// Tokens that came from the archive.
    pub from_archive: usize,
    /// Why the rest was computed; `None`: all that was known was used, and the rest is new.
    pub miss: Option<Miss>,
}

impl PrefixReport {
    /// Tokens that were not computed.
    pub fn reused(&self) -> usize {
        self.from_memory + self.from_archive
    }

    /// Tokens that had to be computed.
    pub fn computed(&self) -> usize {
        self.prompt - self.reused()
    }
}
