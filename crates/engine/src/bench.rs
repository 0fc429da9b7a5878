//! How fast a model prefills and decodes, by K/V pair, context and batch: the same forward passes that serving makes.
use crate::error::StartError;
use crate::eval::Scheme;
use crate::start::Loaded;
use attention::{AttentionBackend, BatchLayout, ForwardContext, SequenceStates, StatePool};
use kv::{BlockCopy, BlockPool, BlockTable};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Tokens in the cache when decoding begins.
    pub contexts: Vec<usize>,
    /// Sequences that decode together.
    pub batches: Vec<usize>,
    /// Decode steps that are timed.
    pub steps: usize,
    /// Tokens of a prefill chunk.
    pub chunk: usize,
}

/// One pair, context and batch.
#[derive(Debug, Clone, Serialize)]
pub struct BenchRow {
    pub k: String,
    pub v: String,
    pub context: usize,
    pub batch: usize,
    /// Tokens a second over the whole prompt of one sequence.
    pub prefill: f64,
    /// Tokens a second of all sequences, by the median step.
    pub decode: f64,
    pub kv_bytes_per_token: f64,
}

/// Times every scheme at every context and batch, schemes innermost, so that a slow minute of the machine hits all alike.
///
/// Errors: a context beyond the model's, a format that its head size does not allow, too little memory.
pub fn speed(
    loaded: &Loaded,
    schemes: &[Scheme],
    options: &BenchOptions,
    mut done: impl FnMut(&BenchRow),
) -> Result<Vec<BenchRow>, StartError> {
    let mut rows = Vec::new();
    for &context in &options.contexts {
        if context + options.steps + 1 > loaded.max_position_embeddings {
            let most = loaded.max_position_embeddings.saturating_sub(options.steps + 1);
            let message = format!("has {context}; the model and {} decode steps allow at most {most}", options.steps);
            return Err(StartError::Flag { flag: "--contexts", message });
        }
        let most = options.batches.iter().copied().max().unwrap_or(1);
        for scheme in schemes {
            let mut cache = Cache::new(loaded, scheme, context + options.steps + 1, most)?;
            let prefill = cache.prefill(context, options.chunk)?;
            cache.copy_first()?;
            for &batch in &options.batches {
                let decode = cache.decode(context, batch, options.steps)?;
                let (k, v) = scheme.names();
                let kv_bytes_per_token = cache.backend.spec().bytes_per_token();
                let row = BenchRow { k, v, context, batch, prefill, decode, kv_bytes_per_token };
                done(&row);
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

/// A scheme's cache with the blocks of some sequences of the same length.
struct Cache<'a> {
    loaded: &'a Loaded,
    backend: Box<dyn AttentionBackend>,
    tables: Vec<BlockTable>,
    states: StatePool,
}

impl<'a> Cache<'a> {
    fn new(loaded: &'a Loaded, scheme: &Scheme, tokens: usize, sequences: usize) -> Result<Self, StartError> {
        let (mut backend, _) = scheme.backend(loaded)?;
        let block_size = backend.spec().block_size();
        let pool = BlockPool::new(tokens.div_ceil(block_size) * sequences);
        backend.allocate(pool.num_blocks())?;
        let full = |e: kv::OutOfBlocks| candle_core::Error::Msg(e.to_string());
        let mut tables = Vec::with_capacity(sequences);
        for _ in 0..sequences {
            let mut table = BlockTable::new(block_size);
            table.prepare_write(&pool, 0, tokens).map_err(full)?;
            tables.push(table);
        }
        let states = StatePool::new(loaded.model.state_layout().clone(), sequences);
        Ok(Cache { loaded, backend, tables, states })
    }

    /// Any tokens will do: their values change no operation.
    fn tokens(&self, positions: std::ops::Range<usize>) -> Vec<u32> {
        let vocab = self.loaded.model.vocab_size();
        positions.map(|p| (p.wrapping_mul(2_654_435_761) % vocab) as u32).collect()
    }

    /// One pass; returns after the logits of `rows` have arrived.
    fn forward(&mut self, layout: BatchLayout, tokens: &[u32], rows: &[u32]) -> Result<(), StartError> {
        let slots: Vec<u32> = (0..layout.num_seqs() as u32).collect();
        let plan = self.backend.plan(Arc::new(layout))?;
        let states = SequenceStates { pool: &self.states, slots: &slots };
        let logits = self.loaded.model.forward(tokens, rows, &ForwardContext::new(&*self.backend, &plan, states))?;
        logits.flatten_all()?.to_vec1::<f32>()?;
        Ok(())
    }

    /// Fills the first sequence; tokens a second.
    fn prefill(&mut self, context: usize, chunk: usize) -> Result<f64, StartError> {
        let start = Instant::now();
        for at in (0..context).step_by(chunk) {
            let end = (at + chunk).min(context);
            let mut layout = BatchLayout::default();
            layout.push(at, end - at, &self.tables[0]);
            let tokens = self.tokens(at..end);
            self.forward(layout, &tokens, &[(end - at - 1) as u32])?;
        }
        Ok(context as f64 / start.elapsed().as_secs_f64())
    }

    /// Gives the other sequences blocks and states of their own with the same bytes.
    fn copy_first(&self) -> Result<(), StartError> {
        (1..self.states.num_slots() as u32).try_for_each(|slot| self.states.copy(0, slot))?;
        let (first, others) = self.tables.split_at(1);
        let copy = |table: &BlockTable| {
            let pairs = first[0].ids().into_iter().zip(table.ids());
            pairs.map(|(from, to)| BlockCopy { from, to }).collect::<Vec<_>>()
        };
        Ok(self.backend.copy_blocks(&others.iter().flat_map(copy).collect::<Vec<_>>())?)
    }

    /// Tokens a second of `batch` sequences, by the median of `steps` steps; the first step warms up.
    fn decode(&mut self, context: usize, batch: usize, steps: usize) -> Result<f64, StartError> {
        let mut times = Vec::with_capacity(steps);
        for step in 0..=steps {
            let mut layout = BatchLayout::default();
            self.tables[..batch].iter().for_each(|table| layout.push(context + step, 1, table));
            let tokens = self.tokens(step..step + batch);
            let rows: Vec<u32> = (0..batch as u32).collect();
            let start = Instant::now();
            self.forward(layout, &tokens, &rows)?;
            times.push(start.elapsed().as_secs_f64());
        }
        let timed = &mut times[1..];
        timed.sort_by(f64::total_cmp);
        Ok(timed.get(timed.len() / 2).map_or(0.0, |median| batch as f64 / median))
    }
}
