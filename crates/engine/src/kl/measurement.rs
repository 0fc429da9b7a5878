//! Measures the KL of pairs piece by piece, so that other work can be done between two pieces.
use super::divergence::{divergence, log_softmax};
use super::figures::KlFigures;
use crate::error::StartError;
use crate::forward::{ModelRef, PrivateSequences};
use attention::AttentionBackend;
use flate2::read::GzDecoder;
use kv::KvLayout;
use models::ModelConfig;
use rayon::prelude::*;
use std::sync::{Arc, LazyLock};
use text::Tokenizer;
use turboquant::KvPair;

/// The beginning of wikitext-2's test split (`data/README.md`), of which the first tokens are read.
pub fn wikitext() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let packed: &[u8] = include_bytes!("../../../../data/wikitext2-test-sample.txt.gz");
        std::io::read_to_string(GzDecoder::new(packed)).expect("what is built in is whole")
    });
    &TEXT
}

/// Tokens over which pairs are measured; also those of a window, where the model's context holds them.
const TOKENS: usize = 2048;
/// Tokens of a piece. A request that comes meanwhile waits for one piece, and the logits of all its tokens are in
/// memory at once.
const PIECE: usize = 32;

/// Windows of a text without BOS, each with `bos` before it: `window` tokens in all. What is left over is no window.
pub fn text_windows(text: &[u32], bos: Option<u32>, window: usize) -> Vec<Vec<u32>> {
    let bos: Vec<u32> = bos.into_iter().collect();
    let body = window.saturating_sub(bos.len()).max(1);
    text.chunks_exact(body).map(|body| [&bos[..], body].concat()).collect()
}

/// What a measurement needs beside the model. It takes no memory to speak of.
pub(crate) struct KlSetup {
    /// The model's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The model's configuration.
    pub config: ModelConfig,
    /// The most exact cache, without blocks.
    pub exact: Box<dyn AttentionBackend>,
    /// The pairs to be measured, with a cache of each, without blocks.
    pub pairs: Vec<(KvPair, Box<dyn AttentionBackend>)>,
}

impl KlSetup {
    /// Tokens of the longest window.
    fn window(&self) -> usize {
        TOKENS.min(self.config.max_position_embeddings)
    }

    /// The bytes that the measurement takes at most: caches, recurrent states, and a piece with the logits that it is
    /// compared with.
    pub fn bytes(&self) -> u64 {
        let states = self.config.state_layout().bytes_per_sequence();
        let layouts = [self.exact.spec()].into_iter().chain(self.pairs.iter().map(|(_, backend)| backend.spec()));
        let cache = |layout: &KvLayout| self.window().div_ceil(layout.block_size()) * layout.bytes_per_block() + states;
        let logits = PIECE * self.config.vocab_size() * size_of::<f32>();
        layouts.map(cache).chain([logits]).sum::<usize>() as u64 + self.config.step_bytes(PIECE, PIECE)
    }

    /// Takes the memory of the caches.
    ///
    /// Errors: too little memory, a text that the tokenizer makes no two tokens of.
    pub fn begin(self, model: ModelRef<'_>) -> Result<KlMeasurement, StartError> {
        let (mut body, bos) = (self.tokenizer.encode(wikitext(), false)?, self.tokenizer.added_bos());
        body.truncate(TOKENS);
        let window = self.window().min(body.len() + usize::from(bos.is_some()));
        if window < 2 {
            return Err(failed("the tokenizer makes no two tokens of the text"));
        }
        let pairs: Vec<KvPair> = self.pairs.iter().map(|(pair, _)| *pair).collect();
        let backends = [self.exact].into_iter().chain(self.pairs.into_iter().map(|(_, backend)| backend));
        let caches = backends.map(|mut backend| {
            let sequences = PrivateSequences::new(model, &mut *backend, 1, window)?;
            Ok(MeasuredCache { backend, sequences })
        });
        Ok(KlMeasurement {
            windows: text_windows(&body, bos, window),
            caches: caches.collect::<Result<_, StartError>>()?,
            sums: vec![0.0; pairs.len()],
            pairs,
            window: 0,
            start: 0,
            next: 0,
            want: Vec::new(),
            done: 0,
        })
    }
}

/// A cache with one window in it.
struct MeasuredCache {
    backend: Box<dyn AttentionBackend>,
    sequences: PrivateSequences,
}

impl MeasuredCache {
    /// The log-probabilities of what follows each of `tokens`, the first of which is at position `start`.
    fn log_probabilities(&mut self, model: ModelRef<'_>, start: usize, tokens: &[u32]) -> Result<Vec<f32>, StartError> {
        let rows: Vec<u32> = (0..tokens.len() as u32).collect();
        let ranges = [(0, start..start + tokens.len())];
        let logits = self.sequences.forward(model, &mut *self.backend, &ranges, tokens, &rows)?;
        let mut values = model.device.read(&[&logits])?.remove(0);
        log_softmax(&mut values, model.model.vocab_size());
        Ok(values)
    }
}

/// A measurement that has begun.
pub(crate) struct KlMeasurement {
    windows: Vec<Vec<u32>>,
    pairs: Vec<KvPair>,
    /// The most exact cache, then one of each pair.
    caches: Vec<MeasuredCache>,
    /// The sum of divergences of each pair, nats.
    sums: Vec<f64>,
    /// The window that is read, the position in it, and the cache that reads the next piece.
    window: usize,
    start: usize,
    next: usize,
    /// The log-probabilities of the piece with the most exact cache.
    want: Vec<f32>,
    /// Tokens that every cache has read.
    done: usize,
}

impl KlMeasurement {
    /// Tokens that have been read, and tokens that there are.
    pub fn progress(&self) -> (usize, usize) {
        (self.done, self.windows.iter().map(Vec::len).sum())
    }

    /// Reads a piece of the text with one of the caches. Gives the figures after the last one.
    ///
    /// Errors: whatever model or backend refuse; logits that are not numbers.
    pub fn piece(&mut self, model: ModelRef<'_>) -> Result<Option<KlFigures>, StartError> {
        if let Some(window) = self.windows.get(self.window) {
            let tokens = &window[self.start..window.len().min(self.start + PIECE)];
            let got = self.caches[self.next].log_probabilities(model, self.start, tokens)?;
            match self.next.checked_sub(1) {
                None => self.want = got,
                Some(pair) => self.sums[pair] = added(self.sums[pair], &self.want, &got, model.model.vocab_size()),
            }
            self.next = (self.next + 1) % self.caches.len();
            if self.next == 0 {
                self.done += tokens.len();
                self.start += tokens.len();
            }
            if self.start == window.len() {
                (self.window, self.start) = (self.window + 1, 0);
            }
        }
        if self.window < self.windows.len() {
            return Ok(None);
        }
        let means: Vec<f64> = self.sums.iter().map(|sum| sum / self.done as f64).collect();
        if !means.iter().all(|mean| mean.is_finite()) {
            return Err(failed("the model's logits are not numbers"));
        }
        // The mean of a pair that loses nothing is 0 but for what f32 rounds, which may make it negative.
        let figures = self.pairs.iter().copied().zip(means.into_iter().map(|mean| mean.max(0.0)));
        Ok(Some(KlFigures::new(self.done, figures)))
    }

    /// Reads the rest of the text, and says in the log and to `tell` how far it has come: tokens done, and all of them.
    ///
    /// Errors: those of [`Self::piece`].
    pub fn finish(mut self, model: ModelRef<'_>, tell: impl Fn(usize, usize)) -> Result<KlFigures, StartError> {
        let mut told = None;
        loop {
            let (done, total) = self.progress();
            tell(done, total);
            let part = done / (total / 4).max(1);
            if told.replace(part) != Some(part) {
                tracing::info!("kv presets: measuring their KL on this model, {done} of {total} tokens");
            }
            if let Some(figures) = self.piece(model)? {
                tell(total, total);
                return Ok(figures);
            }
        }
    }
}

/// `sum`, with the divergence of each row of `got` from that of `want` added: `[rows][vocab]` log-probabilities.
fn added(sum: f64, want: &[f32], got: &[f32], vocab: usize) -> f64 {
    let pairs = want.par_chunks_exact(vocab).zip(got.par_chunks_exact(vocab));
    let rows: Vec<f32> = pairs.map(|(want, got)| divergence(want, got)).collect();
    rows.into_iter().fold(sum, |sum, kl| sum + f64::from(kl))
}

fn failed(problem: &str) -> StartError {
    candle_core::Error::Msg(problem.to_owned()).into()
}
