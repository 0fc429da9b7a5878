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

/// What is wanted of a chunk's logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Those of all of its tokens.
    All,
    /// Those of its last token, if it samples.
    Last,
    /// The same, but the so many largest will do.
    Largest(usize),
}

/// Logits of the rows that were asked for, row after row.
pub struct Logits {
    data: Data,
    /// For each chunk of the step, the first of its rows and how many there are.
    chunks: Vec<(usize, usize)>,
}

enum Data {
    Whole {
        values: Vec<f32>,
        vocab_size: usize,
    },
    /// `[rows][count]`.
    Largest {
        candidates: Vec<(u32, f32)>,
        count: usize,
    },
}

/// The logits of a token.
pub enum Row<'a> {
    /// `[vocab_size]`
    Whole(&'a mut [f32]),
    /// The largest with their ids, in descending order.
    Largest(&'a [(u32, f32)]),
}

impl Logits {
    /// The logits of a chunk's last token, if it was asked to be sampled from. They are whole unless all chunks could do with the
    /// largest.
    pub fn last(&mut self, chunk: usize) -> Option<Row<'_>> {
        let (first, rows) = self.chunks[chunk];
        let last = first + rows.checked_sub(1)?;
        Some(match &mut self.data {
            Data::Whole { values, vocab_size } => Row::Whole(&mut values[last * *vocab_size..][..*vocab_size]),
            Data::Largest { candidates, count } => Row::Largest(&candidates[last * *count..][..*count]),
        })
    }

    /// The logits of a chunk's tokens, if all were asked for.
    pub fn all(&self, chunk: usize) -> impl Iterator<Item = &[f32]> {
        let (first, rows) = self.chunks[chunk];
        let (values, width): (&[f32], _) = match &self.data {
            Data::Whole { values, vocab_size } => (&values[first * vocab_size..][..rows * vocab_size], *vocab_size),
            Data::Largest { .. } => (&[], 1),
        };
        values.chunks_exact(width)
    }
}

/// How many of the largest will do for all rows; `None` where some have to be whole.
fn largest(wants: &[Want]) -> Option<usize> {
    wants.iter().try_fold(0, |most, want| match want {
        Want::Largest(count) => Some(most.max(*count)),
        Want::All | Want::Last => None,
    })
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

    /// Runs a step and reads what is wanted of each chunk's logits.
    pub fn run(&mut self, step: &Step, scheduler: &Scheduler, want: impl Fn(&Chunk) -> Want) -> Result<Logits> {
        let mut layout = BatchLayout::default();
        let mut tokens = Vec::new();
        let (mut rows, mut chunks, mut slots, mut wants) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
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
            let want = want(chunk);
            let wanted = match (want, chunk.samples.is_empty()) {
                (Want::All, _) => base..base + chunk.len,
                (_, false) => base + chunk.len - 1..base + chunk.len,
                (_, true) => 0..0,
            };
            if !wanted.is_empty() {
                wants.push(want);
            }
            chunks.push((rows.len(), wanted.len()));
            rows.extend(wanted.map(|row| row as u32));
        }
        self.backend.copy_blocks(&step.copies)?;
        step.state_copies.iter().try_for_each(|copy| self.states.copy(copy.from.0, copy.to.0))?;
        let plan = self.backend.plan(Arc::new(layout))?;
        let states = SequenceStates { pool: &self.states, slots: &slots };
        let context = ForwardContext::new(&*self.backend, &plan, states);
        let logits = on_device(&self.device, || self.model.forward(&tokens, &rows, &context))?;
        if let (Some(count @ 1..), Some(ops)) = (largest(&wants), self.backend.row_ops())
            && let Some(candidates) = ops.largest(&logits, count)?
        {
            return Ok(Logits { data: Data::Largest { candidates, count }, chunks });
        }
        let (values, vocab_size) = (logits.flatten_all()?.to_vec1()?, self.model.vocab_size());
        Ok(Logits { data: Data::Whole { values, vocab_size }, chunks })
    }
}
