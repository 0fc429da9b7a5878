//! Codebooks for N(0,1): magnitudes in ascending order, the sign apart. Format constants: a change makes stored caches
//! decode to noise.

/// Lloyd-Max magnitudes; boundaries are midpoints.
pub(crate) const LLOYD2: [f32; 2] = [0.452780, 1.510418];
pub(crate) const LLOYD3: [f32; 4] = [0.245094, 0.756005, 1.343909, 2.151946];
pub(crate) const LLOYD4: [f32; 8] = [0.128395, 0.388048, 0.656759, 0.942340, 1.256231, 1.618046, 2.069017, 2.732589];
#[allow(clippy::excessive_precision)] // as published: six decimals
pub(crate) const LLOYD5: [f32; 16] = [
    0.065890, 0.198052, 0.331378, 0.466700, 0.604934, 0.747136, 0.894565, 1.048783, 1.211804, 1.386340, 1.576228,
    1.787233, 2.028728, 2.317739, 2.691120, 3.260732,
];

/// The codebooks by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Codebook {
    Lloyd2,
    Lloyd3,
    Lloyd4,
    Lloyd5,
}

impl Codebook {
    /// Bits of a code: a sign and the index of a magnitude.
    pub(crate) const fn bits(self) -> usize {
        self.magnitudes().len().ilog2() as usize + 1
    }

    /// The magnitudes, ascending.
    pub(crate) const fn magnitudes(self) -> &'static [f32] {
        match self {
            Codebook::Lloyd2 => &LLOYD2,
            Codebook::Lloyd3 => &LLOYD3,
            Codebook::Lloyd4 => &LLOYD4,
            Codebook::Lloyd5 => &LLOYD5,
        }
    }

    /// Whether GPU kernels decode its codes by a polynomial, in place of a table.
    #[cfg(test)] // for the header that a test writes
    pub(crate) fn is_polynomial(self) -> bool {
        self == Codebook::Lloyd2
    }
}

/// Calls `$function` with the magnitudes of a codebook, an array of its size, and the arguments.
macro_rules! with_magnitudes {
    ($book:expr, $function:ident($($argument:expr),*)) => {{
        use $crate::codebook::{Codebook, LLOYD2, LLOYD3, LLOYD4, LLOYD5};
        match $book {
            Codebook::Lloyd2 => $function(&LLOYD2, $($argument),*),
            Codebook::Lloyd3 => $function(&LLOYD3, $($argument),*),
            Codebook::Lloyd4 => $function(&LLOYD4, $($argument),*),
            Codebook::Lloyd5 => $function(&LLOYD5, $($argument),*),
        }
    }};
}
pub(crate) use with_magnitudes;

#[cfg(test)]
mod tests {
    use super::*;

    fn density(x: f64) -> f64 {
        (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
    }

    /// Integrals of the density, x density and x² density over [a, b], by Simpson's rule.
    fn moments(a: f64, b: f64) -> [f64; 3] {
        let (n, b) = (2000, b.min(12.0));
        let h = (b - a) / n as f64;
        let mut sums = [0.0; 3];
        for i in 0..=n {
            let x = a + h * i as f64;
            let w = h / 3.0 * [2.0, 4.0][i % 2] * if i == 0 || i == n { 0.5 } else { 1.0 } * density(x);
            (sums[0], sums[1], sums[2]) = (sums[0] + w, sums[1] + w * x, sums[2] + w * x * x);
        }
        sums
    }

    fn cells(mags: &[f64]) -> Vec<[f64; 3]> {
        let bound = |i: usize| match i {
            0 => 0.0,
            i if i == mags.len() => 12.0,
            i => 0.5 * (mags[i - 1] + mags[i]),
        };
        (0..mags.len()).map(|i| moments(bound(i), bound(i + 1))).collect()
    }

    /// Lloyd's iteration (centroids of cells, cells at midpoints) converges to the constants.
    #[test]
    fn lloyd_max_tables_are_derived() {
        for (table, iterations) in [(&LLOYD2[..], 200), (&LLOYD3, 500), (&LLOYD4, 1500), (&LLOYD5, 6000)] {
            let mut mags: Vec<f64> = (0..table.len()).map(|i| (i as f64 + 0.5) * 3.0 / table.len() as f64).collect();
            for _ in 0..iterations {
                let next = cells(&mags).iter().map(|m| m[1] / m[0]).collect();
                mags = next;
            }
            for (derived, constant) in mags.iter().zip(table) {
                assert!((derived - f64::from(*constant)).abs() < 2e-6, "{derived} {constant}");
            }
        }
    }
}
