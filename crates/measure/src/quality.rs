//! Next-token distributions against the f32 cache.
use crate::trial::Trial;
use crate::{CHUNK, Scheme};
use engine::{ModelBundle, StartError, argmax};
use rayon::prelude::*;
use serde::Serialize;

/// What is judged, and how.
#[derive(Debug, Clone)]
pub struct QualityOptions {
    /// Tokens of a window, the BOS token that begins each included.
    pub window: usize,
    /// The schemes that are compared with the most exact cache.
    pub schemes: Vec<Scheme>,
}

/// What a scheme costs.
#[derive(Debug, Clone, Serialize)]
pub struct QualityRow {
    /// The format of keys.
    pub k: String,
    /// The format of values.
    pub v: String,
    /// Whether means are subtracted before K and V are stored.
    pub centred: bool,
    /// Bits that an element of K and V takes, scales included, mean over layers.
    pub bits: f64,
    /// The loss above that of the most exact cache, nats a token.
    pub nats: f64,
    /// Mean Kullback-Leibler divergence from the distribution with the most exact cache, nats.
    pub kl: f64,
    /// The 99th percentile of that divergence, nats.
    pub kl_p99: f64,
    /// The share of tokens with the same most likely successor.
    pub top1: f64,
}

/// What every scheme costs a model.
#[derive(Debug, Clone, Serialize)]
pub struct QualityReport {
    /// The model's name.
    pub model: String,
    /// Layers that own a cache.
    pub layers: usize,
    /// Tokens that were judged.
    pub tokens: usize,
    /// Tokens of a window.
    pub window: usize,
    /// The format of the most exact cache, with which the schemes are compared.
    pub exact: String,
    /// The loss with that cache, nats a token.
    pub nll_exact: f64,
    /// The perplexity with that cache.
    pub perplexity_exact: f64,
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

/// Judges all schemes in one pass over `text`, token ids without BOS, cut to whole windows. `progress` is called with
/// the tokens that are done and with those there are.
///
/// Errors: a window that the model does not allow, a text shorter than a window; whatever the schemes' caches refuse.
pub fn quality(
    bundle: &ModelBundle,
    name: &str,
    text: &[u32],
    options: &QualityOptions,
    mut progress: impl FnMut(usize, usize),
) -> Result<QualityReport, StartError> {
    let windows = windows(bundle, text, options)?;
    let mut exact = Trial::new(bundle, &Scheme::exact(bundle.device.tensors()), options.window, 1)?;
    let caches = options.schemes.iter().map(|s| Trial::new(bundle, s, options.window, 1));
    let mut caches = caches.collect::<Result<Vec<_>, _>>()?;
    let mut sums: Vec<QualitySums> = caches.iter().map(|_| QualitySums::default()).collect();
    let (mut base, mut targets) = (0.0, 0);
    let total = windows.len() * options.window;
    for (w, window) in windows.iter().enumerate() {
        for start in (0..window.len()).step_by(CHUNK) {
            let tokens = &window[start..(start + CHUNK).min(window.len())];
            let span = [(0, start..start + tokens.len())];
            let rows: Vec<u32> = (0..tokens.len() as u32).collect();
            // The last row of a window has no successor in it.
            let next: Vec<Option<u32>> = (start + 1..=start + tokens.len()).map(|i| window.get(i).copied()).collect();
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
            progress(w * options.window + start + tokens.len(), total);
        }
    }
    let nll_exact = base / targets as f64;
    let rows = options
        .schemes
        .iter()
        .zip(&caches)
        .zip(sums)
        .map(|((scheme, cache), sums)| row(scheme, cache, sums, nll_exact, targets));
    Ok(QualityReport {
        model: name.to_owned(),
        layers: bundle.model.geometry().layers.len(),
        tokens: total,
        window: options.window,
        exact: Scheme::exact(bundle.device.tensors()).names().0,
        nll_exact,
        perplexity_exact: nll_exact.exp(),
        rows: rows.collect(),
    })
}

fn windows(bundle: &ModelBundle, text: &[u32], options: &QualityOptions) -> Result<Vec<Vec<u32>>, StartError> {
    let limit = bundle.model_config.max_position_embeddings;
    if options.window < 2 || options.window > limit {
        return Err(StartError::flag(
            "--window",
            format!("is {}; it must lie in [2, {limit}], the model's context", options.window),
        ));
    }
    let tokenizer = &bundle.tokenizer;
    let bos: Vec<u32> = tokenizer.bos_id().filter(|_| tokenizer.adds_bos()).into_iter().collect();
    let body = options.window - bos.len();
    let windows: Vec<Vec<u32>> = text.chunks_exact(body).map(|c| [&bos[..], c].concat()).collect();
    if windows.is_empty() {
        let message = format!("holds {} tokens, --window asks for {}", text.len(), options.window);
        return Err(StartError::flag("--text", message));
    }
    Ok(windows)
}

fn row(scheme: &Scheme, cache: &Trial<'_>, mut sums: QualitySums, nll_exact: f64, targets: usize) -> QualityRow {
    let n = sums.kl.len();
    sums.kl.sort_unstable_by(f32::total_cmp);
    let mean = sums.kl.iter().map(|k| f64::from(*k)).sum::<f64>() / n as f64;
    let spec = cache.backend.spec();
    let elements: usize = spec.layers().iter().map(|l| 2 * l.kv_heads * l.record.head_dim()).sum();
    let bits = match *scheme {
        Scheme::Pair { .. } => 8.0 * spec.bytes_per_token() / elements as f64,
        // What is stored here is their rounding; the fp16 scale of 32 elements is half a bit.
        Scheme::Ggml(bits) => f64::from(bits) + 0.5,
    };
    let (k, v) = scheme.names();
    QualityRow {
        k,
        v,
        centred: cache.centred,
        bits,
        nats: sums.nll / targets as f64 - nll_exact,
        kl: mean,
        kl_p99: f64::from(sums.kl[((n - 1) as f64 * 0.99).round() as usize]),
        top1: sums.agree as f64 / n as f64,
    }
}

fn log_softmax(logits: &mut [f32], vocab: usize) {
    logits.par_chunks_exact_mut(vocab).for_each(|row| {
        let max = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = row.iter().map(|x| f64::from((x - max).exp())).sum();
        let norm = max + sum.ln() as f32;
        row.iter_mut().for_each(|x| *x -= norm);
    });
}

fn nll(logprobs: &[f32], vocab: usize, next: &[Option<u32>]) -> f64 {
    let rows = logprobs.chunks_exact(vocab).zip(next);
    -rows.filter_map(|(row, next)| next.map(|t| f64::from(row[t as usize]))).sum::<f64>()
}

fn divergence(want: &[f32], got: &[f32]) -> f32 {
    want.iter().zip(got).map(|(w, g)| f64::from(w.exp() * (w - g))).sum::<f64>() as f32
}
