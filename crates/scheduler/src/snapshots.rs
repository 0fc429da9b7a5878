//! Snapshots: recurrent states that are kept under the key of the block at whose end they stand.
use kv::{Block, BlockKey, BlockPool};
use std::collections::{BTreeMap, HashMap};

/// The distance in blocks from a prompt's end to the second snapshot of its ladder.
const FIRST_RUNG: usize = 8;

/// The positions at which a prompt of `len` tokens leaves snapshots, in ascending order: its last block boundary, and a
/// ladder of boundaries before, whose distances from it double. A later prompt that leaves this one at a distance d
/// from its end, more than the first rung, finds a snapshot at most 2 d from the end, and computes at most d tokens
/// again.
pub(crate) fn ladder(len: usize, block_size: usize) -> Vec<usize> {
    let last = len.saturating_sub(1) / block_size;
    let distances = std::iter::once(0).chain((0..usize::BITS - 8).map(|rung| FIRST_RUNG << rung));
    let mut rungs: Vec<_> = distances.map_while(|distance| last.checked_sub(distance)).filter(|at| *at > 0).collect();
    rungs.reverse();
    rungs.into_iter().map(|block| block * block_size).collect()
}

/// The state slots that hold snapshots. The one that has been of no use for longest goes first.
#[derive(Debug)]
pub(crate) struct Snapshots {
    slots: BlockPool,
    /// How many state slots come before them, those of running sequences.
    first: u32,
    by_key: HashMap<BlockKey, (Block, u64)>,
    by_use: BTreeMap<u64, BlockKey>,
    /// Those that the step under way makes.
    planned: Vec<(BlockKey, Block)>,
    clock: u64,
}

impl Snapshots {
    pub fn new(count: usize, first: usize) -> Self {
        Snapshots {
            slots: BlockPool::new(count),
            first: first as u32,
            by_key: HashMap::new(),
            by_use: BTreeMap::new(),
            planned: Vec::new(),
            clock: 0,
        }
    }

    /// How many there can be; 0 for a model without recurrent states.
    pub fn capacity(&self) -> usize {
        self.slots.num_blocks()
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn contains(&self, key: &BlockKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// The state slot of a snapshot.
    pub fn slot(&self, key: &BlockKey) -> Option<u32> {
        self.by_key.get(key).map(|(slot, _)| self.first + slot.id().0)
    }

    /// The state slot of a snapshot that is about to be used.
    pub fn find(&mut self, key: &BlockKey) -> Option<u32> {
        self.clock += 1;
        let (_, used) = self.by_key.get_mut(key)?;
        self.by_use.remove(used);
        *used = self.clock;
        self.by_use.insert(self.clock, *key);
        self.slot(key)
    }

    /// Plans a snapshot, for which an older one may have to go. The state slot to copy to; `None` where there is no
    /// place, or the snapshot exists.
    pub fn plan(&mut self, key: BlockKey) -> Option<u32> {
        if self.contains(&key) || self.planned.iter().any(|(planned, _)| *planned == key) {
            return None;
        }
        if self.slots.num_available() == 0 {
            let (_, oldest) = self.by_use.pop_first()?;
            self.by_key.remove(&oldest);
        }
        let slot = self.slots.allocate(1).ok()?.pop()?;
        let number = self.first + slot.id().0;
        self.planned.push((key, slot));
        Some(number)
    }

    /// The step has made the snapshots that were planned.
    pub fn keep_planned(&mut self) {
        for (key, slot) in std::mem::take(&mut self.planned) {
            self.clock += 1;
            self.by_key.insert(key, (slot, self.clock));
            self.by_use.insert(self.clock, key);
        }
    }

    /// The step has failed: what it planned does not exist.
    pub fn drop_planned(&mut self) {
        self.planned.clear();
    }

    /// Forgets a snapshot, and says which state slot it had.
    pub fn remove(&mut self, key: &BlockKey) -> Option<u32> {
        let (slot, used) = self.by_key.remove(key)?;
        self.by_use.remove(&used);
        Some(self.first + slot.id().0)
    }

    /// Forgets all snapshots.
    pub fn clear(&mut self) {
        self.by_key.clear();
        self.by_use.clear();
    }

    /// Errors: a state slot that is lost, or a snapshot that is listed once only.
    pub fn check(&self) -> Result<(), String> {
        self.slots.check()?;
        let (held, known) = (self.slots.num_held(), self.by_key.len() + self.planned.len());
        if held != known || self.by_key.len() != self.by_use.len() {
            return Err(format!("{held} state slots are held for {known} snapshots"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_double_their_distance_from_the_last_boundary() {
        assert_eq!(ladder(1000, 16), [480, 736, 864, 992]);
        assert_eq!(ladder(993, 16), [480, 736, 864, 992]);
        assert_eq!(ladder(992, 16), [464, 720, 848, 976]);
        assert_eq!(ladder(17, 16), [16]);
        assert!(ladder(16, 16).is_empty() && ladder(0, 16).is_empty());
    }
}
