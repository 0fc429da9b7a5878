//! Recurrent states in a GPU's memory.
use crate::executor::Executor;
use crate::launch;
use crate::limits::check_buffer;
use crate::tables::words;
use attention::{ForwardContext, StateId, StateLayout, StateMemory};
use candle_core::{Error, Result, bail};
use std::any::Any;
use std::sync::Arc;

/// The states of all state slots, a buffer for each recurrent layer, `[slots][elements]` f32.
pub(super) struct GpuStates<E: Executor> {
    executor: Arc<E>,
    layers: Vec<LayerStates<E::Buffer>>,
}

struct LayerStates<B> {
    buffer: B,
    /// Bytes of a slot.
    slot: usize,
}

impl<E: Executor> GpuStates<E> {
    /// Takes the memory; its content is undefined.
    ///
    /// Errors: no memory, or more than one buffer of the device holds.
    pub fn new(executor: &Arc<E>, layout: &StateLayout, num_slots: usize) -> Result<Self> {
        let layer = |len: usize| {
            let slot = len * 4;
            check_buffer(slot * num_slots, executor.largest_buffer()).map_err(Error::wrap)?;
            Ok(LayerStates { buffer: executor.create((slot * num_slots).max(16)).map_err(Error::wrap)?, slot })
        };
        let layers = layout.layers().map(layer).collect::<Result<_>>()?;
        Ok(GpuStates { executor: Arc::clone(executor), layers })
    }

    /// The buffer of a layer.
    ///
    /// Errors: a layer without a state, or with one of another number of elements.
    pub fn layer(&self, layer: StateId, len: usize) -> Result<&E::Buffer> {
        match self.layers.get(layer.0) {
            Some(states) if states.slot == len * 4 => Ok(&states.buffer),
            Some(states) => bail!("layer {} keeps {} bytes of a sequence, not {}", layer.0, states.slot, len * 4),
            None => bail!("layer {} keeps no state", layer.0),
        }
    }
}

impl<E: Executor + 'static> StateMemory for GpuStates<E> {
    fn copy(&self, from: u32, to: u32) -> Result<()> {
        let copies = self.executor.buffer(&words([from, to])).map_err(Error::wrap)?;
        let layers = self.layers.iter();
        let launches: Vec<_> = layers.map(|layer| launch::copy_blocks(layer.slot, 1, &copies, &layer.buffer)).collect();
        self.executor.run(&launches).map_err(Error::wrap)
    }

    fn read(&self, slot: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for layer in &self.layers {
            let at = bytes.len();
            bytes.resize(at + layer.slot, 0);
            let from = slot as usize * layer.slot;
            self.executor.download(&layer.buffer, from, &mut bytes[at..]).map_err(Error::wrap)?;
        }
        Ok(bytes)
    }

    fn write(&self, slot: u32, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for layer in &self.layers {
            let Some((own, after)) = rest.split_at_checked(layer.slot) else {
                bail!("{} bytes for the states of a sequence", bytes.len())
            };
            self.executor.upload(&layer.buffer, slot as usize * layer.slot, own).map_err(Error::wrap)?;
            rest = after;
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The sequences of a step, as kernels read them.
pub(super) struct StepSequences<B> {
    /// See [`launch::ConvolveBuffers`].
    pub sequence_of_row: B,
    /// See [`launch::ConvolveBuffers`].
    pub sequences: B,
}

impl<B> StepSequences<B> {
    /// Uploads them.
    ///
    /// Errors: a sequence without rows or state slot; no memory.
    pub fn new<E: Executor<Buffer = B>>(executor: &E, ctx: &ForwardContext<'_>) -> Result<Self> {
        let layout = ctx.layout();
        let (mut of_rows, mut sequences) = (Vec::with_capacity(layout.num_tokens()), Vec::new());
        for seq in 0..layout.num_seqs() {
            let (rows, (slot, starts)) = (layout.rows(seq), ctx.state_slot(seq)?);
            sequences.extend([rows.start as u32, rows.len() as u32, slot, u32::from(starts)]);
            of_rows.extend(rows.map(|_| seq as u32));
        }
        let upload = |numbers: Vec<u32>| executor.buffer(&words(numbers)).map_err(Error::wrap);
        Ok(StepSequences { sequence_of_row: upload(of_rows)?, sequences: upload(sequences)? })
    }
}
