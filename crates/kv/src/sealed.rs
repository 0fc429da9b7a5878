//! The blocks that are known by their keys, and what is remembered of those that are gone.
use crate::key::{BlockId, BlockKey};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// A chain of this many tokens is long: reading it again would take so much longer than a disk needs that its blocks
/// are worth writing there.
pub const LONG_CHAIN_TOKENS: usize = 1024;

/// What a full and computed block holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBlock {
    /// The block's key.
    pub key: BlockKey,
    /// The key of the block before, or the root of the chain.
    pub parent: BlockKey,
    /// The token ids.
    pub tokens: Arc<[u32]>,
    /// How many tokens there are up to the block's end.
    pub end: usize,
}

/// A sealed block whose memory is about to be used for something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvictedBlock {
    /// The block, whose bytes stay as they are until the next step writes.
    pub block: BlockId,
    /// What it holds.
    pub sealed: SealedBlock,
    /// Whether the block belongs to a chain of at least [`LONG_CHAIN_TOKENS`].
    pub in_long_chain: bool,
}

/// What follows a known prefix in the cache where a request goes another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownNext {
    /// No block is known to have come next.
    Nothing,
    /// The very block that the request needs was known and has been evicted.
    Evicted,
    /// Another block: its token ids.
    Other(Arc<[u32]>),
}

/// Sealed blocks by key, and the order in which the cached ones of them are evicted.
#[derive(Debug, Default)]
pub(crate) struct SealedBlocks {
    by_key: HashMap<BlockKey, BlockId>,
    by_block: HashMap<BlockId, SealedEntry>,
    /// Cached blocks by their last use. Whoever held a block held those before it too, and gave them back later; so a
    /// block comes before its parent, and a chain dies from its end.
    evictable: BTreeMap<u64, BlockId>,
    /// The newest block that followed each key.
    newest_child: HashMap<BlockKey, BlockKey>,
    /// Keys of evicted blocks, oldest first, and the same as a set.
    gone: (VecDeque<BlockKey>, HashSet<BlockKey>),
    clock: u64,
}

#[derive(Debug)]
struct SealedEntry {
    sealed: SealedBlock,
    in_long_chain: bool,
    /// When the last holder gave it back; `None` while it is held.
    released: Option<u64>,
}

impl SealedBlocks {
    pub fn find(&self, key: &BlockKey) -> Option<BlockId> {
        self.by_key.get(key).copied()
    }

    pub fn is_sealed(&self, block: BlockId) -> bool {
        self.by_block.contains_key(&block)
    }

    pub fn num_evictable(&self) -> usize {
        self.evictable.len()
    }

    pub fn is_evictable(&self, block: BlockId) -> bool {
        self.by_block.get(&block).is_some_and(|entry| entry.released.is_some())
    }

    /// Notes what a held block holds. No other block has its key.
    pub fn insert(&mut self, block: BlockId, sealed: SealedBlock) {
        let in_long_chain = sealed.end >= LONG_CHAIN_TOKENS;
        self.newest_child.insert(sealed.parent, sealed.key);
        self.by_key.insert(sealed.key, block);
        let mut parent = sealed.parent;
        self.by_block.insert(block, SealedEntry { sealed, in_long_chain, released: None });
        // Those before are marked once, by the first block that makes the chain long.
        while in_long_chain && let Some(entry) = self.by_key.get(&parent).and_then(|id| self.by_block.get_mut(id)) {
            if std::mem::replace(&mut entry.in_long_chain, true) {
                break;
            }
            parent = entry.sealed.parent;
        }
    }

    /// A sealed block has a holder again.
    pub fn hold(&mut self, block: BlockId) {
        if let Some(released) = self.by_block.get_mut(&block).and_then(|entry| entry.released.take()) {
            self.evictable.remove(&released);
        }
    }

    /// The last holder of a block has gone. True if the block is sealed, and cached from now on.
    pub fn release(&mut self, block: BlockId) -> bool {
        let Some(entry) = self.by_block.get_mut(&block) else { return false };
        self.clock += 1;
        entry.released = Some(self.clock);
        self.evictable.insert(self.clock, block);
        true
    }

    /// Forgets the cached block that has been of no use for longest. `remembered`: of how many keys of evicted blocks
    /// is known that they were here.
    pub fn evict(&mut self, remembered: usize) -> Option<EvictedBlock> {
        let (_, block) = self.evictable.pop_first()?;
        let SealedEntry { sealed, in_long_chain, .. } = self.by_block.remove(&block)?;
        self.by_key.remove(&sealed.key);
        if self.newest_child.get(&sealed.parent) == Some(&sealed.key) {
            self.newest_child.remove(&sealed.parent);
        }
        let (order, set) = &mut self.gone;
        if set.insert(sealed.key) {
            order.push_back(sealed.key);
        }
        while order.len() > remembered {
            let Some(oldest) = order.pop_front() else { break };
            set.remove(&oldest);
        }
        Some(EvictedBlock { block, sealed, in_long_chain })
    }

    /// What is known to have followed `parent`, where a request needs the block `wanted` (`None`: no full block) and
    /// it is not here.
    pub fn known_next(&self, parent: &BlockKey, wanted: Option<&BlockKey>) -> KnownNext {
        if wanted.is_some_and(|key| self.gone.1.contains(key)) {
            return KnownNext::Evicted;
        }
        let child = self.newest_child.get(parent).and_then(|key| self.by_key.get(key));
        match child.and_then(|block| self.by_block.get(block)) {
            Some(entry) => KnownNext::Other(entry.sealed.tokens.clone()),
            None => KnownNext::Nothing,
        }
    }

    /// All sealed blocks of long chains, parents before what follows them.
    pub fn long_chains(&self) -> Vec<(BlockId, SealedBlock)> {
        let long = self.by_block.iter().filter(|(_, entry)| entry.in_long_chain);
        let mut blocks: Vec<_> = long.map(|(block, entry)| (*block, entry.sealed.clone())).collect();
        blocks.sort_by_key(|(block, sealed)| (sealed.end, *block));
        blocks
    }

    /// Errors: a block that is known by a key that does not lead to it, or cached blocks that are not in order.
    pub fn check(&self) -> Result<(), String> {
        for (block, entry) in &self.by_block {
            if self.by_key.get(&entry.sealed.key) != Some(block) {
                return Err(format!("block {} is sealed, and its key leads elsewhere", block.0));
            }
            if entry.released.is_some_and(|released| self.evictable.get(&released) != Some(block)) {
                return Err(format!("block {} is cached, and not in the order of eviction", block.0));
            }
            let parent = self.by_key.get(&entry.sealed.parent).and_then(|id| self.by_block.get(id));
            let goes_first =
                |parent: &SealedEntry| parent.released.is_none_or(|p| entry.released.is_some_and(|own| own < p));
            if !parent.is_none_or(goes_first) {
                return Err(format!("block {} would be evicted after its parent", block.0));
            }
        }
        let released = self.by_block.values().filter(|entry| entry.released.is_some()).count();
        if (released, self.by_block.len()) != (self.evictable.len(), self.by_key.len()) {
            return Err("sealed blocks are listed twice".to_owned());
        }
        Ok(())
    }
}
