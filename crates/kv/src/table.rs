//! Block tables: the blocks that hold the tokens of a sequence.
use crate::key::BlockId;
use crate::pool::{Block, BlockPool, OutOfBlocks};
use crate::sealed::SealedBlock;

/// A block whose contents a step copies before it writes. Copies are carried out in the order in which they were made:
/// a block may be freed and become the target of a later copy of the same step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// The block that is read.
    pub from: BlockId,
    /// The block that is written.
    pub to: BlockId,
}

/// The blocks of one sequence. The token at position p lies in block `p / block_size` of the table, at offset `p %
/// block_size`.
#[derive(Debug, Clone)]
pub struct BlockTable {
    block_size: usize,
    blocks: Vec<Block>,
}

impl BlockTable {
    /// A table without blocks. Panics if `block_size` is 0.
    pub fn new(block_size: usize) -> Self {
        assert!(block_size > 0, "a block holds at least one token");
        BlockTable { block_size, blocks: Vec::new() }
    }

    /// The blocks, in order.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The numbers of the blocks, in order.
    pub fn ids(&self) -> Vec<BlockId> {
        self.blocks.iter().map(Block::id).collect()
    }

    /// How many tokens fit into the blocks.
    pub fn capacity(&self) -> usize {
        self.blocks.len() * self.block_size
    }

    /// The slot of the token at `position`: block × block size + offset.
    ///
    /// Panics if the position lies beyond the blocks.
    pub fn slot(&self, position: usize) -> u32 {
        self.blocks[position / self.block_size].id().0 * self.block_size as u32 + (position % self.block_size) as u32
    }

    /// How many blocks [`BlockTable::prepare_write`] would take for positions `from..to`: new ones, and copies of
    /// those that must stay as they are.
    pub fn blocks_to_write(&self, from: usize, to: usize) -> usize {
        if from >= to {
            return 0;
        }
        let last = to.div_ceil(self.block_size);
        let held = last.min(self.blocks.len());
        let kept = self.blocks[(from / self.block_size).min(held)..held].iter().filter(|b| !b.is_writable()).count();
        kept + (last - held)
    }

    /// Makes positions `from..to` writable: takes the blocks that are missing, and replaces those that others hold too,
    /// or that are sealed, by new ones, for which it returns the copies to make.
    ///
    /// Errors: fewer blocks are available than are needed; then none is taken.
    pub fn prepare_write(&mut self, pool: &BlockPool, from: usize, to: usize) -> Result<Vec<BlockCopy>, OutOfBlocks> {
        let mut fresh = pool.allocate(self.blocks_to_write(from, to))?.into_iter();
        let mut copies = Vec::new();
        if from < to {
            let held = to.div_ceil(self.block_size).min(self.blocks.len());
            for block in &mut self.blocks[(from / self.block_size).min(held)..held] {
                if !block.is_writable() {
                    let Some(own) = fresh.next() else { break };
                    copies.push(BlockCopy { from: block.id(), to: own.id() });
                    *block = own;
                }
            }
        }
        self.blocks.extend(fresh);
        Ok(copies)
    }

    /// Appends blocks that hold what comes next.
    pub fn extend(&mut self, blocks: Vec<Block>) {
        self.blocks.extend(blocks);
    }

    /// Seals block `index`, which is full and computed; see [`BlockPool::seal`].
    pub fn seal(&mut self, pool: &BlockPool, index: usize, sealed: SealedBlock) {
        pool.seal(&mut self.blocks[index], sealed);
    }

    /// Gives back the blocks from number `len` on, the last first: what was sealed is cached so that a chain's end is
    /// evicted before its beginning.
    pub fn truncate(&mut self, len: usize) {
        while self.blocks.len() > len {
            self.blocks.pop();
        }
    }
}

impl Drop for BlockTable {
    fn drop(&mut self) {
        self.truncate(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_map_to_slots_block_by_block() {
        let pool = BlockPool::new(8);
        let other = pool.allocate(2).unwrap();
        let mut table = BlockTable::new(4);
        assert_eq!(table.prepare_write(&pool, 0, 5).unwrap(), []);
        assert_eq!(table.ids(), [BlockId(2), BlockId(3)]);
        assert_eq!((table.slot(0), table.slot(3), table.slot(4)), (8, 11, 12));
        assert_eq!(table.blocks_to_write(5, 8), 0);
        assert_eq!(table.blocks_to_write(5, 9), 1);
        drop(other);
    }

    #[test]
    fn a_fork_shares_full_blocks_and_copies_the_one_it_writes() {
        let pool = BlockPool::new(8);
        let mut a = BlockTable::new(4);
        a.prepare_write(&pool, 0, 6).unwrap();
        let mut b = a.clone();
        assert_eq!(b.blocks_to_write(6, 7), 1);
        let copies = b.prepare_write(&pool, 6, 7).unwrap();
        assert_eq!(copies, [BlockCopy { from: BlockId(1), to: BlockId(2) }]);
        assert_eq!(b.ids(), [BlockId(0), BlockId(2)]);
        // The first is alone with its last block now, and writes in place.
        assert_eq!(a.prepare_write(&pool, 6, 7).unwrap(), []);
        assert_eq!(pool.num_held(), 3);
        drop((a, b));
        assert_eq!(pool.num_free(), 8);
        pool.check().unwrap();
    }

    #[test]
    fn a_write_that_does_not_fit_takes_nothing() {
        let pool = BlockPool::new(2);
        let mut a = BlockTable::new(4);
        a.prepare_write(&pool, 0, 6).unwrap();
        let mut b = a.clone();
        assert_eq!(b.prepare_write(&pool, 6, 7).unwrap_err(), OutOfBlocks { needed: 1, available: 0 });
        assert_eq!(b.ids(), a.ids());
    }
}
