//! Tables by which attention adds the mean correction to logits, shared by all kv heads with one RoPE and head size.
//!
//! A RoPE pair with amplitudes (A, B) adds `C(t) = A cos(t f) + B sin(t f)` to the logit of the key at position t; with
//! `D = B cos(t f) - A sin(t f)`, moving on by u tokens gives `C(t + u) = C cos(u f) + D sin(u f)`. At a partition's
//! start C and D are exact. Inside the partition they are exact for high-frequency pairs, and quadratics in u for the
//! others.
use crate::layout::PARTITION;
use crate::rope::{Rope, cos_sin};
use std::sync::Arc;

/// RoPE pairs that turn by at most this angle (radians) a token are low-frequency pairs: their mean is always
/// subtracted, and corrected by a quadratic over each interval of 32 tokens, which is off by at most 3 % of the pair's
/// amplitude.
pub const LOW_FREQUENCY: f32 = 0.05;
/// RoPE pairs that turn by at most this angle a token are corrected by one quadratic over a whole partition; its error
/// is below that of the fastest low-frequency pair over an interval.
const VERY_LOW_FREQUENCY: f64 = 0.003;
/// Tokens of an interval, and intervals of a partition.
pub(crate) const INTERVAL: usize = 32;
pub(crate) const INTERVALS: usize = PARTITION / INTERVAL;
/// Positions for which the angles at partitions' starts are in a table: as far as [`Rope`]'s own tables go.
const TABLED: usize = 64 * 64 * 64;

/// Coefficients that a quadratic has: of 1, u and u².
pub(crate) const QUADRATIC: usize = 3;

/// Why a [`crate::KeyTransform`] or its [`CorrectionTables`] cannot be built.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum KeyTransformError {
    /// More RoPE pairs than a head has.
    #[error("{frequencies} RoPE frequencies for head_dim {head_dim}; allowed: up to half of it")]
    Frequencies {
        /// RoPE pairs.
        frequencies: usize,
        /// Elements of a head.
        head_dim: usize,
    },
    /// Constants of another head size.
    #[error("a key's {what} has {len} elements; allowed: head_dim {head_dim}")]
    Length {
        /// The name of the constants.
        what: &'static str,
        /// Elements that were given.
        len: usize,
        /// Elements of a head.
        head_dim: usize,
    },
    /// A constant that is not a number, or infinite.
    #[error("element {index} of a key's {what} is {value}; allowed: finite")]
    Element {
        /// The name of the constants.
        what: &'static str,
        /// The element, counted from 0.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A scale by which nothing can be divided.
    #[error("element {index} of a key's scale is {value}; allowed: above 0")]
    Scale {
        /// The element, counted from 0.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A scale that RoPE would mix.
    #[error("RoPE pair {pair} of a key has the scales {values:?}; allowed: one for both elements")]
    PairScale {
        /// The pair, counted from 0.
        pair: usize,
        /// The scales of its elements.
        values: [f32; 2],
    },
}

/// Tables that give the mean correction at each position of a partition. They depend on the RoPE and the head size
/// alone. They are cheap to clone.
#[derive(Clone, Debug)]
pub struct CorrectionTables {
    inner: Arc<Tables>,
}

#[derive(Debug)]
struct Tables {
    head_dim: usize,
    rope: Rope,
    /// (cos, sin) at the start of each partition of the tables' range: of the approximated pairs, 16 each, and of all
    /// pairs.
    starts: Vec<Start>,
    all_starts: Vec<[f32; 2]>,
    /// Very-low-frequency pairs, then low-frequency ones.
    approximated: Vec<usize>,
    very_low: usize,
    high: Vec<usize>,
    very_low_quadratics: Vec<VeryLowFrequency>,
    low_quadratics: Vec<LowFrequency>,
}

/// (cos, sin) of 16 pairs.
pub(crate) type Start = [[f32; 16]; 2];

/// Coefficients of a low-frequency pair's quadratics around the intervals' middles, one interval a lane, that 1 of C or
/// of D at the partition's start gives: `[coefficient][of C, of D]`.
#[derive(Clone, Debug)]
pub(crate) struct LowFrequency(pub [[[f32; INTERVALS]; 2]; 3]);

/// Coefficients of the quadratics of 16 very-low-frequency pairs, one pair a lane, around the partition's middle:
/// `[coefficient][of C, of D]`.
#[derive(Clone, Debug)]
pub(crate) struct VeryLowFrequency(pub [[[f32; 16]; 2]; 3]);

/// A high-frequency pair: (cos, sin) of its frequency times the distance of the intervals' middles from the partition's
/// start, and times .5, 1.5 .. 15.5, the distances of the second half of an interval from its middle.
#[derive(Clone, Debug)]
pub(crate) struct HighFrequency {
    pub middles: [[f32; INTERVALS]; 2],
    pub halves: [[f32; INTERVAL / 2]; 2],
}

impl CorrectionTables {
    /// Tables for coded keys, whose own error is larger than that of the quadratics.
    ///
    /// # Errors
    /// More RoPE pairs than half of `head_dim`.
    pub fn new(rope: &Rope, head_dim: usize) -> Result<CorrectionTables, KeyTransformError> {
        Self::with_limit(rope, head_dim, LOW_FREQUENCY)
    }

    /// Tables for keys stored as floats, whose own error is smaller than that of a quadratic: every RoPE pair is
    /// corrected as a high-frequency one, exactly but for f32's rounding. That costs two multiplications for each RoPE
    /// pair of each key.
    ///
    /// # Errors
    /// More RoPE pairs than half of `head_dim`.
    pub fn exact(rope: &Rope, head_dim: usize) -> Result<CorrectionTables, KeyTransformError> {
        // No frequency is below zero, so no pair is of low frequency.
        Self::with_limit(rope, head_dim, -1.0)
    }

    /// Pairs of at most `limit` radians a token are approximated.
    fn with_limit(rope: &Rope, head_dim: usize, limit: f32) -> Result<CorrectionTables, KeyTransformError> {
        let pairs = rope.pairs();
        if pairs > head_dim / 2 {
            return Err(KeyTransformError::Frequencies { frequencies: pairs, head_dim });
        }
        let frequency = |pair: usize| f64::from(rope.frequencies()[pair]);
        let (approximated, high): (Vec<usize>, _) = (0..pairs).partition(|pair| rope.frequencies()[*pair] <= limit);
        let (very_low, low): (Vec<usize>, Vec<usize>) =
            approximated.into_iter().partition(|pair| frequency(*pair) <= VERY_LOW_FREQUENCY);
        let approximated = [&very_low[..], &low].concat();
        let partitions = || (0..TABLED).step_by(PARTITION);
        let starts = partitions().flat_map(|at| approximated.chunks(16).map(move |pairs| start(rope, pairs, at)));
        let all_starts =
            partitions().flat_map(|at| (0..pairs).map(move |pair| rope.cos_sin(pair, at).map(|x| x as f32)));
        let inner = Tables {
            head_dim,
            starts: starts.collect(),
            all_starts: all_starts.collect(),
            very_low: very_low.len(),
            very_low_quadratics: very_low.chunks(16).map(|pairs| very_low_frequency(pairs, frequency)).collect(),
            low_quadratics: low.iter().map(|pair| low_frequency(frequency(*pair))).collect(),
            approximated,
            high,
            rope: rope.clone(),
        };
        Ok(CorrectionTables { inner: Arc::new(inner) })
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.inner.head_dim
    }

    /// The embedding whose means are corrected.
    pub fn rope(&self) -> &Rope {
        &self.inner.rope
    }

    /// (cos, sin) of the `chunk`-th 16 approximated pairs at `position`, from a table where a partition starts there.
    #[inline(always)]
    pub(crate) fn start(&self, chunk: usize, position: usize) -> Start {
        let inner = &*self.inner;
        let chunks = inner.approximated.len().div_ceil(16);
        let tabled = inner.starts.get(position / PARTITION * chunks + chunk);
        match tabled.filter(|_| position.is_multiple_of(PARTITION)) {
            Some(start) => *start,
            None => start(&inner.rope, inner.approximated.chunks(16).nth(chunk).unwrap_or(&[]), position),
        }
    }

    /// (cos, sin) of one pair at `position`, from a table where a partition starts there.
    #[inline(always)]
    pub(crate) fn start_of(&self, pair: usize, position: usize) -> [f32; 2] {
        let tabled = self.inner.all_starts.get(position / PARTITION * self.inner.rope.pairs() + pair);
        match tabled.filter(|_| position.is_multiple_of(PARTITION)) {
            Some(start) => *start,
            None => self.inner.rope.cos_sin(pair, position).map(|x| x as f32),
        }
    }

    /// Pairs that are corrected by quadratics, those of very low frequency first.
    pub fn approximated(&self) -> &[usize] {
        &self.inner.approximated
    }

    /// How many of the approximated pairs, the first ones, turn so slowly that one quadratic serves a whole partition.
    pub fn very_low(&self) -> usize {
        self.inner.very_low
    }

    pub(crate) fn high(&self) -> &[usize] {
        &self.inner.high
    }

    /// Coefficients `[1, u, u²][of C, of D]` of the quadratic around the middle of a partition that 1 of C or of D at
    /// its start gives, for the `index`-th approximated pair, which must be one of very low frequency.
    pub fn very_low_quadratic(&self, index: usize) -> [[f32; 2]; 3] {
        let VeryLowFrequency(lanes) = &self.inner.very_low_quadratics[index / 16];
        lanes.map(|of| of.map(|lanes| lanes[index % 16]))
    }

    /// Coefficients `[1, u, u²][of C, of D]` of the quadratic around the middle of interval `interval`, for the
    /// `index`-th approximated pair, which must not be one of very low frequency.
    pub fn low_quadratic(&self, index: usize, interval: usize) -> [[f32; 2]; 3] {
        let LowFrequency(intervals) = &self.inner.low_quadratics[index - self.inner.very_low];
        intervals.map(|of| of.map(|intervals| intervals[interval]))
    }

    /// Quadratics of the low-frequency pairs, in order.
    pub(crate) fn low_quadratics(&self) -> &[LowFrequency] {
        &self.inner.low_quadratics
    }

    /// Quadratics of the very-low-frequency pairs, in order, 16 each.
    pub(crate) fn very_low_quadratics(&self) -> &[VeryLowFrequency] {
        &self.inner.very_low_quadratics
    }

    pub(crate) fn high_frequency(&self, pair: usize) -> HighFrequency {
        let frequency = f64::from(self.inner.rope.frequencies()[pair]);
        let angles = |tokens: [f64; 16]| {
            let both = tokens.map(|tokens| cos_sin(frequency, tokens));
            [0, 1].map(|k| both.map(|t| t[k] as f32))
        };
        HighFrequency { middles: angles(middles()), halves: angles(std::array::from_fn(|u| u as f64 + 0.5)) }
    }
}

fn start(rope: &Rope, pairs: &[usize], position: usize) -> Start {
    let mut start = [[0.0; 16]; 2];
    for (lane, pair) in pairs.iter().enumerate() {
        let [cos, sin] = rope.cos_sin(*pair, position);
        (start[0][lane], start[1][lane]) = (cos as f32, sin as f32);
    }
    start
}

/// Distances of the intervals' middles from the partition's start.
fn middles() -> [f64; INTERVALS] {
    std::array::from_fn(|i| (i * INTERVAL) as f64 + (INTERVAL - 1) as f64 / 2.0)
}

/// With C, D at the partition's start, moving on to the middle makes C' = C cos + D sin and D' = D cos - C sin; the
/// quadratic is fit[0] C' + fit[1] D' u + fit[2] C' u².
fn coefficients(fit: [f32; 3], [cos, sin]: [f64; 2]) -> [[f32; 2]; 3] {
    let of = [[cos, sin], [-sin, cos], [cos, sin]];
    [0, 1, 2].map(|k| of[k].map(|x| (f64::from(fit[k]) * x) as f32))
}

fn low_frequency(frequency: f64) -> LowFrequency {
    let fit = quadratic(frequency, INTERVAL);
    let intervals = middles().map(|tokens| coefficients(fit, cos_sin(frequency, tokens)));
    LowFrequency([0, 1, 2].map(|k| [0, 1].map(|of| intervals.map(|interval| interval[k][of]))))
}

fn very_low_frequency(pairs: &[usize], frequency: impl Fn(usize) -> f64) -> VeryLowFrequency {
    let mut lanes = [[[0.0; 2]; 3]; 16];
    for (lane, pair) in lanes.iter_mut().zip(pairs) {
        let frequency = frequency(*pair);
        *lane = coefficients(quadratic(frequency, PARTITION), cos_sin(frequency, (PARTITION - 1) as f64 / 2.0));
    }
    VeryLowFrequency([0, 1, 2].map(|k| [0, 1].map(|of| lanes.map(|lane| lane[k][of]))))
}

/// Least-squares fit over `tokens` tokens around a middle: cos(f u) by a0 + a2 u², sin(f u) by a1 u. Its largest error
/// is a quarter of the Taylor polynomial's.
fn quadratic(frequency: f64, tokens: usize) -> [f32; 3] {
    let us = || (0..tokens / 2).map(|i| i as f64 + 0.5);
    let sum = |f: &dyn Fn(f64) -> f64| us().map(f).sum::<f64>();
    let (m0, m2, m4) = (sum(&|_| 1.0), sum(&|u| u * u), sum(&|u| u.powi(4)));
    let (c0, c2) = (sum(&|u| (frequency * u).cos()), sum(&|u| u * u * (frequency * u).cos()));
    let determinant = m0 * m4 - m2 * m2;
    let (a0, a2) = ((c0 * m4 - c2 * m2) / determinant, (c2 * m0 - c0 * m2) / determinant);
    [a0, sum(&|u| u * (frequency * u).sin()) / m2, a2].map(|a| a as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both quadratics stay within 3 % of the amplitude at the highest frequency that each is used for.
    #[test]
    fn quadratics_stay_within_three_percent() {
        for (frequency, tokens) in [(f64::from(LOW_FREQUENCY), INTERVAL), (VERY_LOW_FREQUENCY, PARTITION)] {
            let [a0, a1, a2] = quadratic(frequency, tokens).map(f64::from);
            let error = |u: f64| {
                let (even, odd) = (a0 + a2 * u * u - (frequency * u).cos(), a1 * u - (frequency * u).sin());
                even.hypot(odd)
            };
            let largest = (0..tokens / 2).map(|i| error(i as f64 + 0.5)).fold(0.0, f64::max);
            assert!(largest < 0.03, "{frequency}: {largest}");
        }
    }
}
