//! A forward pass over a batch, and sequences that are computed outside of serving.
use attention::{AttentionBackend, BatchLayout, ForwardContext, SequenceStates, StatePool};
use candle_core::{Error, Result, Tensor};
use compute::ComputeDevice;
use kv::{BlockCopy, BlockPool, BlockTable};
use models::Model;
use std::ops::Range;
use std::sync::Arc;

/// A model and the device that has its weights.
#[derive(Clone, Copy)]
pub struct ModelRef<'a> {
    /// The model.
    pub model: &'a dyn Model,
    /// What computes it.
    pub device: &'a dyn ComputeDevice,
}

/// The rows of a batch of which something is wanted.
#[derive(Default)]
pub(crate) struct WantedRows {
    /// Those whose hidden states are wanted.
    pub hidden: Vec<u32>,
    /// Those whose logits are wanted.
    pub logits: Vec<u32>,
}

/// What a pass over a batch gives.
pub(crate) struct PassOutput {
    /// `[rows, hidden_size]`, f32; of at least one row if no logits were wanted.
    pub hidden: Tensor,
    /// `[rows, vocab_size]`, f32; `None` if none were wanted.
    pub logits: Option<Tensor>,
}

impl ModelRef<'_> {
    /// Computes a batch and writes its K and V. `tokens`: the ids of all rows of `layout`; `states`: the recurrent
    /// states of its sequences.
    ///
    /// Errors: whatever model or backend refuse, such as logits of a model without a head.
    pub(crate) fn pass(
        self,
        backend: &mut dyn AttentionBackend,
        layout: BatchLayout,
        states: SequenceStates<'_>,
        tokens: &[u32],
        wanted: &WantedRows,
    ) -> Result<PassOutput> {
        let plan = backend.plan(Arc::new(layout))?;
        let context = ForwardContext::new(backend, &plan, states);
        let mut output = None;
        self.device.pass(&mut || output = Some(self.compute(tokens, wanted, &context)));
        output.unwrap_or_else(|| Err(Error::Msg("the device ran no pass".to_owned())))
    }

    fn compute(self, tokens: &[u32], wanted: &WantedRows, context: &ForwardContext<'_>) -> Result<PassOutput> {
        let WantedRows { hidden, logits } = wanted;
        let (num_hidden, num_logits) = (hidden.len(), logits.len());
        let mut rows = [&hidden[..], &logits[..]].concat();
        // A GPU takes no dispatch of no rows, and a pass of which nothing is read would not be waited for.
        if rows.is_empty() {
            rows.push(0);
        }
        let states = self.model.hidden_states(tokens, &rows, context)?;
        if num_logits == 0 {
            return Ok(PassOutput { hidden: states, logits: None });
        }
        let of_logits = states.narrow(0, num_hidden, num_logits)?;
        let logits = Some(self.model.logits(&of_logits)?);
        Ok(PassOutput { hidden: states, logits })
    }
}

/// Sequences with blocks and states of their own, which are computed outside of serving: to calibrate and to measure.
pub struct PrivateSequences {
    tables: Vec<BlockTable>,
    states: StatePool,
}

impl PrivateSequences {
    /// Allocates the blocks of `backend`: those of `count` sequences of at most `max_len` tokens each.
    ///
    /// Errors: too little memory.
    pub fn new(model: ModelRef<'_>, backend: &mut dyn AttentionBackend, count: usize, max_len: usize) -> Result<Self> {
        let block_size = backend.spec().block_size();
        let pool = BlockPool::new(max_len.div_ceil(block_size) * count);
        backend.allocate(pool.num_blocks())?;
        let full = |e: kv::OutOfBlocks| Error::Msg(e.to_string());
        let mut tables = Vec::with_capacity(count);
        for _ in 0..count {
            let mut table = BlockTable::new(block_size);
            table.prepare_write(&pool, 0, max_len).map_err(full)?;
            tables.push(table);
        }
        Ok(PrivateSequences { tables, states: model.device.states(model.model.state_layout().clone(), count)? })
    }

    /// One pass over a range of positions of each of some sequences, which are named by their numbers. `tokens` are
    /// theirs, one sequence after the other. Returns the logits of the rows `logit_rows`: `[logit_rows.len(),
    /// vocab_size]`, f32.
    ///
    /// Errors: no row, a model without a head, whatever model or backend refuse.
    pub fn forward(
        &self,
        model: ModelRef<'_>,
        backend: &mut dyn AttentionBackend,
        ranges: &[(usize, Range<usize>)],
        tokens: &[u32],
        logit_rows: &[u32],
    ) -> Result<Tensor> {
        let wanted = WantedRows { logits: logit_rows.to_vec(), ..WantedRows::default() };
        let output = self.pass(model, backend, ranges, tokens, &wanted)?;
        output.logits.ok_or_else(|| Error::Msg("no logits were asked for".to_owned()))
    }

    /// Writes the cache of a range of positions, as [`Self::forward`] does, and gives no logits.
    pub(crate) fn fill(
        &self,
        model: ModelRef<'_>,
        backend: &mut dyn AttentionBackend,
        ranges: &[(usize, Range<usize>)],
        tokens: &[u32],
    ) -> Result<()> {
        let output = self.pass(model, backend, ranges, tokens, &WantedRows::default())?;
        model.device.read(&[&output.hidden]).map(drop)
    }

    fn pass(
        &self,
        model: ModelRef<'_>,
        backend: &mut dyn AttentionBackend,
        ranges: &[(usize, Range<usize>)],
        tokens: &[u32],
        wanted: &WantedRows,
    ) -> Result<PassOutput> {
        let mut layout = BatchLayout::default();
        ranges.iter().for_each(|(sequence, range)| layout.push(range.start, range.len(), &self.tables[*sequence]));
        let slots: Vec<u32> = ranges.iter().map(|(sequence, _)| *sequence as u32).collect();
        let states = SequenceStates { pool: &self.states, slots: &slots, inputs: None };
        model.pass(backend, layout, states, tokens, wanted)
    }

    /// Gives sequence `to` the cache and the states of sequence `from`, in blocks of its own.
    pub fn copy(&self, backend: &dyn AttentionBackend, from: usize, to: usize) -> Result<()> {
        let pairs = self.tables[from].ids().into_iter().zip(self.tables[to].ids());
        let copies: Vec<BlockCopy> = pairs.map(|(from, to)| BlockCopy { from, to }).collect();
        backend.copy_blocks(&copies)?;
        self.states.copy(from as u32, to as u32)
    }
}
