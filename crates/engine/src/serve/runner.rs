//! One step on the model: its copies, its batch, the forward pass, its snapshots, what is read of it.
use crate::forward::{ModelRef, WantedRows};
use attention::{AttentionBackend, BatchLayout, ForwardContext, SequenceStates, StateInputs, StatePool};
use candle_core::{DType, Result, Tensor};
use compute::ComputeDevice;
use kv::BlockId;
use models::Model;
use scheduler::{Chunk, Scheduler, Step};
use std::ops::Range;
use std::sync::Arc;

/// How many rows of logits are made at a time where those of all tokens are needed: 37 MiB of Qwen3's vocabulary.
const LOGIT_ROWS: usize = 64;

/// A model and the cache that it writes.
pub struct ModelRunner {
    model: Box<dyn Model>,
    backend: Box<dyn AttentionBackend>,
    states: StatePool,
    device: Arc<dyn ComputeDevice>,
}

/// The results of a chunk that are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkNeed {
    /// The hidden states of all its tokens, for [`ModelRunner::each_logits`], beside the logits of its last one.
    AllLogits,
    /// All logits of its last token, if the chunk is sampled from. Where it has a draft, also those of the draft's
    /// tokens.
    LastLogits,
    /// Only the n largest logits of the same tokens (greedy and top-k sampling need no more).
    LargestLogits(usize),
    /// The hidden states of these of its tokens, counted from the chunk's first.
    HiddenStates(Range<usize>),
}

/// The results of a step for the rows that were asked for, row after row.
pub struct StepOutput {
    logits: LogitsData,
    /// `[rows][hidden_size]`
    hidden: Vec<f32>,
    /// The type that the model computes them in.
    hidden_type: DType,
    hidden_size: usize,
    /// For each chunk of the step, its rows among those.
    chunks: Vec<ChunkRows>,
    /// The inputs of recurrent layers, if a draft was among them.
    inputs: Option<StateInputs>,
}

/// Where a chunk's rows lie in what a step gave.
struct ChunkRows {
    logits: Range<usize>,
    hidden: Range<usize>,
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

impl StepOutput {
    /// The logits of the last token of a chunk's own, if the chunk is sampled from; with a `place` above 0 those of the
    /// token of its draft that is so many places after it. They are whole unless the largest are enough for all chunks
    /// of the step.
    pub fn sampled(&mut self, chunk: usize, place: usize) -> Option<LogitsRow<'_>> {
        let row = self.chunks[chunk].logits.clone().nth(place)?;
        Some(match &mut self.logits {
            LogitsData::Whole { values, vocab_size } => {
                LogitsRow::Whole(&mut values[row * *vocab_size..][..*vocab_size])
            }
            LogitsData::Largest { candidates, count } => LogitsRow::Largest(&candidates[row * *count..][..*count]),
        })
    }

    /// The hidden states that were asked for of a chunk, token after token.
    pub fn hidden_states(&self, chunk: usize) -> impl Iterator<Item = &[f32]> {
        self.hidden_rows(chunk).chunks_exact(self.hidden_size)
    }

    fn hidden_rows(&self, chunk: usize) -> &[f32] {
        let ChunkRows { hidden: rows, .. } = &self.chunks[chunk];
        &self.hidden[rows.start * self.hidden_size..rows.end * self.hidden_size]
    }
}

/// The batch of a step, and the rows of it that are needed.
#[derive(Default)]
struct StepBatch {
    layout: BatchLayout,
    tokens: Vec<u32>,
    slots: Vec<u32>,
    wanted: WantedRows,
    chunks: Vec<ChunkRows>,
    /// How many of the largest logits are enough for all rows; `None` where some row has to be whole.
    largest: Option<usize>,
}

impl StepBatch {
    fn new() -> Self {
        StepBatch { largest: Some(0), ..StepBatch::default() }
    }

    /// Errors: a chunk of a sequence that does not run.
    fn push(&mut self, chunk: &Chunk, scheduler: &Scheduler, need: ChunkNeed) -> Result<()> {
        let Some(seq) = scheduler.sequence(chunk.seq) else {
            candle_core::bail!("the step names sequence {}, which is unknown", chunk.seq)
        };
        let Some(slot) = seq.state_slot() else {
            candle_core::bail!("the step names sequence {}, which does not run", chunk.seq)
        };
        self.slots.push(slot);
        let base = self.layout.num_tokens();
        self.layout.push(chunk.start, chunk.len, seq.table());
        self.tokens.extend_from_slice(&seq.tokens()[chunk.start..chunk.start + chunk.own_len()]);
        self.tokens.extend_from_slice(&chunk.draft);
        let last = if chunk.samples.is_empty() { 0..0 } else { chunk.own_len() - 1..chunk.len };
        let (logits, hidden) = match &need {
            ChunkNeed::AllLogits => (last, 0..chunk.len),
            ChunkNeed::LastLogits | ChunkNeed::LargestLogits(_) => (last, 0..0),
            ChunkNeed::HiddenStates(rows) => (0..0, rows.start.min(chunk.len)..rows.end.min(chunk.len)),
        };
        if !logits.is_empty() {
            self.largest = match (self.largest, need) {
                (Some(most), ChunkNeed::LargestLogits(count)) => Some(most.max(count)),
                _ => None,
            };
        }
        let add = |rows: &mut Vec<u32>, of_chunk: Range<usize>| {
            let begin = rows.len();
            rows.extend(of_chunk.map(|row| (base + row) as u32));
            begin..rows.len()
        };
        let (logits, hidden) = (add(&mut self.wanted.logits, logits), add(&mut self.wanted.hidden, hidden));
        self.chunks.push(ChunkRows { logits, hidden });
        Ok(())
    }
}

impl ModelRunner {
    /// Takes the memory of `num_blocks` blocks, and of `num_state_slots` sequences' recurrent states. `device` is the
    /// model's.
    ///
    /// Errors: too little memory.
    pub fn new(
        model: Box<dyn Model>,
        mut backend: Box<dyn AttentionBackend>,
        num_blocks: usize,
        num_state_slots: usize,
        device: Arc<dyn ComputeDevice>,
    ) -> Result<Self> {
        backend.allocate(num_blocks)?;
        let states = device.states(model.state_layout().clone(), num_state_slots)?;
        Ok(ModelRunner { model, backend, states, device })
    }

    /// The model.
    pub fn model(&self) -> &dyn Model {
        &*self.model
    }

    /// The model with the device that has its weights, for sequences outside of serving.
    pub(crate) fn model_ref(&self) -> ModelRef<'_> {
        ModelRef { model: &*self.model, device: &*self.device }
    }

    /// The recurrent states of running sequences.
    pub fn states(&self) -> &StatePool {
        &self.states
    }

    /// Returns the backend, which stores K and V and computes attention.
    pub fn backend(&self) -> &dyn AttentionBackend {
        &*self.backend
    }

    /// The bytes of a block in all layers.
    ///
    /// Errors: whatever the backend refuses.
    pub fn read_block(&self, block: BlockId) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.backend.spec().bytes_per_block()];
        self.backend.read_block(block, &mut bytes)?;
        Ok(bytes)
    }

    /// Overwrites a block with what [`ModelRunner::read_block`] gave.
    ///
    /// Errors: another number of bytes than a block has; whatever the backend refuses.
    pub fn write_block(&self, block: BlockId, bytes: &[u8]) -> Result<()> {
        let expected = self.backend.spec().bytes_per_block();
        if bytes.len() != expected {
            candle_core::bail!("{} bytes for a block of {expected}", bytes.len());
        }
        self.backend.write_block(block, bytes)
    }

    /// Runs a step and reads what `need` says of each chunk.
    ///
    /// Errors: a step that names sequences which do not run; whatever model or backend refuse.
    pub fn run(
        &mut self,
        step: &Step,
        scheduler: &Scheduler,
        need: impl Fn(&Chunk) -> ChunkNeed,
    ) -> Result<StepOutput> {
        let mut batch = StepBatch::new();
        step.chunks.iter().try_for_each(|chunk| batch.push(chunk, scheduler, need(chunk)))?;
        let StepBatch { layout, tokens, slots, wanted, chunks, largest } = batch;
        self.backend.copy_blocks(&step.copies)?;
        step.state_copies.iter().try_for_each(|copy| self.states.copy(copy.from.0, copy.to.0))?;
        let keeps = self.states.num_bytes() > 0 && step.chunks.iter().any(|chunk| !chunk.draft.is_empty());
        let inputs = keeps.then(StateInputs::default);
        let states = SequenceStates { pool: &self.states, slots: &slots, inputs: inputs.as_ref() };
        let model = ModelRef { model: &*self.model, device: &*self.device };
        let output = model.pass(&mut *self.backend, layout, states, &tokens, &wanted)?;
        step.snapshots.iter().try_for_each(|copy| self.states.copy(copy.from.0, copy.to.0))?;
        let logits = match &output.logits {
            Some(logits) => Some(self.read_logits(logits, largest)?),
            None => None,
        };
        // Without logits, reading them is what waits for a GPU.
        let hidden = match wanted.hidden.is_empty() && logits.is_some() {
            true => Vec::new(),
            false => self.device.read(&[&output.hidden])?.remove(0),
        };
        let vocab_size = self.model.vocab_size();
        let logits = logits.unwrap_or(LogitsData::Whole { values: Vec::new(), vocab_size });
        let (hidden_type, hidden_size) = (output.hidden.dtype(), self.model.hidden_size());
        Ok(StepOutput { logits, hidden, hidden_type, hidden_size, chunks, inputs })
    }

    /// Has the recurrent states of sequences whose drafts were rejected in part take in what was accepted. `replays`:
    /// what [`Scheduler::replays`] says of the step that gave `output`.
    ///
    /// Errors: whatever model or backend refuse.
    pub fn replay(
        &mut self,
        step: &Step,
        scheduler: &Scheduler,
        output: &StepOutput,
        replays: &[(usize, usize)],
    ) -> Result<()> {
        let Some(inputs) = output.inputs.as_ref().filter(|_| !replays.is_empty()) else { return Ok(()) };
        let begins: Vec<usize> =
            step.chunks.iter().scan(0, |end, chunk| Some(std::mem::replace(end, *end + chunk.len))).collect();
        let (mut layout, mut rows, mut slots) = (BatchLayout::default(), Vec::new(), Vec::new());
        for &(at, len) in replays {
            let chunk = &step.chunks[at];
            let Some((seq, slot)) = scheduler.sequence(chunk.seq).and_then(|seq| Some((seq, seq.state_slot()?))) else {
                continue;
            };
            layout.push(chunk.start, len, seq.table());
            rows.extend((begins[at]..begins[at] + len).map(|row| row as u32));
            slots.push(slot);
        }
        let plan = self.backend.plan(Arc::new(layout))?;
        let states = SequenceStates { pool: &self.states, slots: &slots, inputs: None };
        let context = ForwardContext::new(&*self.backend, &plan, states);
        let mut result = Ok(());
        self.device.pass(&mut || result = self.model.replay(inputs, &rows, &context));
        result
    }

    /// The logits of all tokens of a chunk of which [`ChunkNeed::AllLogits`] was said, one after the other: `each` is
    /// given a token's place in the chunk and its logits. A few rows are computed at a time, because those of a whole
    /// step take hundreds of MiB where the vocabulary is large.
    ///
    /// Errors: whatever the model refuses.
    pub fn each_logits(&self, output: &StepOutput, chunk: usize, mut each: impl FnMut(usize, &[f32])) -> Result<()> {
        let width = output.hidden_size;
        for (part, rows) in output.hidden_rows(chunk).chunks(LOGIT_ROWS * width).enumerate() {
            let hidden = Tensor::from_slice(rows, (rows.len() / width, width), self.device.tensors())?;
            let hidden = hidden.to_dtype(output.hidden_type)?;
            let mut logits = None;
            self.device.pass(&mut || logits = Some(self.model.logits(&hidden)));
            let Some(logits) = logits.transpose()? else { candle_core::bail!("the device ran no pass") };
            let values = self.device.read(&[&logits])?.remove(0);
            let rows = values.chunks_exact(self.model.vocab_size()).enumerate();
            rows.for_each(|(row, logits)| each(part * LOGIT_ROWS + row, logits));
        }
        Ok(())
    }

    /// The `largest` logits of each row, or all where that is `None` or the device does not pick them.
    fn read_logits(&self, logits: &Tensor, largest: Option<usize>) -> Result<LogitsData> {
        if let Some(count @ 1..) = largest
            && let Some(candidates) = self.device.largest(logits, count)?
        {
            return Ok(LogitsData::Largest { candidates, count });
        }
        let (values, vocab_size) = (self.device.read(&[logits])?.remove(0), self.model.vocab_size());
        Ok(LogitsData::Whole { values, vocab_size })
    }
}
