//! How fast a model prefills and decodes, by scheme, context and number of sequences.
use crate::trial::Trial;
use crate::{Rate, Scheme};
use engine::{ModelBundle, StartError, machine_memory};
use scheduler::MAX_NUM_SEQS;
use serde::{Deserialize, Serialize};
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
    /// How often all is measured.
    pub rounds: usize,
}

/// The speed of one scheme at one context, with one number of sequences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    pub prefill: Rate,
    /// Seconds from the prompt to the logits of its first token, by the median round.
    pub first_token: f64,
    /// Tokens a second of all sequences, in each round by the median step.
    pub decode: Rate,
    /// Bytes that this process has in memory while these sequences decode, weights that are mapped included; 0 where
    /// the system does not say.
    pub resident_bytes: u64,
    /// Bytes of the cache that a token takes, over all layers.
    pub kv_bytes_per_token: f64,
}

impl BenchRow {
    /// The row of an earlier run that measured the same.
    pub fn counterpart<'a>(&self, earlier: &'a [BenchRow]) -> Option<&'a BenchRow> {
        let measured = |row: &BenchRow| (row.k.clone(), row.v.clone(), row.context, row.batch);
        earlier.iter().find(|row| measured(row) == measured(self))
    }
}

/// Times every scheme at every context and number of sequences, in some rounds. Schemes take turns in each round, so
/// that a slow minute of the machine hits all alike. `done` is called with each row once it is measured.
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
        let mut timings = vec![SchemeTiming::default(); schemes.len()];
        for _ in 0..options.rounds {
            for (scheme, timing) in schemes.iter().zip(&mut timings) {
                timing.add_round(bundle, scheme, context, options)?;
            }
        }
        for (scheme, timing) in schemes.iter().zip(timings) {
            let (k, v) = scheme.names();
            let prefill = Rate::of(timing.prefill);
            let first_token = context as f64 / prefill.median;
            for ((&batch, decode), resident_bytes) in options.batches.iter().zip(timing.decode).zip(timing.resident) {
                let (k, v, decode) = (k.clone(), v.clone(), Rate::of(decode));
                let kv_bytes_per_token = timing.kv_bytes_per_token;
                let row =
                    BenchRow { k, v, context, batch, prefill, first_token, decode, resident_bytes, kv_bytes_per_token };
                done(&row);
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

/// What the rounds so far have measured of a scheme at one context.
#[derive(Debug, Clone, Default)]
struct SchemeTiming {
    /// Tokens a second of each round.
    prefill: Vec<f64>,
    /// Tokens a second of each round, by number of sequences.
    decode: Vec<Vec<f64>>,
    /// The largest number of bytes in memory, by number of sequences.
    resident: Vec<u64>,
    kv_bytes_per_token: f64,
}

impl SchemeTiming {
    /// Fills a new cache once, and has each number of sequences decode.
    fn add_round(
        &mut self,
        bundle: &ModelBundle,
        scheme: &Scheme,
        context: usize,
        options: &BenchOptions,
    ) -> Result<(), StartError> {
        let most = options.batches.iter().copied().max().unwrap_or(1);
        let mut cache = Trial::new(bundle, scheme, context + options.steps + 1, most)?;
        self.kv_bytes_per_token = cache.backend.spec().bytes_per_token();
        self.prefill.push(prefill(bundle, &mut cache, context, options.chunk)?);
        (1..most).try_for_each(|sequence| cache.copy(0, sequence))?;
        self.decode.resize(options.batches.len(), Vec::new());
        self.resident.resize(options.batches.len(), 0);
        for ((&batch, rates), resident) in options.batches.iter().zip(&mut self.decode).zip(&mut self.resident) {
            rates.push(decode(bundle, &mut cache, context, batch, options.steps)?);
            *resident = machine_memory().map_or(0, |memory| memory.resident).max(*resident);
        }
        Ok(())
    }
}

/// Errors: sizes of 0, more sequences than a cache can count, a context beyond `limit` tokens, the model's.
fn check(options: &BenchOptions, limit: usize) -> Result<(), StartError> {
    if let Some(batch) = options.batches.iter().find(|n| !(1..=MAX_NUM_SEQS).contains(*n)) {
        return Err(StartError::flag("--batches", format!("has {batch}; it must lie in [1, {MAX_NUM_SEQS}]")));
    }
    let sizes = [("--steps", options.steps), ("--max-num-batched-tokens", options.chunk), ("--rounds", options.rounds)];
    for (name, value) in sizes {
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
        let options = || BenchOptions { contexts: vec![64, 100], batches: vec![1, 4], steps: 2, chunk: 512, rounds: 1 };
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
            (BenchOptions { rounds: 0, ..options() }, "--rounds: is 0"),
        ] {
            let message = check(&options, 103).unwrap_err().to_string();
            assert!(message.contains(told), "{message}");
        }
    }
}
