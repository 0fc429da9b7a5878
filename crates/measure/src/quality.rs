//! Next-token distributions against the most exact cache.
use crate::trial::Trial;
use crate::{CHUNK, Scheme};
use engine::{ModelBundle, StartError, argmax, divergence, log_softmax};
use rayon::prelude::*;
use serde::Serialize;

/// Where ranges of positions end: loss gathers over length, so that a mean over a long text says little of its end.
const RANGE_ENDS: [usize; 6] = [2048, 8192, 16384, 32768, 65536, usize::MAX];

/// What a scheme costs.
#[derive(Debug, Clone, Serialize)]
pub struct QualityRow {
    /// The format of keys.
    pub k: String,
    /// The format of values.
    pub v: String,
    /// Whether keys are centred.
    pub centred: bool,
    /// Bits that an element of K and V takes, scales included, mean over layers.
    pub bits: f64,
    /// The loss above that of the most exact cache, nats a token.
    pub nats: f64,
    /// Mean Kullback-Leibler divergence from the distribution with the most exact cache, nats.
    pub kl: f64,
    /// The 99th percentile of that divergence, nats.
    pub kl_p99: f64,
    /// The mean of that divergence over each of the report's ranges of positions, nats.
    pub kl_by_position: Vec<f64>,
    /// The share of tokens with the same most likely successor.
    pub top1: f64,
}

/// Positions from `start` on, below `end`, at which tokens were judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PositionRange {
    /// The first position.
    pub start: usize,
    /// The position after the last.
    pub end: usize,
    /// Tokens that were judged at these positions, of all sequences.
    pub tokens: usize,
}

/// What every scheme costs a model on one text.
#[derive(Debug, Clone, Serialize)]
pub struct QualityReport {
    /// Tokens that were judged.
    pub tokens: usize,
    /// Sequences that they are in; each begins anew.
    pub sequences: usize,
    /// Tokens of the longest sequence.
    pub longest: usize,
    /// The format of the most exact cache, with which the schemes are compared.
    pub exact: String,
    /// The loss with that cache, nats a token.
    pub nll_exact: f64,
    /// The perplexity with that cache.
    pub perplexity_exact: f64,
    /// The ranges of positions, up to the end of the longest sequence.
    pub position_ranges: Vec<PositionRange>,
    /// One entry a scheme.
    pub rows: Vec<QualityRow>,
}

/// What is summed up over the tokens, for one scheme.
#[derive(Default)]
struct QualitySums {
    nll: f64,
    kl: Vec<f32>,
    agree: usize,
}

/// Judges all schemes in one pass over `sequences`, each of which begins anew at position 0. `progress` is called with
/// the tokens that are done and with those there are.
///
/// Errors: no sequence of at least two tokens, one that is longer than the model's context; whatever the schemes'
/// caches refuse.
pub fn quality(
    bundle: &ModelBundle,
    sequences: &[Vec<u32>],
    schemes: &[Scheme],
    mut progress: impl FnMut(usize, usize),
) -> Result<QualityReport, StartError> {
    let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
    check(longest, bundle.model_config.max_position_embeddings)?;
    let scheme = Scheme::exact(bundle.device.tensors());
    let mut exact = Trial::new(bundle, &scheme, longest, 1)?;
    let caches = schemes.iter().map(|s| Trial::new(bundle, s, longest, 1));
    let mut caches = caches.collect::<Result<Vec<_>, _>>()?;
    let mut sums: Vec<QualitySums> = caches.iter().map(|_| QualitySums::default()).collect();
    let (mut base, mut targets, mut done) = (0.0, 0, 0);
    let total = sequences.iter().map(Vec::len).sum();
    for sequence in sequences {
        for start in (0..sequence.len()).step_by(CHUNK) {
            let tokens = &sequence[start..(start + CHUNK).min(sequence.len())];
            let span = [(0, start..start + tokens.len())];
            let rows: Vec<u32> = (0..tokens.len() as u32).collect();
            // The last row of a sequence has no successor in it.
            let next: Vec<Option<u32>> = (start + 1..=start + tokens.len()).map(|i| sequence.get(i).copied()).collect();
            let vocab = bundle.model.vocab_size();
            let mut want = exact.forward(&span, tokens, &rows)?;
            log_softmax(&mut want, vocab);
            base += nll(&want, vocab, &next);
            targets += next.iter().flatten().count();
            for (cache, sums) in caches.iter_mut().zip(&mut sums) {
                let mut got = cache.forward(&span, tokens, &rows)?;
                log_softmax(&mut got, vocab);
                sums.nll += nll(&got, vocab, &next);
                let pairs = want.par_chunks_exact(vocab).zip(got.par_chunks_exact(vocab));
                let rows: Vec<_> =
                    pairs.map(|(want, got)| (divergence(want, got), argmax(want) == argmax(got))).collect();
                sums.kl.extend(rows.iter().map(|r| r.0));
                sums.agree += rows.iter().filter(|r| r.1).count();
            }
            done += tokens.len();
            progress(done, total);
        }
    }
    let positions: Vec<usize> = sequences.iter().flat_map(|sequence| 0..sequence.len()).collect();
    let pass = Pass { ranges: position_ranges(&positions), positions, nll_exact: base / targets as f64, targets };
    let rows = schemes.iter().zip(&caches).zip(sums).map(|((scheme, cache), sums)| row(scheme, cache, sums, &pass));
    Ok(QualityReport {
        tokens: total,
        sequences: sequences.len(),
        longest,
        exact: scheme.names().0,
        nll_exact: pass.nll_exact,
        perplexity_exact: pass.nll_exact.exp(),
        rows: rows.collect(),
        position_ranges: pass.ranges,
    })
}

fn check(longest: usize, limit: usize) -> Result<(), StartError> {
    if longest < 2 {
        return Err(StartError::flag("--text", "has no two tokens; there is nothing to foretell"));
    }
    if longest > limit {
        let message = format!("is {longest}; it must be at most {limit}, the model's context");
        return Err(StartError::flag("--window", message));
    }
    Ok(())
}

/// What all rows of a report share.
struct Pass {
    /// The position of each judged token.
    positions: Vec<usize>,
    ranges: Vec<PositionRange>,
    nll_exact: f64,
    /// Tokens that follow another one, whose likelihood was judged.
    targets: usize,
}

/// The ranges in which the positions lie.
fn position_ranges(positions: &[usize]) -> Vec<PositionRange> {
    let length = positions.iter().max().map_or(0, |last| last + 1);
    let mut start = 0;
    let ranges = RANGE_ENDS.iter().map(|end| {
        let range = start..length.min(*end);
        start = *end;
        let tokens = positions.iter().filter(|position| range.contains(position)).count();
        PositionRange { start: range.start, end: range.end, tokens }
    });
    ranges.filter(|range| range.tokens > 0).collect()
}

fn row(scheme: &Scheme, cache: &Trial<'_>, mut sums: QualitySums, pass: &Pass) -> QualityRow {
    let n = sums.kl.len();
    let mean = |range: &PositionRange| {
        let at = pass.positions.iter().zip(&sums.kl);
        let inside = at.filter(|(position, _)| (range.start..range.end).contains(*position));
        inside.map(|(_, kl)| f64::from(*kl)).sum::<f64>() / range.tokens as f64
    };
    let kl_by_position = pass.ranges.iter().map(mean).collect();
    let kl = sums.kl.iter().map(|k| f64::from(*k)).sum::<f64>() / n as f64;
    sums.kl.sort_unstable_by(f32::total_cmp);
    let spec = cache.backend.spec();
    let elements: usize = spec.layers().iter().map(|l| 2 * l.kv_heads * l.record.head_dim()).sum();
    let bits = match *scheme {
        Scheme::Pair { .. } => 8.0 * spec.bytes_per_token() / elements as f64,
        // What is stored here is their rounding; the fp16 scale of 32 elements is half a bit.
        Scheme::Ggml { bits, .. } => f64::from(bits) + 0.5,
    };
    let (k, v) = scheme.names();
    QualityRow {
        k,
        v,
        centred: cache.centred,
        bits,
        nats: sums.nll / pass.targets as f64 - pass.nll_exact,
        kl,
        kl_p99: f64::from(sums.kl[((n - 1) as f64 * 0.99).round() as usize]),
        kl_by_position,
        top1: sums.agree as f64 / n as f64,
    }
}

fn nll(logprobs: &[f32], vocab: usize, next: &[Option<u32>]) -> f64 {
    let rows = logprobs.chunks_exact(vocab).zip(next);
    -rows.filter_map(|(row, next)| next.map(|t| f64::from(row[t as usize]))).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_lies_in_one_range() {
        let positions: Vec<usize> = (0..9000).chain(0..100).chain(0..2049).collect();
        let ranges = position_ranges(&positions);
        let range = |start, end, tokens| PositionRange { start, end, tokens };
        assert_eq!(
            ranges,
            [range(0, 2048, 2048 + 100 + 2048), range(2048, 8192, 6144 + 1), range(8192, 9000, 9000 - 8192)]
        );
        assert_eq!(ranges.iter().map(|range| range.tokens).sum::<usize>(), positions.len());
        assert_eq!(position_ranges(&(0..7).collect::<Vec<_>>()), [range(0, 7, 7)]);
    }

    #[test]
    fn lengths_that_cannot_be_judged_are_named() {
        assert!(check(2, 16).is_ok() && check(16, 16).is_ok());
        assert!(check(1, 16).unwrap_err().to_string().contains("--text: has no two tokens"));
        assert!(check(17, 16).unwrap_err().to_string().contains("--window: is 17; it must be at most 16"));
    }
}
