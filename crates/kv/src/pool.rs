//! A fixed number of blocks, handed out as handles that give themselves back.
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use thiserror::Error;

/// Index of a block, the same in every layer's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// The pool has fewer free blocks than were asked for. Nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{needed} blocks needed, {free} free")]
pub struct OutOfBlocks {
    /// Blocks that were asked for.
    pub needed: usize,
    /// Blocks that are free.
    pub free: usize,
}

/// A fixed number of blocks. Clones share them.
#[derive(Clone)]
pub struct BlockPool(Arc<Mutex<PoolState>>);

struct PoolState {
    /// How many holders each block has; 0: it is free.
    holders: Vec<u32>,
    /// The free blocks. They are taken from the end, so that the lowest numbers go first and a freed block, still warm,
    /// goes next.
    free: Vec<BlockId>,
}

impl BlockPool {
    /// A pool of free blocks.
    pub fn new(num_blocks: usize) -> Self {
        let free = (0..num_blocks as u32).rev().map(BlockId).collect();
        BlockPool(Arc::new(Mutex::new(PoolState { holders: vec![0; num_blocks], free })))
    }

    /// Blocks, free and held.
    pub fn num_blocks(&self) -> usize {
        self.state().holders.len()
    }

    /// Blocks that nobody holds.
    pub fn num_free(&self) -> usize {
        self.state().free.len()
    }

    /// Blocks that somebody holds.
    pub fn num_used(&self) -> usize {
        let state = self.state();
        state.holders.len() - state.free.len()
    }

    /// Takes `n` blocks, or none at all.
    ///
    /// Errors: fewer than `n` are free.
    pub fn allocate(&self, n: usize) -> Result<Vec<Block>, OutOfBlocks> {
        let mut state = self.state();
        let free = state.free.len();
        let Some(rest) = free.checked_sub(n) else { return Err(OutOfBlocks { needed: n, free }) };
        let taken = state.free.split_off(rest);
        for id in &taken {
            state.holders[id.0 as usize] = 1;
        }
        drop(state);
        Ok(taken.into_iter().rev().map(|id| Block { id, pool: self.clone() }).collect())
    }

    /// Checks that every block is either free, once, or held.
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
        match free.iter().zip(&state.holders).position(|(free, holders)| *free != (*holders == 0)) {
            Some(id) => Err(format!("block {id} has {} holders and free is {}", state.holders[id], free[id])),
            None => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        // Every change is complete before the guard drops, so a panic elsewhere leaves a sound state.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl fmt::Debug for BlockPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockPool({} of {} free)", self.num_free(), self.num_blocks())
    }
}

/// A hold on one block. A clone is a further hold; the block is free once the last is dropped.
pub struct Block {
    id: BlockId,
    pool: BlockPool,
}

impl Block {
    /// The number of the block.
    pub fn id(&self) -> BlockId {
        self.id
    }

    /// Whether somebody else holds the block too, so that it must not be written.
    pub fn is_shared(&self) -> bool {
        self.pool.state().holders[self.id.0 as usize] > 1
    }
}

impl Clone for Block {
    fn clone(&self) -> Self {
        self.pool.state().holders[self.id.0 as usize] += 1;
        Block { id: self.id, pool: self.pool.clone() }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        let holders = &mut state.holders[self.id.0 as usize];
        *holders -= 1;
        if *holders == 0 {
            state.free.push(self.id);
        }
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
        assert_eq!(pool.allocate(2).unwrap_err(), OutOfBlocks { needed: 2, free: 1 });
        assert_eq!(pool.num_free(), 1);
        drop(two);
        assert_eq!(pool.num_free(), 3);
        pool.check().unwrap();
    }

    #[test]
    fn a_shared_block_is_freed_by_its_last_holder() {
        let pool = BlockPool::new(1);
        let first = pool.allocate(1).unwrap().remove(0);
        assert!(!first.is_shared());
        let second = first.clone();
        assert!(first.is_shared());
        drop(first);
        assert!(!second.is_shared());
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
        assert!(pool.check().unwrap_err().contains("block 0 has 0 holders"));
    }
}
