//! What is known of a sequence when it is admitted, and why it is not more.
use crate::prefix::Miss;
use crate::sequence::Sequence;
use kv::{BlockPool, KnownNext};

/// The first blocks of a sequence that need not be computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KnownPrefix {
    /// Blocks that the pool has.
    pub in_memory: usize,
    /// How many of those nobody holds.
    pub cached: usize,
    /// Blocks after them that the archive has.
    pub archived: usize,
    /// Blocks that are known and of no use, because no snapshot stands at their end.
    pub without_snapshot: usize,
}

impl KnownPrefix {
    pub fn blocks(&self) -> usize {
        self.in_memory + self.archived
    }
}

/// Why the blocks of `seq` after those of `prefix` are computed.
pub(crate) fn miss(seq: &Sequence, prefix: &KnownPrefix, pool: &BlockPool, block_size: usize) -> Option<Miss> {
    let Some(usage) = seq.prefix.filter(|usage| usage.reuse) else { return Some(Miss::Off) };
    if prefix.without_snapshot > 0 {
        return Some(Miss::NoSnapshot { known: (prefix.blocks() + prefix.without_snapshot) * block_size });
    }
    let (blocks, from) = (prefix.blocks(), prefix.blocks() * block_size);
    let parent = seq.key_before(blocks, usage.root);
    let rest = &seq.tokens[from..];
    match pool.known_next(&parent, seq.keys.get(blocks)) {
        KnownNext::Evicted => Some(Miss::Evicted),
        KnownNext::Other(known) => {
            let common = rest.iter().zip(known.iter()).take_while(|(own, other)| own == other).count();
            let at = from + common;
            match common {
                // The prompt ends before the other does.
                _ if common == rest.len().min(block_size) => None,
                _ if at == 0 => Some(if usage.salted { Miss::Salted } else { Miss::Cold }),
                _ => Some(Miss::Diverged { at, from, known }),
            }
        }
        KnownNext::Nothing if blocks > 0 => None,
        KnownNext::Nothing => Some(if usage.salted { Miss::Salted } else { Miss::Cold }),
    }
}
