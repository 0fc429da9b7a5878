//! One step on the model: its copies, its batch, the forward pass, its logits.
use crate::forward::ModelRef;
use attention::{AttentionBackend, BatchLayout, SequenceStates, StatePool};
use candle_core::Result;
use compute::ComputeDevice;
use models::Model;
use scheduler::{Chunk, Scheduler, Step};
use std::sync::Arc;

/// A model and the cache that it writes.
pub struct ModelRunner {
    model: Box<dyn Model>,
    backend: Box<dyn AttentionBackend>,
    states: StatePool,
    device: Arc<dyn ComputeDevice>,
}

/// The logits that are needed of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitsNeed {
    /// Those of all its tokens.
    All,
    /// All logits of its last token, if the chunk is sampled from.
    Last,
    /// Only the n largest logits of its last token, if the chunk is sampled from (greedy and top-k sampling need no
    /// more).
    Largest(usize),
}

/// Logits of the rows that were asked for, row after row.
pub struct Logits {
    data: LogitsData,
    /// For each chunk of the step, the first of its rows and how many there are.
    chunks: Vec<(usize, usize)>,
}

enum LogitsData {
    /// `[rows][vocab_size]`
    Whole { values: Vec<f32>, vocab_size: usize },
    /// `[rows][count]`, token ids with their logits.
    Largest { candidates: Vec<(u32, f32)>, count: usize },
}

/// The logits of one token.
pub enum LogitsRow<'a> {
    /// All of them: `[vocab_size]`.
    Whole(&'a mut [f32]),
    /// The largest with their token ids, in descending order.
    Largest(&'a [(u32, f32)]),
}

impl Logits {
    /// The logits of a chunk's last token, if the chunk is sampled from. They are whole unless the largest are enough
    /// for all chunks of the step.
    pub fn last(&mut self, chunk: usize) -> Option<LogitsRow<'_>> {
        let (first, rows) = self.chunks[chunk];
        let last = first + rows.checked_sub(1)?;
        Some(match &mut self.data {
            LogitsData::Whole { values, vocab_size } => {
                LogitsRow::Whole(&mut values[last * *vocab_size..][..*vocab_size])
            }
            LogitsData::Largest { candidates, count } => LogitsRow::Largest(&candidates[last * *count..][..*count]),
        })
    }

    /// The logits of a chunk's tokens, token after token; none unless [`LogitsNeed::All`] was said of it.
    pub fn all(&self, chunk: usize) -> impl Iterator<Item = &[f32]> {
        let (first, rows) = self.chunks[chunk];
        let (values, width): (&[f32], _) = match &self.data {
            LogitsData::Whole { values, vocab_size } => {
                (&values[first * vocab_size..][..rows * vocab_size], *vocab_size)
            }
            LogitsData::Largest { .. } => (&[], 1),
        };
        values.chunks_exact(width)
    }
}

/// How many of the largest logits are enough for all rows; `None` where some row has to be whole.
fn largest(needs: &[LogitsNeed]) -> Option<usize> {
    needs.iter().try_fold(0, |most, need| match need {
        LogitsNeed::Largest(count) => Some(most.max(*count)),
        LogitsNeed::All | LogitsNeed::Last => None,
    })
}

impl ModelRunner {
    /// Takes the memory of `num_blocks` blocks, and of the recurrent states of `num_seqs` sequences. `device` is the
    /// model's.
    ///
    /// Errors: too little memory.
    pub fn new(
        model: Box<dyn Model>,
        mut backend: Box<dyn AttentionBackend>,
        num_blocks: usize,
        num_seqs: usize,
        device: Arc<dyn ComputeDevice>,
    ) -> Result<Self> {
        backend.allocate(num_blocks)?;
        let states = StatePool::new(model.state_layout().clone(), num_seqs);
        Ok(ModelRunner { model, backend, states, device })
    }

    /// Logits of one row.
    pub fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    /// The recurrent states of running sequences.
    pub fn states(&self) -> &StatePool {
        &self.states
    }

    /// What stores K and V and computes attention.
    pub fn backend(&self) -> &dyn AttentionBackend {
        &*self.backend
    }

    /// Runs a step and reads the logits that `need` says of each chunk.
    ///
    /// Errors: a step that names sequences which do not run; whatever model or backend refuse.
    pub fn run(&mut self, step: &Step, scheduler: &Scheduler, need: impl Fn(&Chunk) -> LogitsNeed) -> Result<Logits> {
        let mut layout = BatchLayout::default();
        let mut tokens = Vec::new();
        let (mut rows, mut chunks, mut slots, mut needs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
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
            let need = need(chunk);
            let needed = match (need, chunk.samples.is_empty()) {
                (LogitsNeed::All, _) => base..base + chunk.len,
                (_, false) => base + chunk.len - 1..base + chunk.len,
                (_, true) => 0..0,
            };
            if !needed.is_empty() {
                needs.push(need);
            }
            chunks.push((rows.len(), needed.len()));
            rows.extend(needed.map(|row| row as u32));
        }
        // A GPU takes no dispatch of no rows, and a step whose logits are not read would not be waited for.
        if rows.is_empty() {
            rows.push(0);
        }
        self.backend.copy_blocks(&step.copies)?;
        step.state_copies.iter().try_for_each(|copy| self.states.copy(copy.from.0, copy.to.0))?;
        let states = SequenceStates { pool: &self.states, slots: &slots };
        let model = ModelRef { model: &*self.model, device: &*self.device };
        let logits = model.forward(&mut *self.backend, layout, states, &tokens, &rows)?;
        if let Some(count @ 1..) = largest(&needs)
            && let Some(candidates) = self.device.largest(&logits, count)?
        {
            return Ok(Logits { data: LogitsData::Largest { candidates, count }, chunks });
        }
        let (values, vocab_size) = (self.device.read(&[&logits])?.remove(0), self.model.vocab_size());
        Ok(Logits { data: LogitsData::Whole { values, vocab_size }, chunks })
    }
}
