//! What a kv head's keys go through between the model and the codec, and what attention undoes of it.
use crate::correction_tables::{CorrectionTables, HighFrequency, KeyTransformError, QUADRATIC};
use crate::rope::apply_rope;
use std::sync::Arc;

/// High-frequency pairs whose mean is subtracted from coded keys: those with the largest mean.
pub const DEFAULT_HIGH_PAIRS: usize = 8;

/// The constants of one kv head's keys, `[head_dim]` each, of keys before RoPE.
#[derive(Clone, Copy, Debug)]
pub struct HeadConstants<'a> {
    /// The mean of the keys.
    pub mean: &'a [f32],
    /// The mean of the keys at position 0, which are unlike all others.
    pub first_mean: &'a [f32],
    /// What keys are multiplied by after RoPE, the same for both elements of a RoPE pair; all 1 where the codec does
    /// not need it.
    pub scale: &'a [f32],
}

/// What one kv head's keys go through before they are stored: their mean is subtracted, RoPE is applied, and every RoPE
/// pair is multiplied by its pair scale.
///
/// The mean is subtracted in all approximated pairs ([`LOW_FREQUENCY`](crate::LOW_FREQUENCY)), in a number of
/// high-frequency pairs, those with the largest mean, and in all elements that RoPE leaves alone; the mean of the other
/// pairs stays in the keys. The logit of query q with the key at position t then lacks `q · RoPE_t(mean)` over the
/// subtracted pairs: a function of q and t alone, which attention adds without reading memory. Elements that RoPE
/// leaves alone shift all logits of a query alike, which softmax does not notice, so nothing is added for them.
///
/// From the key at position 0, where RoPE turns nothing, all of the first mean is subtracted. What its logit lacks
/// beyond what attention adds to every key is one number a query, `q · RoPE_0(first mean - subtracted mean)`.
///
/// Pair scales change nothing but the codec's error: queries are multiplied by their inverse before the product with
/// what is stored, not before the correction.
///
/// Attention corrects high-frequency pairs exactly but for f32's rounding, the others by quadratics: off by at most 3 %
/// of a pair's amplitude for the fastest of them, falling with the cube of the frequency. With
/// [`CorrectionTables::exact`] all pairs are high-frequency ones.
#[derive(Clone, Debug)]
pub struct KeyTransform {
    inner: Arc<Constants>,
}

#[derive(Debug)]
struct Constants {
    tables: CorrectionTables,
    /// Pairs that are subtracted: all approximated ones, then high-frequency ones.
    pairs: Vec<usize>,
    high: Vec<HighFrequency>,
    /// The means of each pair's two elements, times RoPE's attention factor, since they are compared with keys after
    /// RoPE.
    means: Vec<[f32; 2]>,
    /// `[head_dim]` each: the mean where it is subtracted, 0 elsewhere; the first mean.
    subtracted: Vec<f32>,
    first_mean: Vec<f32>,
    /// `[head_dim]`: the first mean less the subtracted one, after RoPE at position 0.
    first_difference: Vec<f32>,
    /// `[head_dim]` each.
    scale: Vec<f32>,
    inverse_scale: Vec<f32>,
}

/// What attention needs of a query for the mean correction.
#[derive(Clone, Debug)]
pub(crate) struct CorrectionQuery {
    pub transform: KeyTransform,
    /// `[GQA group][A, B][pairs]`, approximated and high-frequency pairs each filled up to a multiple of 16: at
    /// position t a logit (base 2) lacks A cos(t f) + B sin(t f) of each pair, f being its frequency.
    pub amplitudes: Vec<f32>,
    /// `[GQA group]`: what the logit (base 2) of position 0 lacks beyond that.
    pub first: Vec<f32>,
}

impl HeadConstants<'_> {
    fn check(&self, tables: &CorrectionTables) -> Result<(), KeyTransformError> {
        let head_dim = tables.head_dim();
        for (what, values) in [("mean", self.mean), ("first mean", self.first_mean), ("scale", self.scale)] {
            if values.len() != head_dim {
                return Err(KeyTransformError::Length { what, len: values.len(), head_dim });
            }
            if let Some((index, value)) = values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
                return Err(KeyTransformError::Element { what, index, value: *value });
            }
        }
        if let Some((index, value)) = self.scale.iter().enumerate().find(|(_, s)| **s <= 0.0) {
            return Err(KeyTransformError::Scale { index, value: *value });
        }
        for pair in 0..tables.rope().pairs() {
            let (x, y) = tables.rope().elements(pair);
            let values = [self.scale[x], self.scale[y]];
            if values[0].to_bits() != values[1].to_bits() {
                return Err(KeyTransformError::PairScale { pair, values });
            }
        }
        Ok(())
    }
}

impl KeyTransform {
    /// `high_pairs`: how many of the high-frequency pairs to subtract.
    ///
    /// # Errors
    /// Constants of another head size than the tables', or with elements that are not finite; scales that are not
    /// positive, or not the same for both elements of a pair.
    pub fn new(
        tables: &CorrectionTables,
        constants: HeadConstants<'_>,
        high_pairs: usize,
    ) -> Result<KeyTransform, KeyTransformError> {
        constants.check(tables)?;
        let HeadConstants { mean, first_mean, scale } = constants;
        let (head_dim, rope) = (tables.head_dim(), tables.rope());
        let of_pair = |values: &[f32], pair: usize| {
            let (x, y) = rope.elements(pair);
            [values[x], values[y]]
        };
        let size = |pair: usize| of_pair(mean, pair).iter().map(|v| v * v).sum::<f32>();
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
        let factor = |i: usize| if i < 2 * rope.pairs() { rope.attention_factor() } else { 1.0 };
        let differences = first_mean.iter().zip(&subtracted).enumerate();
        let inner = Constants {
            tables: tables.clone(),
            means: pairs.iter().map(|pair| of_pair(mean, *pair).map(|x| x * rope.attention_factor())).collect(),
            pairs,
            high: high.iter().map(|pair| tables.high_frequency(*pair)).collect(),
            first_difference: differences.map(|(i, (first, mean))| (first - mean) * factor(i)).collect(),
            subtracted,
            first_mean: first_mean.to_vec(),
            scale: scale.to_vec(),
            inverse_scale: scale.iter().map(|s| 1.0 / s).collect(),
        };
        Ok(KeyTransform { inner: Arc::new(inner) })
    }

    /// Transforms a key in place: subtracts what is subtracted at `position`, applies RoPE, and multiplies by the pair
    /// scales. The codec encodes the result. `angles`: the RoPE angles of `position`, one row of
    /// [`Rope::angles`](crate::Rope::angles).
    pub fn apply(&self, key: &mut [f32], position: usize, angles: &[[f32; 2]]) {
        key.iter_mut().zip(self.subtracted_at(position)).for_each(|(x, mean)| *x -= mean);
        apply_rope(key, angles);
        key.iter_mut().zip(&self.inner.scale).for_each(|(x, scale)| *x *= scale);
    }

    /// What is subtracted from the key at `position` before RoPE: `[head_dim]`.
    pub fn subtracted_at(&self, position: usize) -> &[f32] {
        if position == 0 { self.first_mean() } else { self.subtracted() }
    }

    /// What is subtracted from keys at all positions but 0: `[head_dim]`, the mean or 0.
    pub fn subtracted(&self) -> &[f32] {
        &self.inner.subtracted
    }

    /// What is subtracted from the key at position 0: `[head_dim]`.
    pub fn first_mean(&self) -> &[f32] {
        &self.inner.first_mean
    }

    /// The first mean less the subtracted one, after RoPE at position 0: `[head_dim]`. Its product with a query is what
    /// the logit of position 0 lacks beyond what is added to every key.
    pub fn first_difference(&self) -> &[f32] {
        &self.inner.first_difference
    }

    /// What keys are multiplied by after RoPE: `[head_dim]`.
    pub fn scale(&self) -> &[f32] {
        &self.inner.scale
    }

    /// What queries are multiplied by after RoPE, before their product with what is stored: `[head_dim]`.
    pub fn inverse_scale(&self) -> &[f32] {
        &self.inner.inverse_scale
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

    pub(crate) fn same(&self, other: &KeyTransform) -> bool {
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
        // The difference can be far larger than what is stored: in f64, since f32 would round the logit away.
        let first = |q: &[f32]| {
            let products = q.iter().zip(&inner.first_difference).map(|(q, x)| f64::from(*q) * f64::from(*x));
            (products.sum::<f64>() * f64::from(scale)) as f32
        };
        let first = q.chunks_exact(q.len() / group).map(first).collect();
        CorrectionQuery { transform: self.clone(), amplitudes, first }
    }
}

impl CorrectionQuery {
    /// A and B of query head `g`, 16 pairs each.
    pub(crate) fn head(&self, g: usize) -> (&[[f32; 16]], &[[f32; 16]]) {
        let (approximated, high) = self.transform.padded();
        let n = approximated + high;
        let (a, b) = self.amplitudes[2 * g * n..2 * (g + 1) * n].split_at(n);
        (a.as_chunks().0, b.as_chunks().0)
    }

    /// Rows of 16 floats that a head's state takes.
    pub(crate) fn state_len(&self) -> usize {
        QUADRATIC + 2 * self.transform.high().len()
    }
}
