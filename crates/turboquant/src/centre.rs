//! Centring: keys are stored without the RoPE-rotated mean of their kv head, and attention adds what a logit lacks.
use crate::rope::{FollowFast, Rope};
use crate::simd::PARABOLA;
use std::sync::Arc;

/// Faster pairs that are centred too: those with the largest mean.
pub const DEFAULT_FAST_PAIRS: usize = 8;

/// Why a centre cannot be built.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum CentreError {
    #[error("{frequencies} RoPE frequencies for head_dim {head_dim}; allowed: up to half of it")]
    Frequencies { frequencies: usize, head_dim: usize },
    #[error("RoPE frequency {index} is {value}; allowed: 0 to pi")]
    Frequency { index: usize, value: f32 },
    #[error("a key mean has {len} elements; allowed: head_dim {head_dim}")]
    MeanLength { len: usize, head_dim: usize },
    #[error("element {index} of a key mean is {value}; allowed: finite")]
    Mean { index: usize, value: f32 },
}

/// The mean of the keys of one kv head before RoPE, or what of it is taken out of them.
///
/// Taken out are all pairs of at most [`SLOW_PAIR`](crate::SLOW_PAIR) radians a token, a number of others with the largest
/// mean, and all elements without rotation; the mean of the rest stays in the keys. What a logit of query q then lacks at
/// position t is q · R_t mean over the pairs taken out: a function of q and t, which costs no memory traffic. Elements without
/// rotation shift all logits of a query alike, so nothing is missing there.
///
/// Attention follows fast pairs, and all of a [`Rope::exact`], exactly (to f32), slow ones by parabolas, which are off by at most 3 % of a pair's amplitude
/// for the fastest slow pair, falling with the cube of the frequency.
#[derive(Clone, Debug)]
pub struct KeyCentre {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rope: Rope,
    /// Pairs that are taken out: the rope's followed ones, then fast ones.
    pairs: Vec<usize>,
    fast: Vec<FollowFast>,
    /// Means of the pairs' two elements.
    means: Vec<[f32; 2]>,
    /// Elements without rotation: the first one and their means.
    unrotated: usize,
    rest: Vec<f32>,
}

/// What attention needs of a query for the logits' missing part.
#[derive(Clone, Debug)]
pub(crate) struct CentreQuery {
    pub centre: KeyCentre,
    /// `[group][A, B][pairs]`, followed and fast pairs each filled up to a multiple of 16: at position t a logit (base 2)
    /// lacks A cos(t theta) + B sin(t theta) of each pair.
    pub amplitudes: Vec<f32>,
}

impl KeyCentre {
    /// `mean`: `[head_dim]`, of keys before RoPE. `fast_pairs`: how many of the faster pairs to take out.
    pub fn new(rope: &Rope, mean: &[f32], fast_pairs: usize) -> Result<KeyCentre, CentreError> {
        let head_dim = rope.head_dim();
        if mean.len() != head_dim {
            return Err(CentreError::MeanLength { len: mean.len(), head_dim });
        }
        if let Some((index, value)) = mean.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(CentreError::Mean { index, value: *value });
        }
        let of = |pair: usize| {
            let (x, y) = rope.elements(pair);
            [mean[x], mean[y]]
        };
        let size = |pair: usize| of(pair).iter().map(|v| v * v).sum::<f32>();
        let mut fast = rope.fast().to_vec();
        fast.sort_by(|a, b| size(*b).total_cmp(&size(*a)).then(a.cmp(b)));
        fast.truncate(fast_pairs);
        let pairs: Vec<usize> = rope.followed().iter().chain(&fast).copied().collect();
        let means = pairs.iter().map(|pair| of(*pair)).collect();
        let unrotated = 2 * rope.pairs();
        let rest = mean[unrotated..].to_vec();
        let fast = fast.iter().map(|pair| rope.follow_fast(*pair)).collect();
        let inner = Inner { rope: rope.clone(), pairs, fast, means, unrotated, rest };
        Ok(KeyCentre { inner: Arc::new(inner) })
    }

    /// Takes the mean out of a key at `position`, after RoPE: `k -= R_position mean`.
    pub fn subtract(&self, k: &mut [f32], position: usize) {
        let inner = &*self.inner;
        assert_eq!(k.len(), inner.rope.head_dim(), "k must have head_dim elements");
        for (pair, mean) in inner.pairs.iter().zip(&inner.means) {
            let [c, s] = inner.rope.turn(*pair, position);
            let [x, y] = mean.map(f64::from);
            let (at_x, at_y) = inner.rope.elements(*pair);
            k[at_x] -= (x * c - y * s) as f32;
            k[at_y] -= (x * s + y * c) as f32;
        }
        k[inner.unrotated..].iter_mut().zip(&inner.rest).for_each(|(k, mean)| *k -= mean);
    }

    /// The part of the mean that is taken out, `[head_dim]`: 0 elsewhere.
    pub fn taken(&self) -> Vec<f32> {
        let inner = &*self.inner;
        let mut taken = vec![0.0; inner.rope.head_dim()];
        taken[inner.unrotated..].copy_from_slice(&inner.rest);
        for (pair, mean) in inner.pairs.iter().zip(&inner.means) {
            let (x, y) = inner.rope.elements(*pair);
            (taken[x], taken[y]) = (mean[0], mean[1]);
        }
        taken
    }

    pub fn rope(&self) -> &Rope {
        &self.inner.rope
    }

    /// The fast pairs that are taken out.
    pub fn fast_pairs(&self) -> &[usize] {
        &self.inner.pairs[self.inner.rope.followed().len()..]
    }

    pub(crate) fn fast(&self) -> &[FollowFast] {
        &self.inner.fast
    }

    /// Lengths of the lists of followed and of fast pairs, to multiples of 16.
    fn padded(&self) -> (usize, usize) {
        let followed = self.inner.rope.followed().len();
        (followed.next_multiple_of(16), self.inner.fast.len().next_multiple_of(16))
    }

    pub(crate) fn same(&self, other: &KeyCentre) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Amplitudes for the query heads `q`; `scale` multiplies logits.
    pub(crate) fn query(&self, q: &[f32], group: usize, scale: f32) -> CentreQuery {
        let inner = &*self.inner;
        let (padded, fast) = self.padded();
        let (n, gap) = (padded + fast, padded - inner.rope.followed().len());
        let mut amplitudes = vec![0.0; 2 * group * n];
        for (q, out) in q.chunks_exact(q.len() / group).zip(amplitudes.chunks_exact_mut((2 * n).max(1))) {
            let (a, b) = out.split_at_mut(n);
            for (i, (pair, [x, y])) in inner.pairs.iter().zip(&inner.means).enumerate() {
                let (at_x, at_y) = inner.rope.elements(*pair);
                let i = if i < inner.rope.followed().len() { i } else { i + gap };
                a[i] = (q[at_x] * x + q[at_y] * y) * scale;
                b[i] = (q[at_y] * x - q[at_x] * y) * scale;
            }
        }
        CentreQuery { centre: self.clone(), amplitudes }
    }
}

impl CentreQuery {
    /// A and B of query head `g`, 16 pairs each.
    pub(crate) fn head(&self, g: usize) -> (&[[f32; 16]], &[[f32; 16]]) {
        let (followed, fast) = self.centre.padded();
        let n = followed + fast;
        let (a, b) = self.amplitudes[2 * g * n..2 * (g + 1) * n].split_at(n);
        (a.as_chunks().0, b.as_chunks().0)
    }

    /// Rows of 16 floats that a head's state takes.
    pub(crate) fn state_len(&self) -> usize {
        PARABOLA + 2 * self.centre.fast().len()
    }
}
