//! Centring: keys are stored without the RoPE-rotated mean of their kv head, and attention adds what a logit lacks.
use std::f64::consts::TAU;
use std::sync::Arc;

/// RoPE pairs that turn by at most this angle (radians) a token are centred always.
pub const SLOW_PAIR: f32 = 0.05;
/// Faster pairs that are centred too: those with the largest mean.
pub const DEFAULT_FAST_PAIRS: usize = 8;

/// Which two elements of a head RoPE turns together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pairing {
    /// Elements i and i + n of the first 2n ("neox", Llama and Qwen in their published layout).
    HalfSplit,
    /// Elements 2i and 2i + 1.
    Interleaved,
}

/// Why a centre cannot be built.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum CentreError {
    #[error("{frequencies} RoPE frequencies for head_dim {head_dim}; allowed: up to half of it")]
    Frequencies { frequencies: usize, head_dim: usize },
    #[error("RoPE frequency {index} is {value}; allowed: finite, 0 to pi")]
    Frequency { index: usize, value: f32 },
    #[error("a key mean has {len} elements; allowed: head_dim {head_dim}")]
    MeanLength { len: usize, head_dim: usize },
    #[error("element {index} of a key mean is {value}; allowed: finite")]
    Mean { index: usize, value: f32 },
}

/// Radix of the angle tables: a position is split into digits base 64, and the last table ends at 64³ tokens.
const RADIX: usize = 64;
const DIGITS: usize = 3;

/// The rotary embedding of a model: frequencies and pairing. Cheap to clone; shared by all layers and kv heads.
#[derive(Clone, Debug)]
pub struct Rope {
    inner: Arc<RopeInner>,
}

#[derive(Debug)]
struct RopeInner {
    head_dim: usize,
    pairing: Pairing,
    /// Radians a token of each pair: the model's f32, scaling included.
    theta: Vec<f64>,
    /// (cos, sin) of theta * digit * 64^level, `[level][digit][pair]`.
    turns: Vec<[f64; 2]>,
}

impl Rope {
    /// `frequencies`: radians a token of each pair, in f32 as the model uses them. Fewer than head_dim / 2 leave the last
    /// elements of a head unrotated.
    pub fn new(head_dim: usize, frequencies: &[f32], pairing: Pairing) -> Result<Rope, CentreError> {
        if frequencies.len() > head_dim / 2 {
            return Err(CentreError::Frequencies { frequencies: frequencies.len(), head_dim });
        }
        let allowed = 0.0..=std::f32::consts::PI;
        if let Some((index, value)) = frequencies.iter().enumerate().find(|(_, f)| !allowed.contains(*f)) {
            return Err(CentreError::Frequency { index, value: *value });
        }
        let theta: Vec<f64> = frequencies.iter().map(|f| f64::from(*f)).collect();
        let digits = (0..DIGITS).flat_map(|level| (0..RADIX).map(move |digit| digit * RADIX.pow(level as u32)));
        let turns = digits.flat_map(|tokens| theta.iter().map(move |theta| turn(*theta, tokens as f64))).collect();
        Ok(Rope { inner: Arc::new(RopeInner { head_dim, pairing, theta, turns }) })
    }

    /// Elements of pair `pair`.
    fn elements(&self, pair: usize) -> (usize, usize) {
        match self.inner.pairing {
            Pairing::HalfSplit => (pair, pair + self.inner.theta.len()),
            Pairing::Interleaved => (2 * pair, 2 * pair + 1),
        }
    }

    /// (cos, sin) of position * theta: products of the position's digits, the same numbers on every path.
    #[inline(always)]
    fn turn(&self, pair: usize, position: usize) -> [f64; 2] {
        let inner = &*self.inner;
        let n = inner.theta.len();
        let high = position / (RADIX * RADIX);
        let mut t = match high {
            0..RADIX => inner.turns[(2 * RADIX + high) * n + pair],
            _ => turn(inner.theta[pair], (high * RADIX * RADIX) as f64),
        };
        for (level, digit) in [(1, position / RADIX % RADIX), (0, position % RADIX)] {
            let [c, s] = inner.turns[(level * RADIX + digit) * n + pair];
            t = [t[0] * c - t[1] * s, t[1] * c + t[0] * s];
        }
        t
    }
}

fn turn(theta: f64, tokens: f64) -> [f64; 2] {
    let angle = (theta * tokens) % TAU;
    [angle.cos(), angle.sin()]
}

/// The mean of the keys of one kv head before RoPE, or what of it is taken out of them.
///
/// Taken out are all pairs of at most [`SLOW_PAIR`] radians a token, a number of others with the largest mean, and all
/// elements without rotation; the mean of the rest stays in the keys. What a logit of query q then lacks at position t is
/// q · R_t mean over the pairs taken out: a function of q and t, which costs no memory traffic. Elements without rotation
/// shift all logits of a query alike, so nothing is missing there.
#[derive(Clone, Debug)]
pub struct KeyCentre {
    inner: Arc<CentreInner>,
}

#[derive(Debug)]
struct CentreInner {
    rope: Rope,
    /// Pairs that are taken out: slow ones, then fast ones.
    pairs: Vec<usize>,
    slow: usize,
    /// Means of the pairs' two elements.
    means: Vec<[f32; 2]>,
    /// Elements without rotation: the first one and their means.
    unrotated: usize,
    rest: Vec<f32>,
}

/// What attention needs of a query for the logits' missing part: amplitudes `[group][pairs]` in base-2 logits.
#[derive(Clone, Debug)]
pub(crate) struct CentreQuery {
    centre: KeyCentre,
    amplitudes: Vec<[f32; 2]>,
}

impl KeyCentre {
    /// `mean`: `[head_dim]`, of keys before RoPE. `fast_pairs`: how many of the faster pairs to take out.
    pub fn new(rope: &Rope, mean: &[f32], fast_pairs: usize) -> Result<KeyCentre, CentreError> {
        let head_dim = rope.inner.head_dim;
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
        let n = rope.inner.theta.len();
        let (mut pairs, mut fast): (Vec<usize>, Vec<usize>) =
            (0..n).partition(|pair| rope.inner.theta[*pair] <= f64::from(SLOW_PAIR));
        let slow = pairs.len();
        let size = |pair: &usize| of(*pair).iter().map(|v| v * v).sum::<f32>();
        fast.sort_by(|a, b| size(b).total_cmp(&size(a)).then(a.cmp(b)));
        fast.truncate(fast_pairs);
        pairs.extend(fast);
        let means = pairs.iter().map(|pair| of(*pair)).collect();
        let inner = CentreInner { rope: rope.clone(), pairs, slow, means, unrotated: 2 * n, rest: mean[2 * n..].to_vec() };
        Ok(KeyCentre { inner: Arc::new(inner) })
    }

    /// Takes the mean out of a key at `position`, after RoPE: `k -= R_position mean`.
    pub fn subtract(&self, k: &mut [f32], position: usize) {
        let inner = &*self.inner;
        for (pair, mean) in inner.pairs.iter().zip(&inner.means) {
            let [c, s] = inner.rope.turn(*pair, position);
            let [x, y] = mean.map(f64::from);
            let (at_x, at_y) = inner.rope.elements(*pair);
            k[at_x] -= (x * c - y * s) as f32;
            k[at_y] -= (x * s + y * c) as f32;
        }
        k[inner.unrotated..].iter_mut().zip(&inner.rest).for_each(|(k, mean)| *k -= mean);
    }

    /// Amplitudes of what the logits of `q` lack: at position t, A cos(t theta) + B sin(t theta) summed over the pairs.
    pub(crate) fn query(&self, q: &[f32], group: usize, scale: f32) -> CentreQuery {
        let inner = &*self.inner;
        let d = q.len() / group;
        let mut amplitudes = Vec::with_capacity(group * inner.pairs.len());
        for q in q.chunks_exact(d) {
            for (pair, [x, y]) in inner.pairs.iter().zip(&inner.means) {
                let (at_x, at_y) = inner.rope.elements(*pair);
                let (a, b) = (q[at_x] * x + q[at_y] * y, q[at_y] * x - q[at_x] * y);
                amplitudes.push([a * scale, b * scale]);
            }
        }
        CentreQuery { centre: self.clone(), amplitudes }
    }
}
