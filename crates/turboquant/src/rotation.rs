//! The orthonormal rotation z = H · diag(±1) · x that K, V and queries share.
//!
//! Scores and weighted sums may be computed on rotated vectors only because every token of a head is rotated by the
//! same matrix: q·k = (Rq)·(Rk), and un-rotating a weighted sum once equals summing un-rotated vectors.
use std::sync::Arc;

/// Seed of the signs. Do not change: stored caches would decode to noise. Every device gets the signs from here, as
/// data.
const SIGN_SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// H = the Walsh-Hadamard matrix for a power of two; for 80 and 96 the Kronecker product of the Paley Hadamard matrix
/// of order 20 or 12 with the Walsh-Hadamard matrix of order 4 or 8; over sqrt(d).
#[derive(Clone, Debug)]
pub struct Rotation {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    signs: Vec<f32>,
    scaled_signs: Vec<f32>,
    /// Order of the Walsh-Hadamard factor, which acts on neighbouring elements.
    walsh: usize,
    /// The Paley factor, row-major, or nothing.
    paley: Vec<f32>,
    order: usize,
}

impl Rotation {
    /// `head_dim` is one that a rotated format supports: see `Format::check`.
    ///
    /// # Panics
    /// If it is not.
    pub fn new(head_dim: usize) -> Self {
        let (order, prime) = match head_dim {
            80 => (20, 19),
            96 => (12, 11),
            _ => (1, 0),
        };
        let walsh = head_dim / order;
        assert!(walsh.is_power_of_two(), "no rotation for head_dim {head_dim}");
        let paley = if order > 1 { paley(prime) } else { Vec::new() };
        let (signs, norm) = (signs(head_dim), 1.0 / (head_dim as f32).sqrt());
        let scaled_signs = signs.iter().map(|sign| sign * norm).collect();
        Rotation { inner: Arc::new(Inner { signs, scaled_signs, walsh, paley, order }) }
    }

    /// The diagonal of ±1 that is applied first.
    pub fn signs(&self) -> &[f32] {
        &self.inner.signs
    }

    /// The rows of the Paley factor, bit `col` set where column `col` is -1. Empty where the rotation is a
    /// Walsh-Hadamard matrix alone.
    pub fn paley_rows(&self) -> Vec<u32> {
        let order = self.inner.order;
        let word = |row: &[f32]| row.iter().enumerate().fold(0, |w, (col, h)| w | u32::from(*h < 0.0) << col);
        if order == 1 { Vec::new() } else { self.inner.paley.chunks_exact(order).map(word).collect() }
    }

    /// Elements of a Walsh-Hadamard block: it acts on neighbours, the Paley factor across blocks.
    pub(crate) fn walsh(&self) -> usize {
        self.inner.walsh
    }

    /// Multiplies by the signs over sqrt(head_dim).
    #[inline(always)]
    pub(crate) fn apply_signs(&self, x: &mut [f32]) {
        for (x, sign) in x.iter_mut().zip(&self.inner.scaled_signs) {
            *x *= sign;
        }
    }

    /// Multiplies by the Paley factor or its transpose.
    #[inline(always)]
    pub(crate) fn apply_paley(&self, x: &mut [f32], transposed: bool) {
        let Inner { order, walsh, .. } = *self.inner;
        if order == 1 {
            return;
        }
        let mut y = [0f32; 96];
        for row in 0..order {
            let out = &mut y[row * walsh..][..walsh];
            for col in 0..order {
                let h = self.inner.paley[if transposed { col * order + row } else { row * order + col }];
                for (out, x) in out.iter_mut().zip(&x[col * walsh..]) {
                    *out += h * x;
                }
            }
        }
        x.copy_from_slice(&y[..order * walsh]);
    }
}

/// In-place Walsh-Hadamard transform without normalisation; every twin adds in this order, so bits agree.
pub fn walsh_hadamard(x: &mut [f32]) {
    let mut h = 1;
    while h < x.len() {
        for pair in x.chunks_exact_mut(2 * h) {
            let (a, b) = pair.split_at_mut(h);
            a.iter_mut().zip(b).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
        }
        h *= 2;
    }
}

/// Xorshift64 from `SIGN_SEED`; the top bit of each word is the sign.
fn signs(head_dim: usize) -> Vec<f32> {
    let mut state = SIGN_SEED;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if state >> 63 == 0 { 1.0 } else { -1.0 }
    };
    (0..head_dim).map(|_| next()).collect()
}

/// Paley's first construction, order q + 1 for a prime q = 3 (mod 4): I + S, S skew from the quadratic residues mod q.
fn paley(q: usize) -> Vec<f32> {
    let n = q + 1;
    let residue = |x: usize| (1..q).any(|y| y * y % q == x);
    let mut h = vec![0f32; n * n];
    for row in 0..n {
        for col in 0..n {
            h[row * n + col] = match (row, col) {
                _ if row == col => 1.0,
                (0, _) => 1.0,
                (_, 0) => -1.0,
                _ if residue((row + q - col) % q) => 1.0,
                _ => -1.0,
            };
        }
    }
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIMS: [usize; 8] = [16, 32, 64, 80, 96, 128, 256, 512];

    /// Element (row, col) of H by its definition, not normalised.
    fn entry(d: usize, row: usize, col: usize) -> f64 {
        let q = match d {
            80 => 19,
            96 => 11,
            _ => 0,
        };
        let walsh = if q == 0 { d } else { d / (q + 1) };
        let sign = if ((row % walsh) & (col % walsh)).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
        let outer = if q == 0 { 1.0 } else { f64::from(paley(q)[row / walsh * (q + 1) + col / walsh]) };
        sign * outer
    }

    /// f32 against f64: the error of a sum of d terms of equal size is below log2(d) + 20 roundings of the norm.
    #[test]
    fn equals_the_matrix_and_inverts() {
        for d in DIMS {
            let rotation = Rotation::new(d);
            let x: Vec<f32> = (0..d).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect();
            let mut z = x.clone();
            rotation.apply_signs(&mut z);
            z.chunks_exact_mut(rotation.walsh()).for_each(walsh_hadamard);
            rotation.apply_paley(&mut z, false);
            let norm = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            for (row, z) in z.iter().enumerate() {
                let exact: f64 = (0..d).map(|col| entry(d, row, col) * f64::from(rotation.signs()[col] * x[col])).sum();
                let error = (f64::from(*z) - exact / (d as f64).sqrt()).abs();
                assert!(error < 30.0 * f64::from(f32::EPSILON) * norm, "d {d} row {row}: {error:.1e}");
            }
            rotation.apply_paley(&mut z, true);
            z.chunks_exact_mut(rotation.walsh()).for_each(walsh_hadamard);
            rotation.apply_signs(&mut z);
            for (a, b) in z.iter().zip(&x) {
                assert!((a - b).abs() < 1e-5, "d {d}: {a} {b}");
            }
        }
    }

    #[test]
    fn matrices_are_orthogonal() {
        for d in DIMS {
            for (a, b) in [(0, 1), (d / 2, d - 1), (3, 5), (d - 1, d - 1)] {
                let dot: f64 = (0..d).map(|i| entry(d, a, i) * entry(d, b, i)).sum();
                assert_eq!(dot, if a == b { d as f64 } else { 0.0 }, "d {d}, rows {a} and {b}");
            }
        }
    }

    /// The signs are part of the stored format: these words are the first 64 signs, bit i set where sign i is -1.
    #[test]
    fn signs_do_not_change() {
        let word = signs(64).iter().enumerate().fold(0u64, |w, (i, s)| w | u64::from(*s < 0.0) << i);
        assert_eq!(word, SIGN_WORD);
        assert_eq!(signs(512)[..64], signs(64));
    }
    const SIGN_WORD: u64 = 0x4D52_A0A7_84AE_C3E1;
}
