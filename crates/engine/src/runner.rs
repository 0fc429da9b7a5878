//! One step on the model: batch, copies, forward pass.
use crate::awake::on_device;
use attention::{AttentionBackend, BatchLayout, ForwardContext, SequenceStates, StatePool};
use candle_core::{Device, Result};
use models::Model;
use scheduler::{Chunk, Scheduler, Step};
use std::sync::Arc;

/// A model and the cache it writes.
pub struct ModelRunner {
    model: Box<dyn Model>,
    backend: Box<dyn AttentionBackend>,
    states: StatePool,
    device: Device,
}

/// Logits of the rows that were asked for, row after row.
pub struct Logits {
    data: Vec<f32>,
    vocab_size: usize,
    /// For each chunk of the step, the first of its rows and how many there are.
    chunks: Vec<(usize, usize)>,
}

impl Logits {
    /// The logits of a chunk's last token, if it was asked to be sampled from.
    pub fn last_mut(&mut self, chunk: usize) -> Option<&mut [f32]> {
        let (first, rows) = self.chunks[chunk];
        rows.checked_sub(1).map(|last| &mut self.data[(first + last) * self.vocab_size..][..self.vocab_size])
    }

    /// The logits of a chunk's tokens, if all were asked for.
    pub fn all(&self, chunk: usize) -> impl Iterator<Item = &[f32]> {
        let (first, rows) = self.chunks[chunk];
        self.data[first * self.vocab_size..][..rows * self.vocab_size].chunks_exact(self.vocab_size)
    }
}

impl ModelRunner {
    /// Takes the memory of `num_blocks` blocks, and of the recurrent states of `num_seqs` sequences. `device`: the model's.
    pub fn new(
        model: Box<dyn Model>,
        mut backend: Box<dyn AttentionBackend>,
        num_blocks: usize,
        num_seqs: usize,
        device: Device,
    ) -> Result<Self> {
        backend.allocate(num_blocks)?;
        let states = StatePool::new(model.state_layout().clone(), num_seqs);
        Ok(ModelRunner { model, backend, states, device })
    }

    pub fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    /// The recurrent states of running sequences.
    pub fn states(&self) -> &StatePool {
        &self.states
    }

    pub fn backend(&self) -> &dyn AttentionBackend {
        &*self.backend
    }

    /// Runs a step. Chunks that sample give the logits of their last token; those for which `whole` holds, of all tokens.
    pub fn run(&mut self, step: &Step, scheduler: &Scheduler, whole: impl Fn(&Chunk) -> bool) -> Result<Logits> {
        let mut layout = BatchLayout::default();
        let mut tokens = Vec::new();
        let (mut rows, mut chunks, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in &step.chunks {
            let Some(seq) = scheduler.sequence(chunk.seq) else {
                candle_core::bail!("the step names sequence {}, which is unknown", chunk.seq)
            };
            let Some(slot) = seq.state_slot() else {
                candle_core::bail!("the step names sequence {}, which does not run", chunk.seq)
            };
            slots.push(slot);
            let end = chunk.start + chunk.len;
            let base = layout.num_tokens();
            layout.push(chunk.start, chunk.len, seq.table());
            tokens.extend_from_slice(&seq.tokens()[chunk.start..end]);
            let wanted = match (whole(chunk), chunk.samples.is_empty()) {
                (true, _) => base..base + chunk.len,
                (false, false) => base + chunk.len - 1..base + chunk.len,
                (false, true) => 0..0,
            };
            chunks.push((rows.len(), wanted.len()));
            rows.extend(wanted.map(|row| row as u32));
        }
        self.backend.copy_blocks(&step.copies)?;
        step.state_copies.iter().try_for_each(|copy| self.states.copy(copy.from.0, copy.to.0))?;
        let plan = self.backend.plan(Arc::new(layout))?;
        let states = SequenceStates { pool: &self.states, slots: &slots };
        let context = ForwardContext::new(&*self.backend, &plan, states);
        let logits = on_device(&self.device, || self.model.forward(&tokens, &rows, &context))?;
        let vocab_size = self.model.vocab_size();
        Ok(Logits { data: logits.flatten_all()?.to_vec1()?, vocab_size, chunks })
    }
}
