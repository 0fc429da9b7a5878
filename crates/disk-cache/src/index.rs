//! The index of a file, in memory: its values, the order in which they are deleted, and its free cells.
use crate::value::DiskValueId;
use kv::BlockKey;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The index's record of a value of the file: all that is known of it beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValueRecord {
    /// The key of the block before the value's own.
    pub parent: BlockKey,
    /// How many tokens a sequence has at the end of the value's block.
    pub tokens: u32,
    /// The value's length in bytes.
    pub len: u64,
    /// BLAKE3 of the value.
    pub hash: [u8; 32],
    /// When the value was used last, in microseconds since 1970.
    pub last_used: u64,
    /// The cells that the value lies in, in order.
    pub cells: Box<[u32]>,
}

/// A value that no other needs: its stamp of use, its tokens, its id. The first in this order is deleted first.
type Leaf = (u64, Reverse<u32>, DiskValueId);

/// The index of a file. Each cell is free, discarded, a value's, or taken by a caller who writes it.
#[derive(Debug, Default)]
pub(crate) struct DiskIndex {
    values: HashMap<DiskValueId, ValueRecord>,
    /// How many values have this id as their parent, whether the parent is in the file or not.
    children: HashMap<DiskValueId, u32>,
    leaves: BTreeSet<Leaf>,
    free: BTreeSet<u32>,
    /// Cells whose headers are to be erased before they are free.
    discarded: Vec<u32>,
    cells: u32,
    bytes: u64,
    /// The latest stamp of use, in microseconds since 1970.
    latest: u64,
    /// Values that were used after the time that their headers in the file tell.
    stale_stamps: HashSet<DiskValueId>,
}

impl DiskIndex {
    pub fn values(&self) -> &HashMap<DiskValueId, ValueRecord> {
        &self.values
    }

    pub fn get(&self, id: &DiskValueId) -> Option<&ValueRecord> {
        self.values.get(id)
    }

    /// The bytes of all values.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many cells the file has.
    pub fn cells(&self) -> u32 {
        self.cells
    }

    pub fn free_cells(&self) -> usize {
        self.free.len()
    }

    /// A stamp of use that is later than all others, even where the clock was set back.
    pub fn stamp(&mut self, now: u64) -> u64 {
        self.latest = now.max(self.latest.saturating_add(1));
        self.latest
    }

    /// Takes in a value, whose cells have been taken before. One of this id must not be there.
    pub fn insert(&mut self, id: DiskValueId, value: ValueRecord) {
        let parent = id.parent(value.parent);
        *self.children.entry(parent).or_default() += 1;
        if let Some(above) = self.values.get(&parent) {
            self.leaves.remove(&leaf(parent, above));
        }
        if !self.children.contains_key(&id) {
            self.leaves.insert(leaf(id, &value));
        }
        self.bytes += value.len;
        self.latest = self.latest.max(value.last_used);
        self.values.insert(id, value);
    }

    /// Removes a value. The caller releases or discards its cells.
    pub fn remove(&mut self, id: &DiskValueId) -> Option<ValueRecord> {
        let value = self.values.remove(id)?;
        self.leaves.remove(&leaf(*id, &value));
        self.stale_stamps.remove(id);
        self.bytes -= value.len;
        let parent = id.parent(value.parent);
        match self.children.get_mut(&parent) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.children.remove(&parent);
                if let Some(above) = self.values.get_mut(&parent) {
                    // Whoever used the child used its parent.
                    if above.last_used < value.last_used {
                        above.last_used = value.last_used;
                        self.stale_stamps.insert(parent);
                    }
                    self.leaves.insert(leaf(parent, above));
                }
            }
        }
        Some(value)
    }

    /// The value that is deleted first, and its stamp of use: the least recently used of those that no other needs,
    /// except `spared`.
    pub fn oldest(&self, spared: Option<DiskValueId>) -> Option<(DiskValueId, u64)> {
        self.leaves.iter().find(|(.., id)| Some(*id) != spared).map(|(used, _, id)| (*id, *used))
    }

    /// Notes that a value was used at `stamp`.
    pub fn touch(&mut self, id: &DiskValueId, stamp: u64) {
        if let Some(value) = self.values.get_mut(id) {
            let was_leaf = self.leaves.remove(&leaf(*id, value));
            value.last_used = stamp;
            if was_leaf {
                self.leaves.insert(leaf(*id, value));
            }
            self.stale_stamps.insert(*id);
        }
    }

    /// Hands out the values whose stamps are to be written.
    pub fn take_stale_stamps(&mut self) -> Vec<DiskValueId> {
        self.stale_stamps.drain().collect()
    }

    pub fn any_stale_stamps(&self) -> bool {
        !self.stale_stamps.is_empty()
    }

    /// The file has `cells` cells from now on. New ones are free; none that goes may be of a value.
    pub fn resize(&mut self, cells: u32) {
        self.free.extend(self.cells..cells);
        self.free.split_off(&cells);
        self.discarded.retain(|cell| *cell < cells);
        self.cells = cells;
    }

    /// Takes `count` free cells, the lowest first; `None` if fewer are free.
    pub fn take_cells(&mut self, count: usize) -> Option<Box<[u32]>> {
        if self.free.len() < count {
            return None;
        }
        Some(std::iter::from_fn(|| self.free.pop_first()).take(count).collect())
    }

    /// Takes this cell, if it is free.
    pub fn take_cell(&mut self, cell: u32) -> bool {
        self.free.remove(&cell)
    }

    /// Gives back cells whose headers are erased.
    pub fn release(&mut self, cells: &[u32]) {
        self.free.extend(cells);
    }

    /// Gives back cells whose headers are not erased.
    pub fn discard(&mut self, cells: &[u32]) {
        self.discarded.extend_from_slice(cells);
    }

    /// Hands out the cells whose headers are to be erased.
    pub fn take_discarded(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.discarded)
    }

    pub fn any_discarded(&self) -> bool {
        !self.discarded.is_empty()
    }

    /// The values that have a part in a cell from `cells` on.
    pub fn values_beyond(&self, cells: u32) -> Vec<DiskValueId> {
        let beyond = |value: &ValueRecord| value.cells.iter().any(|cell| *cell >= cells);
        self.values.iter().filter(|(_, value)| beyond(value)).map(|(id, _)| *id).collect()
    }

    /// The value lies in other cells from now on.
    pub fn set_cells(&mut self, id: &DiskValueId, cells: Box<[u32]>) {
        if let Some(value) = self.values.get_mut(id) {
            value.cells = cells;
        }
    }
}

fn leaf(id: DiskValueId, value: &ValueRecord) -> Leaf {
    (value.last_used, Reverse(value.tokens), id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DiskValueKind;
    use proptest::prelude::*;

    fn key(n: u8) -> BlockKey {
        BlockKey::from_bytes([n; 16])
    }

    fn value(parent: u8, tokens: u32, used: u64) -> ValueRecord {
        ValueRecord { parent: key(parent), tokens, len: 1, hash: [0; 32], last_used: used, cells: Box::new([]) }
    }

    fn order(mut index: DiskIndex) -> Vec<u8> {
        std::iter::from_fn(|| {
            let (id, _) = index.oldest(None)?;
            index.remove(&id)?;
            Some(id.key.as_bytes()[0])
        })
        .collect()
    }

    #[test]
    fn a_chain_goes_from_its_end_and_the_chain_used_longest_ago_goes_first() {
        let mut index = DiskIndex::default();
        // 1 - 2 - 3 and, from 2 on, 4; and another chain 11 - 12. Children may come before their parents.
        for (n, parent, tokens, used) in
            [(3, 2, 48, 5), (2, 1, 32, 4), (1, 0, 16, 3), (4, 2, 48, 9), (11, 10, 16, 7), (12, 11, 32, 8)]
        {
            index.insert(DiskValueId::block(key(n)), value(parent, tokens, used));
        }
        index.touch(&DiskValueId::block(key(3)), 10);
        // 1 and 2 were stamped first, yet stay until 3 and 4, which need them, are gone.
        assert_eq!(order(index), [12, 11, 4, 3, 2, 1]);
    }

    #[test]
    fn a_snapshot_goes_before_its_block() {
        let mut index = DiskIndex::default();
        index.insert(DiskValueId::block(key(1)), value(0, 16, 1));
        index.insert(DiskValueId { kind: DiskValueKind::Snapshot, key: key(1) }, value(0, 16, 9));
        assert_eq!(index.oldest(None), Some((DiskValueId { kind: DiskValueKind::Snapshot, key: key(1) }, 9)));
        assert_eq!(index.oldest(Some(DiskValueId { kind: DiskValueKind::Snapshot, key: key(1) })), None);
    }

    proptest! {
        #[test]
        fn no_value_goes_before_one_that_needs_it(
            parents in prop::collection::vec((any::<prop::sample::Index>(), 0u64..50), 1..40),
            touched in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            seed in any::<u64>(),
        ) {
            let tree: Vec<(usize, u64)> =
                parents.iter().enumerate().map(|(n, (parent, used))| (parent.index(n + 1), *used)).collect();
            let mut inserted: Vec<usize> = (1..=tree.len()).collect();
            inserted.sort_by_key(|n| (*n as u64).wrapping_mul(seed | 1));
            let mut index = DiskIndex::default();
            for n in inserted {
                let (parent, used) = tree[n - 1];
                index.insert(DiskValueId::block(key(n as u8)), value(parent as u8, n as u32, used));
            }
            for (stamp, n) in touched.iter().enumerate() {
                index.touch(&DiskValueId::block(key(n.index(tree.len()) as u8 + 1)), 100 + stamp as u64);
            }
            let order = order(index);
            prop_assert_eq!(order.len(), tree.len());
            let place = |n: usize| order.iter().position(|m| usize::from(*m) == n);
            for (n, (parent, _)) in tree.iter().enumerate() {
                prop_assert!(*parent == 0 || place(*parent) > place(n + 1));
            }
        }
    }
}
