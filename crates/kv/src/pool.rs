//! A fixed number of blocks, handed out as handles that give themselves back.
use crate::key::{BlockId, BlockKey};
use crate::sealed::{EvictedBlock, KnownNext, SealedBlock, SealedBlocks};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use thiserror::Error;

/// The pool has fewer available blocks than were asked for. Nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{needed} blocks needed, {available} available")]
pub struct OutOfBlocks {
    /// Blocks that were asked for.
    pub needed: usize,
    /// Blocks that nobody holds.
    pub available: usize,
}

/// A fixed number of blocks. Each is *held* by somebody, *free*, or *cached*: nobody holds it, but it is sealed under
/// the key of what it contains, and [`BlockPool::lookup`] finds it until its memory is needed. Clones share the blocks.
#[derive(Clone)]
pub struct BlockPool(Arc<Mutex<PoolState>>);

struct PoolState {
    /// How many holders each block has; 0: it is free or cached.
    holders: Vec<u32>,
    /// The free blocks. They are taken from the end, so that the lowest numbers go first and a freed block, still warm,
    /// goes next.
    free: Vec<BlockId>,
    sealed: SealedBlocks,
    /// What has been evicted since [`BlockPool::take_evicted`] was last called.
    evicted: Vec<EvictedBlock>,
}

/// How much of a sequence is in the pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KnownRun {
    /// How many of the sequence's first blocks are there.
    pub blocks: usize,
    /// How many of those nobody holds.
    pub cached: usize,
}

impl PoolState {
    fn available(&self) -> usize {
        self.free.len() + self.sealed.num_evictable()
    }

    /// A free block, or the cached one that nobody has used for the longest time.
    fn take(&mut self) -> Option<BlockId> {
        let block = match self.free.pop() {
            Some(block) => block,
            None => {
                let evicted = self.sealed.evict(self.holders.len())?;
                let block = evicted.block;
                self.evicted.push(evicted);
                block
            }
        };
        self.holders[block.0 as usize] = 1;
        Some(block)
    }

    fn hold(&mut self, block: BlockId) {
        self.holders[block.0 as usize] += 1;
        self.sealed.hold(block);
    }

    fn release(&mut self, block: BlockId) {
        let holders = &mut self.holders[block.0 as usize];
        *holders -= 1;
        if *holders == 0 && !self.sealed.release(block) {
            self.free.push(block);
        }
    }
}

impl BlockPool {
    /// A pool of free blocks.
    pub fn new(num_blocks: usize) -> Self {
        let free = (0..num_blocks as u32).rev().map(BlockId).collect();
        let holders = vec![0; num_blocks];
        let state = PoolState { holders, free, sealed: SealedBlocks::default(), evicted: Vec::new() };
        BlockPool(Arc::new(Mutex::new(state)))
    }

    /// Blocks: free, held and cached.
    pub fn num_blocks(&self) -> usize {
        self.state().holders.len()
    }

    /// Blocks that contain nothing.
    pub fn num_free(&self) -> usize {
        self.state().free.len()
    }

    /// Blocks that nobody holds and that can be found by their keys.
    pub fn num_cached(&self) -> usize {
        self.state().sealed.num_evictable()
    }

    /// Blocks that can be allocated: free and cached ones.
    pub fn num_available(&self) -> usize {
        self.state().available()
    }

    /// Blocks that somebody holds.
    pub fn num_held(&self) -> usize {
        let state = self.state();
        state.holders.len() - state.available()
    }

    /// Takes `n` blocks, or none at all: free ones first, then cached ones, which are evicted.
    ///
    /// Errors: fewer than `n` are available.
    pub fn allocate(&self, n: usize) -> Result<Vec<Block>, OutOfBlocks> {
        let mut state = self.state();
        let available = state.available();
        if available < n {
            return Err(OutOfBlocks { needed: n, available });
        }
        let taken: Vec<_> = (0..n).map_while(|_| state.take()).collect();
        drop(state);
        Ok(taken.into_iter().map(|id| self.block(id)).collect())
    }

    /// Seals a block that is full and computed, so that it can be found by its key. Where another block has this key
    /// already, `block` becomes a hold on that one, and its own memory is free.
    pub fn seal(&self, block: &mut Block, sealed: SealedBlock) {
        let mut state = self.state();
        match state.sealed.find(&sealed.key) {
            Some(known) if known == block.id => {}
            Some(known) => {
                state.hold(known);
                drop(state);
                *block = self.block(known);
            }
            None => state.sealed.insert(block.id, sealed),
        }
    }

    /// How many of a sequence's first blocks are here. `keys`: the sequence's.
    pub fn known_run(&self, keys: &[BlockKey]) -> KnownRun {
        let state = self.state();
        let known = keys.iter().map_while(|key| state.sealed.find(key));
        known.fold(KnownRun::default(), |run, block| KnownRun {
            blocks: run.blocks + 1,
            cached: run.cached + usize::from(state.sealed.is_evictable(block)),
        })
    }

    /// Holds on the longest run of a sequence's first blocks that are here. `keys`: the sequence's.
    pub fn lookup(&self, keys: &[BlockKey]) -> Vec<Block> {
        let mut state = self.state();
        let known: Vec<_> = keys.iter().map_while(|key| state.sealed.find(key)).collect();
        known.iter().for_each(|block| state.hold(*block));
        drop(state);
        known.into_iter().map(|id| self.block(id)).collect()
    }

    /// Tells why a known prefix ends with the block `parent`. `wanted` is the key of the full block that the request
    /// needs next and that is not here; `None` where it needs no further full block.
    pub fn known_next(&self, parent: &BlockKey, wanted: Option<&BlockKey>) -> KnownNext {
        self.state().sealed.known_next(parent, wanted)
    }

    /// All sealed blocks of long chains, parents before what follows them.
    pub fn long_chains(&self) -> Vec<(BlockId, SealedBlock)> {
        self.state().sealed.long_chains()
    }

    /// Takes the blocks that have been evicted since this was last called. Their bytes are unchanged until the next
    /// step writes its keys and values.
    pub fn take_evicted(&self) -> Vec<EvictedBlock> {
        std::mem::take(&mut self.state().evicted)
    }

    /// Makes all cached blocks free.
    pub fn evict_cached(&self) {
        let mut state = self.state();
        let remembered = state.holders.len();
        while let Some(evicted) = state.sealed.evict(remembered) {
            state.free.push(evicted.block);
            state.evicted.push(evicted);
        }
    }

    /// Checks that every block is either free, once, or cached, or held.
    ///
    /// Errors: the block that is not, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        let state = self.state();
        let mut free = vec![false; state.holders.len()];
        for id in &state.free {
            let seen = free.get_mut(id.0 as usize).ok_or_else(|| format!("block {} is not in the pool", id.0))?;
            if std::mem::replace(seen, true) {
                return Err(format!("block {} is free twice", id.0));
            }
        }
        for (id, (free, holders)) in free.iter().zip(&state.holders).enumerate() {
            let block = BlockId(id as u32);
            let cached = state.sealed.is_evictable(block);
            if usize::from(*free) + usize::from(cached) + usize::from(*holders > 0) != 1 {
                let states = format!("{holders} holders, free is {free} and cached is {cached}");
                return Err(format!("block {id} must be either held or free or cached; it has {states}"));
            }
            if *free && state.sealed.is_sealed(block) {
                return Err(format!("block {id} is free, and a key leads to it"));
            }
        }
        state.sealed.check()
    }

    /// A handle for a hold that has been counted.
    fn block(&self, id: BlockId) -> Block {
        Block { id, pool: self.clone() }
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        // Every change is complete before the guard drops, so a panic elsewhere leaves a sound state.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl fmt::Debug for BlockPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockPool({} of {} available)", self.num_available(), self.num_blocks())
    }
}

/// A hold on one block. A clone is a further hold; once the last is dropped, the block is cached if it is sealed, and
/// free if it is not.
pub struct Block {
    id: BlockId,
    pool: BlockPool,
}

impl Block {
    /// The number of the block.
    pub fn id(&self) -> BlockId {
        self.id
    }

    /// Whether the block may be written: nobody else holds it, and it is not sealed.
    pub fn is_writable(&self) -> bool {
        let state = self.pool.state();
        state.holders[self.id.0 as usize] == 1 && !state.sealed.is_sealed(self.id)
    }
}

impl Clone for Block {
    fn clone(&self) -> Self {
        self.pool.state().hold(self.id);
        self.pool.block(self.id)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.state().release(self.id);
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocation_is_all_or_nothing() {
        let pool = BlockPool::new(3);
        let two = pool.allocate(2).unwrap();
        assert_eq!(two.iter().map(Block::id).collect::<Vec<_>>(), [BlockId(0), BlockId(1)]);
        assert_eq!(pool.allocate(2).unwrap_err(), OutOfBlocks { needed: 2, available: 1 });
        assert_eq!(pool.num_free(), 1);
        drop(two);
        assert_eq!(pool.num_free(), 3);
        pool.check().unwrap();
    }

    #[test]
    fn a_shared_block_is_freed_by_its_last_holder() {
        let pool = BlockPool::new(1);
        let first = pool.allocate(1).unwrap().remove(0);
        assert!(first.is_writable());
        let second = first.clone();
        assert!(!first.is_writable());
        drop(first);
        assert!(second.is_writable());
        assert_eq!(pool.num_free(), 0);
        pool.check().unwrap();
        drop(second);
        assert_eq!(pool.num_free(), 1);
        pool.check().unwrap();
    }

    #[test]
    fn check_sees_a_block_freed_twice_and_one_lost() {
        let pool = BlockPool::new(2);
        pool.state().free.push(BlockId(0));
        assert!(pool.check().unwrap_err().contains("block 0 is free twice"));
        pool.state().free.retain(|id| id.0 != 0);
        assert!(pool.check().unwrap_err().contains("0 holders"));
    }
}
