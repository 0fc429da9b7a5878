//! The mean of a kv head's keys: subtracted before RoPE, and given back to logits by attention.
use crate::correction_tables::{CorrectionTables, HighFrequency, KeyMeanError, QUADRATIC};
use std::sync::Arc;

/// High-frequency pairs whose mean is subtracted from coded keys: those with the largest mean.
pub const DEFAULT_HIGH_PAIRS: usize = 8;

/// The part of one kv head's mean key, before RoPE, that is subtracted from its keys.
///
/// Subtracted are all approximated pairs ([`LOW_FREQUENCY`](crate::LOW_FREQUENCY)), a number of high-frequency pairs
/// with the largest mean, and all elements that RoPE leaves alone; the mean of the other pairs stays in the keys. The
/// logit of query q with the key at position t then lacks `q · RoPE_t(mean)` over the subtracted pairs: a function of q
/// and t alone, which attention adds without reading memory. Elements that RoPE leaves alone shift all logits of a
/// query alike, which softmax does not notice, so nothing is added for them.
///
/// Attention corrects high-frequency pairs exactly but for f32's rounding, the others by quadratics: off by at most 3 %
/// of a pair's amplitude for the fastest of them, falling with the cube of the frequency. With
/// [`CorrectionTables::exact`] all pairs are high-frequency ones.
#[derive(Clone, Debug)]
pub struct KeyMean {
    inner: Arc<Subtracted>,
}

#[derive(Debug)]
struct Subtracted {
    tables: CorrectionTables,
    /// Pairs that are subtracted: all approximated ones, then high-frequency ones.
    pairs: Vec<usize>,
    high: Vec<HighFrequency>,
    /// The means of each pair's two elements, times RoPE's attention factor, since they are compared with keys after
    /// RoPE.
    means: Vec<[f32; 2]>,
    /// `[head_dim]`: the mean where it is subtracted, 0 elsewhere.
    subtracted: Vec<f32>,
}

/// What attention needs of a query for the mean correction.
#[derive(Clone, Debug)]
pub(crate) struct CorrectionQuery {
    pub mean: KeyMean,
    /// `[GQA group][A, B][pairs]`, approximated and high-frequency pairs each filled up to a multiple of 16: at
    /// position t a logit (base 2) lacks A cos(t f) + B sin(t f) of each pair, f being its frequency.
    pub amplitudes: Vec<f32>,
}

impl KeyMean {
    /// `mean`: `[head_dim]`, the mean of keys before RoPE. `high_pairs`: how many of the high-frequency pairs to
    /// subtract.
    ///
    /// # Errors
    /// A mean of another head size than the tables', or with elements that are not finite.
    pub fn new(tables: &CorrectionTables, mean: &[f32], high_pairs: usize) -> Result<KeyMean, KeyMeanError> {
        let (head_dim, rope) = (tables.head_dim(), tables.rope());
        if mean.len() != head_dim {
            return Err(KeyMeanError::MeanLength { len: mean.len(), head_dim });
        }
        if let Some((index, value)) = mean.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(KeyMeanError::Mean { index, value: *value });
        }
        let of = |pair: usize| {
            let (x, y) = rope.elements(pair);
            [mean[x], mean[y]]
        };
        let size = |pair: usize| of(pair).iter().map(|v| v * v).sum::<f32>();
        let mut high = tables.high().to_vec();
        high.sort_by(|a, b| size(*b).total_cmp(&size(*a)).then(a.cmp(b)));
        high.truncate(high_pairs);
        let pairs: Vec<usize> = tables.approximated().iter().chain(&high).copied().collect();
        let mut subtracted = vec![0.0; head_dim];
        subtracted[2 * rope.pairs()..].copy_from_slice(&mean[2 * rope.pairs()..]);
        for pair in &pairs {
            let (x, y) = rope.elements(*pair);
            (subtracted[x], subtracted[y]) = (mean[x], mean[y]);
        }
        let means = pairs.iter().map(|pair| of(*pair).map(|x| x * rope.attention_factor())).collect();
        let high = high.iter().map(|pair| tables.high_frequency(*pair)).collect();
        let inner = Subtracted { tables: tables.clone(), pairs, high, means, subtracted };
        Ok(KeyMean { inner: Arc::new(inner) })
    }

    /// What is subtracted from keys before RoPE: `[head_dim]`, the mean or 0.
    pub fn subtracted(&self) -> &[f32] {
        &self.inner.subtracted
    }

    /// The tables of all kv heads that share RoPE and head size with this one.
    pub fn tables(&self) -> &CorrectionTables {
        &self.inner.tables
    }

    /// The high-frequency pairs that are subtracted.
    pub fn high_pairs(&self) -> &[usize] {
        &self.inner.pairs[self.inner.tables.approximated().len()..]
    }

    pub(crate) fn high(&self) -> &[HighFrequency] {
        &self.inner.high
    }

    /// Lengths of the lists of approximated and of high-frequency pairs, to multiples of 16.
    fn padded(&self) -> (usize, usize) {
        let approximated = self.inner.tables.approximated().len();
        (approximated.next_multiple_of(16), self.inner.high.len().next_multiple_of(16))
    }

    pub(crate) fn same(&self, other: &KeyMean) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Amplitudes for the query heads `q`, after RoPE; `scale` multiplies logits.
    pub(crate) fn query(&self, q: &[f32], group: usize, scale: f32) -> CorrectionQuery {
        let inner = &*self.inner;
        let ((padded, high), approximated) = (self.padded(), inner.tables.approximated().len());
        let (n, gap) = (padded + high, padded - approximated);
        let mut amplitudes = vec![0.0; 2 * group * n];
        for (q, out) in q.chunks_exact(q.len() / group).zip(amplitudes.chunks_exact_mut((2 * n).max(1))) {
            let (a, b) = out.split_at_mut(n);
            for (i, (pair, [x, y])) in inner.pairs.iter().zip(&inner.means).enumerate() {
                let (at_x, at_y) = inner.tables.rope().elements(*pair);
                let i = if i < approximated { i } else { i + gap };
                a[i] = (q[at_x] * x + q[at_y] * y) * scale;
                b[i] = (q[at_y] * x - q[at_x] * y) * scale;
            }
        }
        CorrectionQuery { mean: self.clone(), amplitudes }
    }
}

impl CorrectionQuery {
    /// A and B of query head `g`, 16 pairs each.
    pub(crate) fn head(&self, g: usize) -> (&[[f32; 16]], &[[f32; 16]]) {
        let (approximated, high) = self.mean.padded();
        let n = approximated + high;
        let (a, b) = self.amplitudes[2 * g * n..2 * (g + 1) * n].split_at(n);
        (a.as_chunks().0, b.as_chunks().0)
    }

    /// Rows of 16 floats that a head's state takes.
    pub(crate) fn state_len(&self) -> usize {
        QUADRATIC + 2 * self.mean.high().len()
    }
}
