//! How fast a model prefills and decodes, by K/V pair, context and batch: the same forward passes that serving makes.
use crate::error::StartError;
use crate::eval::{Scheme, TrialCache};
use crate::start::Loaded;
use serde::Serialize;
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
            let mut cache = TrialCache::new(loaded, scheme, context + options.steps + 1, most)?;
            let prefill = prefill(loaded, &mut cache, context, options.chunk)?;
            (1..most).try_for_each(|sequence| cache.copy(0, sequence))?;
            for &batch in &options.batches {
                let decode = decode(loaded, &mut cache, context, batch, options.steps)?;
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

/// Any tokens will do: their values change no operation.
fn tokens(loaded: &Loaded, positions: std::ops::Range<usize>) -> Vec<u32> {
    let vocab = loaded.model.vocab_size();
    positions.map(|p| (p.wrapping_mul(2_654_435_761) % vocab) as u32).collect()
}

/// Fills the first sequence; tokens a second.
fn prefill(loaded: &Loaded, cache: &mut TrialCache<'_>, context: usize, chunk: usize) -> Result<f64, StartError> {
    let start = Instant::now();
    for at in (0..context).step_by(chunk) {
        let end = (at + chunk).min(context);
        cache.forward(&[(0, at..end)], &tokens(loaded, at..end), &[(end - at - 1) as u32])?;
    }
    Ok(context as f64 / start.elapsed().as_secs_f64())
}

/// Tokens a second of `batch` sequences, by the median of `steps` steps; the first step warms up.
fn decode(
    loaded: &Loaded,
    cache: &mut TrialCache<'_>,
    context: usize,
    batch: usize,
    steps: usize,
) -> Result<f64, StartError> {
    let mut times = Vec::with_capacity(steps);
    for step in 0..=steps {
        let at = context + step;
        let sequences: Vec<_> = (0..batch).map(|s| (s, at..at + 1)).collect();
        let rows: Vec<u32> = (0..batch as u32).collect();
        let start = Instant::now();
        cache.forward(&sequences, &tokens(loaded, step..step + batch), &rows)?;
        times.push(start.elapsed().as_secs_f64());
    }
    let timed = &mut times[1..];
    timed.sort_by(f64::total_cmp);
    Ok(timed.get(timed.len() / 2).map_or(0.0, |median| batch as f64 / median))
}
