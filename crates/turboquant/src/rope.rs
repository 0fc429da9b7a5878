//! The rotary position embedding (Su et al., "RoFormer", arXiv:2104.09864).
use std::f64::consts::TAU;
use std::sync::Arc;

/// A position is split into digits to this base; one table for each digit gives the angle's cosine and sine.
const RADIX: usize = 64;
/// Digits with a table. Positions of 64³ and more compute the cosine and sine of their leading part.
const DIGITS: usize = 3;

/// Why a [`Rope`] cannot be built.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum RopeError {
    /// A frequency that no rotary embedding has.
    #[error("RoPE frequency {index} is {value}; allowed: 0 to pi radians a token")]
    Frequency {
        /// The RoPE pair, counted from 0.
        index: usize,
        /// Radians a token.
        value: f32,
    },
    /// A factor that is not a positive number.
    #[error("the RoPE attention factor is {0}; allowed: positive numbers")]
    AttentionFactor(f32),
}

/// The rotary embedding of a layer: at position t the pair (x, y) with frequency f becomes
/// `a (x cos tf - y sin tf, x sin tf + y cos tf)`, where a is the attention factor.
///
/// Pair i of n consists of elements i and i + n of a head, the half-split convention of all Hugging Face Llama and Qwen
/// models. Elements from 2n on stay as they are. Cheap to clone.
#[derive(Clone)]
pub struct Rope {
    inner: Arc<Angles>,
}

struct Angles {
    frequencies: Vec<f32>,
    attention_factor: f32,
    /// (cos, sin) of frequency × digit × 64^level, `[level][digit][pair]`.
    digits: Vec<[f64; 2]>,
}

impl Rope {
    /// `frequencies`: radians a token of each pair, with the scaling of long contexts applied. `attention_factor`:
    /// YaRN's factor of cosines and sines, 1 for other models.
    ///
    /// # Errors
    /// A frequency outside of 0 to pi, or a factor that is not positive.
    pub fn new(frequencies: Vec<f32>, attention_factor: f32) -> Result<Rope, RopeError> {
        let allowed = 0.0..=std::f32::consts::PI;
        if let Some((index, value)) = frequencies.iter().enumerate().find(|(_, f)| !allowed.contains(*f)) {
            return Err(RopeError::Frequency { index, value: *value });
        }
        if !(attention_factor > 0.0 && attention_factor.is_finite()) {
            return Err(RopeError::AttentionFactor(attention_factor));
        }
        let tokens = (0..DIGITS).flat_map(|level| (0..RADIX).map(move |digit| digit * RADIX.pow(level as u32)));
        let digits = tokens.flat_map(|t| frequencies.iter().map(move |f| cos_sin(f64::from(*f), t as f64))).collect();
        Ok(Rope { inner: Arc::new(Angles { frequencies, attention_factor, digits }) })
    }

    /// The number of pairs; of each head the first 2 × `pairs` elements turn.
    pub fn pairs(&self) -> usize {
        self.inner.frequencies.len()
    }

    /// Radians a token of every pair.
    pub fn frequencies(&self) -> &[f32] {
        &self.inner.frequencies
    }

    /// What cosines and sines are multiplied by.
    pub fn attention_factor(&self) -> f32 {
        self.inner.attention_factor
    }

    /// The two elements of a head that `pair` consists of.
    pub fn elements(&self, pair: usize) -> (usize, usize) {
        (pair, pair + self.pairs())
    }

    /// (cos, sin) of a pair's angle at `position`, without the attention factor: correct to about 1e-15, and the same
    /// numbers wherever they are asked for, since they are always the product of the digits' entries.
    #[inline(always)]
    pub fn cos_sin(&self, pair: usize, position: usize) -> [f64; 2] {
        let (n, digits) = (self.pairs(), &self.inner.digits);
        let high = position / (RADIX * RADIX);
        let mut t = match high {
            0..RADIX => digits[(2 * RADIX + high) * n + pair],
            _ => cos_sin(f64::from(self.inner.frequencies[pair]), (high * RADIX * RADIX) as f64),
        };
        for (level, digit) in [(1, position / RADIX % RADIX), (0, position % RADIX)] {
            let [c, s] = digits[(level * RADIX + digit) * n + pair];
            t = [t[0] * c - t[1] * s, t[1] * c + t[0] * s];
        }
        t
    }

    /// (cos, sin) of every pair at each position, times the attention factor: `[positions][pairs]`, what [`apply_rope`]
    /// takes.
    ///
    /// Angles are exact and only these results are rounded to f32. The usual product `position × frequency` in f32
    /// would be off by up to `position × frequency × 2^-24` radians, which matters here: the mean correction of
    /// attention knows no position's rounding.
    pub fn angles(&self, positions: &[u32]) -> Vec<[f32; 2]> {
        let factor = f64::from(self.inner.attention_factor);
        let angle = |(position, pair): (u32, usize)| self.cos_sin(pair, position as usize).map(|x| (factor * x) as f32);
        positions.iter().flat_map(|p| (0..self.pairs()).map(move |pair| (*p, pair))).map(angle).collect()
    }

    /// The angles of one row among those that [`Rope::angles`] gave for several positions.
    pub fn row<'a>(&self, angles: &'a [[f32; 2]], row: usize) -> &'a [[f32; 2]] {
        &angles[row * self.pairs()..][..self.pairs()]
    }
}

impl PartialEq for Rope {
    fn eq(&self, other: &Rope) -> bool {
        // The digits' entries follow from the frequencies.
        self.attention_factor() == other.attention_factor() && self.frequencies() == other.frequencies()
    }
}

impl std::fmt::Debug for Rope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rope")
            .field("frequencies", &self.inner.frequencies)
            .field("attention_factor", &self.inner.attention_factor)
            .finish_non_exhaustive()
    }
}

/// Applies RoPE to one head in place. `angles`: one row of [`Rope::angles`], which tells the number of pairs.
pub fn apply_rope(head: &mut [f32], angles: &[[f32; 2]]) {
    let (first, rest) = head.split_at_mut(angles.len());
    for ((x, y), [cos, sin]) in first.iter_mut().zip(rest).zip(angles) {
        (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
    }
}

/// (cos, sin) of `frequency × tokens`.
pub(crate) fn cos_sin(frequency: f64, tokens: f64) -> [f64; 2] {
    let angle = (frequency * tokens) % TAU;
    [angle.cos(), angle.sin()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_are_exact_at_every_position() {
        let frequencies = [1.0, 0.31, 0.05, 1e-3, 2.1e-7];
        let rope = Rope::new(frequencies.to_vec(), 1.0).unwrap();
        for position in [0, 1, 63, 64, 4095, 4096, 131_071, 262_143, 262_144, 1_000_003] {
            for (pair, f) in frequencies.iter().enumerate() {
                let angle = f64::from(*f) * position as f64;
                let [c, s] = rope.cos_sin(pair, position);
                assert!((c - angle.cos()).abs() < 1e-9 && (s - angle.sin()).abs() < 1e-9, "{f} {position}");
            }
        }
    }

    #[test]
    fn a_pair_turns_by_its_angle_and_the_rest_stays() {
        let rope = Rope::new(vec![0.5, 0.25], 2.0).unwrap();
        let mut head = [1.0, 0.0, 0.0, 3.0, 7.0];
        apply_rope(&mut head, &rope.angles(&[4]));
        let want = [2.0 * 2f64.cos(), -6.0 * 1f64.sin(), 2.0 * 2f64.sin(), 6.0 * 1f64.cos(), 7.0];
        for (got, want) in head.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{head:?} for {want:?}");
        }
    }

    #[test]
    fn errors_name_the_value() {
        let message = Rope::new(vec![0.5, -1.0], 1.0).unwrap_err().to_string();
        assert!(message.contains("frequency 1") && message.contains("-1"), "{message}");
        assert!(Rope::new(vec![0.5], f32::NAN).unwrap_err().to_string().contains("NaN"));
    }
}
