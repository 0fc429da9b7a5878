//! States of fixed size that recurrent layers keep of each sequence, beside the paged KV cache of the others.
use candle_core::{Result, Tensor, bail};
use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

/// The number of a recurrent layer, counted from 0 among the recurrent layers alone. It is not its number in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateId(pub usize);

/// How many f32 elements each recurrent layer keeps of a sequence. Empty for a model without such layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateLayout {
    /// Where each layer's elements begin in a slot; one more entry than layers.
    offsets: Vec<usize>,
}

impl StateLayout {
    /// `layers`: f32 elements that each recurrent layer keeps, in order.
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

    /// Bytes of one sequence's states. Nothing else computes this number.
    pub fn bytes_per_sequence(&self) -> usize {
        self.slot_len() * size_of::<f32>()
    }

    /// How many f32 elements each recurrent layer keeps of a sequence, in order.
    pub fn layers(&self) -> impl Iterator<Item = usize> {
        self.offsets.windows(2).map(|ends| ends[1] - ends[0])
    }

    fn range(&self, layer: StateId) -> Result<Range<usize>> {
        match (self.offsets.get(layer.0), self.offsets.get(layer.0 + 1)) {
            (Some(from), Some(to)) => Ok(*from..*to),
            _ => bail!("there is no recurrent layer number {}", layer.0),
        }
    }
}

/// The memory in which a device keeps states, a state slot for each sequence. Slots are those of the [`StatePool`] that
/// owns the memory.
pub trait StateMemory: Send + Sync {
    /// Copies all states of one sequence over those of another.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn copy(&self, from: u32, to: u32) -> Result<()>;

    /// The bytes of all states of one sequence, in the device's own order.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn read(&self, slot: u32) -> Result<Vec<u8>>;

    /// Overwrites all states of one sequence with what [`StateMemory::read`] gave.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn write(&self, slot: u32, bytes: &[u8]) -> Result<()>;

    /// The memory as its device's own type.
    fn as_any(&self) -> &dyn Any;
}

/// The states of all running sequences. A state slot holds one sequence's, so that they can be copied as a whole, or
/// kept as a snapshot of the sequence at the end of a chunk.
pub struct StatePool {
    layout: StateLayout,
    num_slots: usize,
    memory: Box<dyn StateMemory>,
}

impl StatePool {
    /// A pool of `num_slots` state slots in a device's memory, which must have as many of this layout.
    pub fn new(layout: StateLayout, num_slots: usize, memory: Box<dyn StateMemory>) -> Self {
        StatePool { layout, num_slots, memory }
    }

    /// A pool in the CPU's memory.
    pub fn on_cpu(layout: StateLayout, num_slots: usize) -> Self {
        let memory = CpuStates::new(layout.clone(), num_slots);
        StatePool::new(layout, num_slots, Box::new(memory))
    }

    /// Bytes of all state slots.
    pub fn num_bytes(&self) -> usize {
        self.num_slots * self.layout.bytes_per_sequence()
    }

    /// How many sequences can have states at once.
    pub fn num_slots(&self) -> usize {
        self.num_slots
    }

    /// The layers' sizes.
    pub fn layout(&self) -> &StateLayout {
        &self.layout
    }

    /// The memory as its device's own type `T`.
    ///
    /// # Errors
    /// States that another device keeps.
    pub fn memory<T: 'static>(&self) -> Result<&T> {
        match self.memory.as_any().downcast_ref() {
            Some(memory) => Ok(memory),
            None => bail!("states of another device"),
        }
    }

    /// Copies all states of one sequence over those of another.
    ///
    /// # Errors
    /// A state slot that the pool does not have.
    pub fn copy(&self, from: u32, to: u32) -> Result<()> {
        self.check(from)?;
        self.check(to)?;
        // A model without recurrent layers has slots of no bytes.
        if from == to || self.layout.slot_len() == 0 {
            return Ok(());
        }
        self.memory.copy(from, to)
    }

    /// The bytes of all states of one sequence, in the order of the device that keeps them.
    ///
    /// # Errors
    /// A state slot that the pool does not have.
    pub fn read(&self, slot: u32) -> Result<Vec<u8>> {
        self.check(slot)?;
        self.memory.read(slot)
    }

    /// Overwrites all states of one sequence with what [`StatePool::read`] gave.
    ///
    /// # Errors
    /// A state slot that the pool does not have, or another number of bytes than its states take.
    pub fn write(&self, slot: u32, bytes: &[u8]) -> Result<()> {
        self.check(slot)?;
        if bytes.len() != self.layout.bytes_per_sequence() {
            bail!("{} bytes for states of {}", bytes.len(), self.layout.bytes_per_sequence());
        }
        self.memory.write(slot, bytes)
    }

    /// # Errors
    /// A state slot that the pool does not have.
    pub(crate) fn check(&self, slot: u32) -> Result<()> {
        if slot as usize >= self.num_slots {
            bail!("state slot {slot} of a pool of {} state slots", self.num_slots);
        }
        Ok(())
    }
}

/// The CPU's memory of states: a state slot has all layers one after the other.
pub(crate) struct CpuStates {
    layout: StateLayout,
    slots: Vec<Mutex<Vec<f32>>>,
}

impl CpuStates {
    /// The memory is zeros, which the system backs with memory once a state slot is used.
    fn new(layout: StateLayout, num_slots: usize) -> Self {
        let slots = (0..num_slots).map(|_| Mutex::new(vec![0.0; layout.slot_len()])).collect();
        CpuStates { layout, slots }
    }

    fn lock(&self, slot: u32) -> Result<MutexGuard<'_, Vec<f32>>> {
        match self.slots.get(slot as usize) {
            // Numbers of any value are valid, so a panic elsewhere leaves nothing broken.
            Some(slot) => Ok(slot.lock().unwrap_or_else(|e| e.into_inner())),
            None => bail!("state slot {slot} of a pool of {} state slots", self.slots.len()),
        }
    }

    /// Calls `f` with one layer's state in one state slot.
    ///
    /// # Errors
    /// A state slot or a layer that the pool does not have.
    pub fn with<R>(&self, slot: u32, layer: StateId, f: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
        let range = self.layout.range(layer)?;
        Ok(f(&mut self.lock(slot)?[range]))
    }
}

impl StateMemory for CpuStates {
    fn copy(&self, from: u32, to: u32) -> Result<()> {
        let from = self.lock(from)?.clone();
        self.lock(to)?.copy_from_slice(&from);
        Ok(())
    }

    /// f32, little-endian.
    fn read(&self, slot: u32) -> Result<Vec<u8>> {
        Ok(self.lock(slot)?.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn write(&self, slot: u32, bytes: &[u8]) -> Result<()> {
        let mut states = self.lock(slot)?;
        for (state, bytes) in states.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *state = f32::from_le_bytes(*bytes);
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The inputs of a step's recurrent layers, of all rows. States that have taken in a draft are put back to what they
/// were before it; with these they take in what was accepted, without the rest of the model.
#[derive(Default)]
pub struct StateInputs(Mutex<BTreeMap<usize, Vec<Tensor>>>);

impl StateInputs {
    /// Keeps the inputs of a layer, each of one row for each row of the step.
    pub fn keep(&self, layer: StateId, inputs: &[&Tensor]) {
        let inputs = inputs.iter().map(|input| (*input).clone()).collect();
        self.0.lock().unwrap_or_else(|e| e.into_inner()).insert(layer.0, inputs);
    }

    /// The inputs of a layer, as they were kept.
    ///
    /// # Errors
    /// A layer of which nothing was kept.
    pub fn of(&self, layer: StateId) -> Result<Vec<Tensor>> {
        match self.0.lock().unwrap_or_else(|e| e.into_inner()).get(&layer.0) {
            Some(inputs) => Ok(inputs.clone()),
            None => bail!("the inputs of recurrent layer {} were not kept", layer.0),
        }
    }
}

/// Where the states of a step's sequences lie.
#[derive(Clone, Copy)]
pub struct SequenceStates<'a> {
    /// The states of all sequences.
    pub pool: &'a StatePool,
    /// The state slot of each sequence of the step, in the order of the batch.
    pub slots: &'a [u32],
    /// Where the inputs of recurrent layers are kept; `None`: nowhere.
    pub inputs: Option<&'a StateInputs>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_copied_whole_and_layers_keep_apart() {
        let layout = StateLayout::new([2, 3]);
        assert_eq!(layout.bytes_per_sequence(), 20);
        let pool = StatePool::on_cpu(layout, 2);
        assert_eq!(pool.num_bytes(), 40);
        pool.memory::<CpuStates>().unwrap().with(0, StateId(0), |s| s.fill(1.0)).unwrap();
        pool.memory::<CpuStates>().unwrap().with(0, StateId(1), |s| s.copy_from_slice(&[2.0, 3.0, 4.0])).unwrap();
        pool.copy(0, 1).unwrap();
        pool.memory::<CpuStates>().unwrap().with(0, StateId(1), |s| s.fill(0.0)).unwrap();
        assert_eq!(pool.memory::<CpuStates>().unwrap().with(1, StateId(1), |s| s.to_vec()).unwrap(), [2.0, 3.0, 4.0]);
        assert_eq!(pool.memory::<CpuStates>().unwrap().with(1, StateId(0), |s| s.to_vec()).unwrap(), [1.0, 1.0]);
        let bytes = pool.read(1).unwrap();
        pool.write(0, &bytes).unwrap();
        assert_eq!(pool.memory::<CpuStates>().unwrap().with(0, StateId(1), |s| s.to_vec()).unwrap(), [2.0, 3.0, 4.0]);
        assert!(pool.write(0, &bytes[4..]).is_err() && pool.read(2).is_err() && pool.copy(2, 2).is_err());
    }

    #[test]
    fn unknown_slots_and_layers_are_errors() {
        let pool = StatePool::on_cpu(StateLayout::new([2]), 1);
        assert!(pool.copy(0, 1).is_err());
        assert!(pool.memory::<CpuStates>().unwrap().with(0, StateId(1), |_| ()).is_err());
        assert_eq!(StatePool::on_cpu(StateLayout::default(), 4).num_bytes(), 0);
    }
}
