//! How fast a model prefills and decodes, by scheme, context and number of sequences.
use crate::Scheme;
use crate::trial::Trial;
use engine::{ModelBundle, StartError};
use scheduler::MAX_NUM_SEQS;
use serde::Serialize;
use std::time::Instant;

/// What is timed.
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

/// The speed of one scheme at one context, with one number of sequences.
#[derive(Debug, Clone, Serialize)]
pub struct BenchRow {
    /// The format of keys.
    pub k: String,
    /// The format of values.
    pub v: String,
    /// Tokens in the cache of a sequence when decoding begins.
    pub context: usize,
    /// Sequences that decode together.
    pub batch: usize,
    /// Tokens a second over the whole prompt of one sequence.
    pub prefill: f64,
    /// Tokens a second of all sequences, by the median step.
    pub decode: f64,
    /// Bytes of the cache that a token takes, over all layers.
    pub kv_bytes_per_token: f64,
}

/// Times every scheme at every context and number of sequences. Schemes take turns, so that a slow minute of the
/// machine hits all alike. `done` is called with each row as it is measured.
///
/// Errors: sizes of 0, a context beyond the model's, a format that its head size does not allow, too little memory.
pub fn speed(
    bundle: &ModelBundle,
    schemes: &[Scheme],
    options: &BenchOptions,
    mut done: impl FnMut(&BenchRow),
) -> Result<Vec<BenchRow>, StartError> {
    check(options, bundle.model_config.max_position_embeddings)?;
    let mut rows = Vec::new();
    for &context in &options.contexts {
        let most = options.batches.iter().copied().max().unwrap_or(1);
        for scheme in schemes {
            let mut cache = Trial::new(bundle, scheme, context + options.steps + 1, most)?;
            let prefill = prefill(bundle, &mut cache, context, options.chunk)?;
            (1..most).try_for_each(|sequence| cache.copy(0, sequence))?;
            for &batch in &options.batches {
                let decode = decode(bundle, &mut cache, context, batch, options.steps)?;
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

/// Errors: sizes of 0, more sequences than a cache can count, a context beyond `limit` tokens, the model's.
fn check(options: &BenchOptions, limit: usize) -> Result<(), StartError> {
    if let Some(batch) = options.batches.iter().find(|n| !(1..=MAX_NUM_SEQS).contains(*n)) {
        return Err(StartError::flag("--batches", format!("has {batch}; it must lie in [1, {MAX_NUM_SEQS}]")));
    }
    for (name, value) in [("--steps", options.steps), ("--max-num-batched-tokens", options.chunk)] {
        if value == 0 {
            return Err(StartError::flag(name, "is 0; it must be at least 1"));
        }
    }
    let most = limit.saturating_sub(options.steps.saturating_add(1));
    match options.contexts.iter().find(|n| !(1..=most).contains(*n)) {
        Some(context) => {
            let steps = options.steps;
            let message = format!("has {context}; with {steps} decode steps the model allows [1, {most}]");
            Err(StartError::flag("--contexts", message))
        }
        None => Ok(()),
    }
}

/// Some tokens for these positions. Which they are changes no operation.
fn tokens(bundle: &ModelBundle, positions: std::ops::Range<usize>) -> Vec<u32> {
    let vocab = bundle.model.vocab_size();
    positions.map(|p| (p.wrapping_mul(2_654_435_761) % vocab) as u32).collect()
}

/// Fills the first sequence, and returns the tokens a second.
fn prefill(bundle: &ModelBundle, cache: &mut Trial<'_>, context: usize, chunk: usize) -> Result<f64, StartError> {
    let start = Instant::now();
    for at in (0..context).step_by(chunk) {
        let end = at.saturating_add(chunk).min(context);
        cache.forward(&[(0, at..end)], &tokens(bundle, at..end), &[(end - at - 1) as u32])?;
    }
    Ok(context as f64 / start.elapsed().as_secs_f64())
}

/// Tokens a second of `batch` sequences, by the median of `steps` steps; the first step warms up.
fn decode(
    bundle: &ModelBundle,
    cache: &mut Trial<'_>,
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
        cache.forward(&sequences, &tokens(bundle, step..step + batch), &rows)?;
        times.push(start.elapsed().as_secs_f64());
    }
    let timed = &mut times[1..];
    timed.sort_by(f64::total_cmp);
    Ok(timed.get(timed.len() / 2).map_or(0.0, |median| batch as f64 / median))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_cannot_be_timed_are_named() {
        let options = || BenchOptions { contexts: vec![64, 100], batches: vec![1, 4], steps: 2, chunk: 512 };
        assert!(check(&options(), 103).is_ok());
        let all = usize::MAX;
        for (options, told) in [
            (BenchOptions { contexts: vec![64, 0], ..options() }, "--contexts: has 0"),
            (
                BenchOptions { contexts: vec![64, 101], ..options() },
                "--contexts: has 101; with 2 decode steps the model allows [1, 100]",
            ),
            (BenchOptions { contexts: vec![all], ..options() }, "--contexts"),
            (BenchOptions { batches: vec![0], ..options() }, "--batches: has 0"),
            (BenchOptions { batches: vec![1, all], ..options() }, "it must lie in [1, 65536]"),
            (BenchOptions { steps: 0, ..options() }, "--steps: is 0"),
            (BenchOptions { steps: all, ..options() }, "allows [1, 0]"),
            (BenchOptions { chunk: 0, ..options() }, "--max-num-batched-tokens: is 0"),
        ] {
            let message = check(&options, 103).unwrap_err().to_string();
            assert!(message.contains(told), "{message}");
        }
    }
}
