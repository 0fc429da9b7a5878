//! A scheme's cache with some sequences of its own, computed as serving computes them.
use super::{BLOCK_SIZE, Scheme};
use crate::awake::on_device;
use crate::error::StartError;
use crate::start::Loaded;
use attention::{AttentionBackend, BatchLayout, ForwardContext, SequenceStates, StatePool};
use kv::{BlockCopy, BlockPool, BlockTable};
use std::ops::Range;
use std::sync::Arc;

pub(crate) struct TrialCache<'a> {
    loaded: &'a Loaded,
    pub backend: Box<dyn AttentionBackend>,
    /// Whether anything is taken out of what it stores.
    pub centred: bool,
    tables: Vec<BlockTable>,
    states: StatePool,
}

impl<'a> TrialCache<'a> {
    /// `sequences` of at most `tokens` each.
    pub fn new(loaded: &'a Loaded, scheme: &Scheme, tokens: usize, sequences: usize) -> Result<Self, StartError> {
        let (mut backend, centred) = scheme.backend(loaded)?;
        let pool = BlockPool::new(tokens.div_ceil(BLOCK_SIZE) * sequences);
        backend.allocate(pool.num_blocks())?;
        let full = |e: kv::OutOfBlocks| candle_core::Error::Msg(e.to_string());
        let mut tables = Vec::with_capacity(sequences);
        for _ in 0..sequences {
            let mut table = BlockTable::new(BLOCK_SIZE);
            table.prepare_write(&pool, 0, tokens).map_err(full)?;
            tables.push(table);
        }
        let states = StatePool::new(loaded.model.state_layout().clone(), sequences);
        Ok(TrialCache { loaded, backend, centred, tables, states })
    }

    /// One pass over a span of positions of each of `sequences`; `tokens` are theirs one after the other. The logits of `rows`
    /// of the tokens, row after row.
    pub fn forward(
        &mut self,
        sequences: &[(usize, Range<usize>)],
        tokens: &[u32],
        rows: &[u32],
    ) -> Result<Vec<f32>, StartError> {
        let mut layout = BatchLayout::default();
        sequences.iter().for_each(|(s, span)| layout.push(span.start, span.len(), &self.tables[*s]));
        let slots: Vec<u32> = sequences.iter().map(|(s, _)| *s as u32).collect();
        let plan = self.backend.plan(Arc::new(layout))?;
        let states = SequenceStates { pool: &self.states, slots: &slots };
        let context = ForwardContext::new(&*self.backend, &plan, states);
        let logits = on_device(&self.loaded.device, || self.loaded.model.forward(tokens, rows, &context))?;
        Ok(logits.flatten_all()?.to_vec1()?)
    }

    /// Gives sequence `to` the bytes of sequence `from`, in blocks of its own.
    pub fn copy(&self, from: usize, to: usize) -> Result<(), StartError> {
        let pairs = self.tables[from].ids().into_iter().zip(self.tables[to].ids());
        let copies: Vec<BlockCopy> = pairs.map(|(from, to)| BlockCopy { from, to }).collect();
        self.backend.copy_blocks(&copies)?;
        Ok(self.states.copy(from as u32, to as u32)?)
    }
}
