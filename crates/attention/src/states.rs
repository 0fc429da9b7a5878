//! States of fixed size that recurrent layers keep of each sequence, beside the paged KV cache of the others.
use candle_core::{Result, bail};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

/// Counts the layers that own a recurrent state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateId(pub usize);

/// How many f32 elements each recurrent layer keeps of a sequence. Empty for a model without such layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateLayout {
    /// Where each layer's elements begin in a slot; one more entry than layers.
    offsets: Vec<usize>,
}

impl StateLayout {
    pub fn new(layers: impl IntoIterator<Item = usize>) -> Self {
        let mut offsets = vec![0];
        for len in layers {
            offsets.push(offsets[offsets.len() - 1] + len);
        }
        StateLayout { offsets }
    }

    fn slot_len(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Bytes of one sequence's states: the only formula.
    pub fn bytes_per_sequence(&self) -> usize {
        self.slot_len() * size_of::<f32>()
    }

    fn range(&self, layer: StateId) -> Result<Range<usize>> {
        match (self.offsets.get(layer.0), self.offsets.get(layer.0 + 1)) {
            (Some(from), Some(to)) => Ok(*from..*to),
            _ => bail!("layer {} keeps no state", layer.0),
        }
    }
}

/// The states of all running sequences. A slot is one sequence's, all layers one after the other: it can be copied, or kept as a
/// snapshot of the sequence at the end of a chunk, as a whole.
pub struct StatePool {
    layout: StateLayout,
    slots: Vec<Mutex<Vec<f32>>>,
}

impl StatePool {
    /// Memory is taken as zeros, which the system backs once a slot is used.
    pub fn new(layout: StateLayout, num_slots: usize) -> Self {
        let slots = (0..num_slots).map(|_| Mutex::new(vec![0.0; layout.slot_len()])).collect();
        StatePool { layout, slots }
    }

    pub fn num_bytes(&self) -> usize {
        self.slots.len() * self.layout.bytes_per_sequence()
    }

    pub fn num_slots(&self) -> usize {
        self.slots.len()
    }

    pub fn layout(&self) -> &StateLayout {
        &self.layout
    }

    /// Errors: a slot that the pool does not have.
    pub fn copy(&self, from: u32, to: u32) -> Result<()> {
        if from == to {
            return Ok(());
        }
        let from = self.lock(from)?.clone();
        self.lock(to)?.copy_from_slice(&from);
        Ok(())
    }

    fn lock(&self, slot: u32) -> Result<MutexGuard<'_, Vec<f32>>> {
        match self.slots.get(slot as usize) {
            // Numbers of any value are valid, so a panic elsewhere leaves nothing broken.
            Some(slot) => Ok(slot.lock().unwrap_or_else(|e| e.into_inner())),
            None => bail!("slot {slot} of a pool of {} states", self.slots.len()),
        }
    }

    /// One layer's state in one slot.
    pub(crate) fn with<R>(&self, slot: u32, layer: StateId, f: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
        let range = self.layout.range(layer)?;
        Ok(f(&mut self.lock(slot)?[range]))
    }
}

/// The states of a step's sequences: the slot of each, in the order of the layout.
#[derive(Clone, Copy)]
pub struct SequenceStates<'a> {
    pub pool: &'a StatePool,
    pub slots: &'a [u32],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_copied_whole_and_layers_keep_apart() {
        let layout = StateLayout::new([2, 3]);
        assert_eq!(layout.bytes_per_sequence(), 20);
        let pool = StatePool::new(layout, 2);
        assert_eq!(pool.num_bytes(), 40);
        pool.with(0, StateId(0), |s| s.fill(1.0)).unwrap();
        pool.with(0, StateId(1), |s| s.copy_from_slice(&[2.0, 3.0, 4.0])).unwrap();
        pool.copy(0, 1).unwrap();
        pool.with(0, StateId(1), |s| s.fill(0.0)).unwrap();
        assert_eq!(pool.with(1, StateId(1), |s| s.to_vec()).unwrap(), [2.0, 3.0, 4.0]);
        assert_eq!(pool.with(1, StateId(0), |s| s.to_vec()).unwrap(), [1.0, 1.0]);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let pool = StatePool::new(StateLayout::new([2]), 1);
        assert!(pool.copy(0, 1).is_err());
        assert!(pool.with(0, StateId(1), |_| ()).is_err());
        assert_eq!(StatePool::new(StateLayout::default(), 4).num_bytes(), 0);
    }
}
