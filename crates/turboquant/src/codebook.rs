//! Codebooks for N(0,1): magnitudes in ascending order, the sign apart. Format constants: a change makes stored caches
//! decode to noise.

/// Lloyd-Max magnitudes; boundaries are midpoints. `LLOYD4` serves V `q4_0`; `tq4` has its own, [`CUBIC4`].
pub(crate) const LLOYD2: [f32; 2] = [0.452780, 1.510418];
pub(crate) const LLOYD3: [f32; 4] = [0.245094, 0.756005, 1.343909, 2.151946];
pub(crate) const LLOYD4: [f32; 8] = [0.128395, 0.388048, 0.656759, 0.942340, 1.256231, 1.618046, 2.069017, 2.732589];
#[allow(clippy::excessive_precision)] // as published: six decimals
pub(crate) const LLOYD5: [f32; 16] = [
    0.065890, 0.198052, 0.331378, 0.466700, 0.604934, 0.747136, 0.894565, 1.048783, 1.211804, 1.386340, 1.576228,
    1.787233, 2.028728, 2.317739, 2.691120, 3.260732,
];

/// `tq4`: c(t) = t (A + G t²) at t = 1/15, 3/15 .. 1, which a GPU computes with three half operations and no table; its
/// mean squared error on N(0,1) is .00969, Lloyd-Max's .00950.
pub(crate) const CUBIC4: [f32; 8] = cubic4();
const CUBIC4_A: f32 = 1.80381;
const CUBIC4_G: f32 = 0.88490;

const fn cubic4() -> [f32; 8] {
    let (mut c, mut i) = ([0.0; 8], 0);
    while i < 8 {
        let t = (2 * i + 1) as f32 / 15.0;
        c[i] = t * (CUBIC4_A + CUBIC4_G * t * t);
        i += 1;
    }
    c
}

/// The codebooks by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Codebook {
    Lloyd2,
    Lloyd3,
    Lloyd4,
    Lloyd5,
    Cubic4,
}

impl Codebook {
    /// Bits of a code: a sign and the index of a magnitude.
    pub(crate) const fn bits(self) -> usize {
        self.magnitudes().len().ilog2() as usize + 1
    }

    /// What help texts call it.
    pub(crate) fn name(self) -> &'static str {
        if self == Codebook::Cubic4 { "of a cubic" } else { "Lloyd-Max" }
    }

    /// The magnitudes, ascending.
    pub(crate) const fn magnitudes(self) -> &'static [f32] {
        match self {
            Codebook::Lloyd2 => &LLOYD2,
            Codebook::Lloyd3 => &LLOYD3,
            Codebook::Lloyd4 => &LLOYD4,
            Codebook::Lloyd5 => &LLOYD5,
            Codebook::Cubic4 => &CUBIC4,
        }
    }

    /// Whether GPU kernels decode its codes by a polynomial, in place of a table.
    #[cfg(test)] // for the header that a test writes
    pub(crate) fn is_polynomial(self) -> bool {
        match self {
            Codebook::Lloyd2 | Codebook::Cubic4 => true,
            Codebook::Lloyd3 | Codebook::Lloyd4 | Codebook::Lloyd5 => false,
        }
    }

    /// The codebook in integers; `None` where no kernel multiplies its codes.
    pub(crate) const fn integers(self) -> Option<IntBook> {
        match self {
            Codebook::Lloyd2 => Some(INT2),
            Codebook::Lloyd3 => Some(INT3),
            Codebook::Lloyd4 => None,
            Codebook::Lloyd5 => Some(INT5),
            Codebook::Cubic4 => Some(INT4),
        }
    }
}

/// Calls `$function` with the magnitudes of a codebook, an array of its size, and the arguments.
macro_rules! with_magnitudes {
    ($book:expr, $function:ident($($argument:expr),*)) => {{
        use $crate::codebook::{CUBIC4, Codebook, LLOYD2, LLOYD3, LLOYD4, LLOYD5};
        match $book {
            Codebook::Lloyd2 => $function(&LLOYD2, $($argument),*),
            Codebook::Lloyd3 => $function(&LLOYD3, $($argument),*),
            Codebook::Lloyd4 => $function(&LLOYD4, $($argument),*),
            Codebook::Lloyd5 => $function(&LLOYD5, $($argument),*),
            Codebook::Cubic4 => $function(&CUBIC4, $($argument),*),
        }
    }};
}
pub(crate) use with_magnitudes;

/// A codebook in integers, for kernels that multiply codes as int8: magnitude `i` stands for `mags[i] / scale`.
///
/// Found by searching all scales whose largest integer is within a limit for the least mean squared difference from the
/// codebook, weighted by the cells' probabilities; rounding to 127 / largest is 2 to 6 times worse.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IntBook {
    pub mags: &'static [u8],
    pub scale: f32,
}

impl IntBook {
    pub(crate) const fn largest(&self) -> u8 {
        self.mags[self.mags.len() - 1]
    }
}

/// Largest integer 127; rms difference from the codebook in the comment, relative to the vector.
const INT5: IntBook =
    IntBook { mags: &[2, 7, 12, 17, 22, 27, 32, 38, 44, 50, 57, 65, 73, 84, 97, 118], scale: 36.158294 }; // .58 %
const INT4: IntBook = IntBook { mags: &[5, 15, 26, 38, 52, 68, 87, 110], scale: 40.780357 }; // .28 %
const INT3: IntBook = IntBook { mags: &[10, 31, 55, 88], scale: 40.92527 }; // .11 %
const INT2: IntBook = IntBook { mags: &[21, 70], scale: 46.350323 }; // .03 %

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

    fn mse(mags: &[f64]) -> f64 {
        cells(mags).iter().zip(mags).map(|(m, c)| 2.0 * (m[2] - 2.0 * c * m[1] + c * c * m[0])).sum()
    }

    fn wide(mags: &[f32]) -> Vec<f64> {
        mags.iter().map(|c| f64::from(*c)).collect()
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

    #[test]
    fn cubic_costs_two_percent_over_lloyd_max() {
        let rounded = CUBIC4.map(|c| (f64::from(c) * 1e5).round() / 1e5);
        assert_eq!(rounded, [0.12052, 0.36784, 0.63404, 0.93171, 1.27342, 1.67177, 2.13934, 2.68871]);
        let (cubic, lloyd) = (mse(&wide(&CUBIC4)), mse(&wide(&LLOYD4)));
        assert!((cubic - 0.00969).abs() < 5e-6 && (lloyd - 0.00950).abs() < 5e-6, "{cubic} {lloyd}");
    }

    /// The search that the integer tables came from, over scales in steps of .001.
    #[test]
    fn integer_tables_are_the_best_within_their_limit() {
        const LIMIT: f64 = 127.0;
        let books: [(&IntBook, &[f32]); 4] = [(&INT5, &LLOYD5), (&INT4, &CUBIC4), (&INT3, &LLOYD3), (&INT2, &LLOYD2)];
        for (book, table) in books {
            let table = wide(table);
            let weights: Vec<f64> = cells(&table).iter().map(|m| m[0]).collect();
            let error = |ints: &[f64]| {
                let sum = |f: &dyn Fn(usize) -> f64| (0..ints.len()).map(|i| weights[i] * f(i)).sum::<f64>();
                let unit = sum(&|i| table[i] * ints[i]) / sum(&|i| ints[i] * ints[i]);
                (sum(&|i| (ints[i] * unit - table[i]).powi(2)), 1.0 / unit)
            };
            let top = table[table.len() - 1];
            let tried =
                (0..).map(|i| LIMIT / top * 0.55 + 0.001 * f64::from(i)).take_while(|s| *s < LIMIT / top * 1.03);
            let best = tried
                .map(|s| error(&table.iter().map(|c| (c * s).round().clamp(1.0, LIMIT)).collect::<Vec<_>>()).0)
                .fold(f64::MAX, f64::min);
            let (own, scale) = error(&book.mags.iter().map(|m| f64::from(*m)).collect::<Vec<_>>());
            assert!(own <= best * (1.0 + 1e-6), "{book:?}: {own} against {best}");
            assert!((scale / f64::from(book.scale) - 1.0).abs() < 1e-5, "{book:?}: {scale}");
        }
    }
}
