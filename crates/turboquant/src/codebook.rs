//! Codebooks for N(0,1): magnitudes in ascending order, the sign apart. Format constants: a change makes stored caches decode
//! to noise.

/// Lloyd-Max magnitudes; boundaries are midpoints. `LLOYD4` serves V `q4_0`; `tq4` has its own, [`CUBIC4`].
pub(crate) const LLOYD2: [f32; 2] = [0.452780, 1.510418];
pub(crate) const LLOYD3: [f32; 4] = [0.245094, 0.756005, 1.343909, 2.151946];
pub(crate) const LLOYD4: [f32; 8] = [0.128395, 0.388048, 0.656759, 0.942340, 1.256231, 1.618046, 2.069017, 2.732589];
#[allow(clippy::excessive_precision)] // as published: six decimals
pub(crate) const LLOYD5: [f32; 16] = [
    0.065890, 0.198052, 0.331378, 0.466700, 0.604934, 0.747136, 0.894565, 1.048783, 1.211804, 1.386340, 1.576228,
    1.787233, 2.028728, 2.317739, 2.691120, 3.260732,
];

/// `tq4`: c(t) = t (A + G t²) at t = 1/15, 3/15 .. 1, which a GPU computes with three half operations and no table; its mean
/// squared error on N(0,1) is .00969, Lloyd-Max's .00950.
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

/// A codebook in integers, for kernels that multiply codes as int8: magnitude `i` stands for `mags[i] / scale`, or with `half`
/// for `(mags[i] + .5) / scale`. Codes are then rounded down, and the halves added to the sums, where they cost next to nothing.
///
/// Found by searching all scales whose largest integer is within a limit for the least mean squared difference from the
/// codebook, weighted by the cells' probabilities; rounding to 127 / largest is 2 to 6 times worse.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IntBook {
    pub mags: &'static [u8],
    pub half: bool,
    pub scale: f32,
}

impl IntBook {
    const fn new(mags: &'static [u8], scale: f32) -> Self {
        IntBook { mags, half: false, scale }
    }
}

/// Largest integer 127; rms difference from the codebook in the comment, relative to the vector.
pub(crate) const INT5: IntBook =
    IntBook::new(&[2, 7, 12, 17, 22, 27, 32, 38, 44, 50, 57, 65, 73, 84, 97, 118], 36.158294); // .58 %
pub(crate) const INT4: IntBook = IntBook::new(&[5, 15, 26, 38, 52, 68, 87, 110], 40.780357); // .28 %
pub(crate) const INT3: IntBook = IntBook::new(&[10, 31, 55, 88], 40.92527); // .11 %
pub(crate) const INT2: IntBook = IntBook::new(&[21, 70], 46.350323); // .03 %

/// For products of pairs added in 16 bits. K: raised by 64, no integer above 129 = 32767 / (2 * 127).
pub(crate) const HALF4_SMALL: IntBook = IntBook { mags: &[2, 7, 12, 18, 25, 33, 42, 53], half: true, scale: 19.948599 }; // .65 %
/// K and V.
pub(crate) const INT2_SMALL: IntBook = IntBook::new(&[12, 40], 26.485899); // .03 %
/// V: the smaller the table, the larger the weights ([`Simd::weight_max`](crate::simd::Simd)), and these err least together.
pub(crate) const INT5_SMALL: IntBook =
    IntBook::new(&[2, 6, 10, 14, 18, 22, 27, 31, 36, 41, 47, 53, 60, 69, 80, 97], 29.71653); // .60 %
pub(crate) const INT4_SMALL: IntBook = IntBook::new(&[3, 10, 17, 25, 34, 45, 57, 72], 26.785729); // .58 %

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

    /// A codebook with its cells' probabilities.
    struct Target {
        table: Vec<f64>,
        weights: Vec<f64>,
    }

    impl Target {
        fn new(table: &[f32]) -> Self {
            let table = wide(table);
            Target { weights: cells(&table).iter().map(|m| 2.0 * m[0]).collect(), table }
        }

        /// The rms difference of integers in their best unit, and how many are one unit of the codebook.
        fn fit(&self, ints: &[f64]) -> (f64, f64) {
            let sum = |f: &dyn Fn(usize) -> f64| (0..ints.len()).map(|i| self.weights[i] * f(i)).sum::<f64>();
            let unit = sum(&|i| self.table[i] * ints[i]) / sum(&|i| ints[i] * ints[i]);
            (sum(&|i| (ints[i] * unit - self.table[i]).powi(2)).sqrt(), 1.0 / unit)
        }

        /// The least `error` of all tables of integers plus `half` up to `limit`, by scales in steps of .001.
        fn least(&self, limit: f64, half: f64, error: &dyn Fn(&[f64]) -> f64) -> f64 {
            let top = self.table[self.table.len() - 1];
            let scales = (0..).map(|i| limit / top * 0.5 + 0.001 * f64::from(i));
            let round = |x: f64| ((x - half).round() + half).clamp(if half > 0.0 { half } else { 1.0 }, limit);
            let tables = scales.map(|s| self.table.iter().map(|c| round(c * s)).collect::<Vec<_>>());
            tables.take(((limit / top * 0.53) / 0.001) as usize).map(|ints| error(&ints)).fold(f64::MAX, f64::min)
        }

        /// `book`'s integers, after a check that its scale fits them best.
        fn integers(&self, book: &IntBook) -> Vec<f64> {
            let half = if book.half { 0.5 } else { 0.0 };
            let ints: Vec<f64> = book.mags.iter().map(|m| f64::from(*m) + half).collect();
            let (_, scale) = self.fit(&ints);
            assert!((scale / f64::from(book.scale) - 1.0).abs() < 1e-5, "{book:?}: {scale}");
            ints
        }
    }

    /// The search that the tables came from; half-integers where they cost nothing.
    #[test]
    fn integer_tables_are_the_best_within_their_limit() {
        let books: [(&IntBook, &[f32], f64, &[f64]); 6] = [
            (&INT5, &LLOYD5, 127.0, &[0.0]),
            (&INT4, &CUBIC4, 127.0, &[0.0, 0.5]),
            (&INT3, &LLOYD3, 127.0, &[0.0]),
            (&INT2, &LLOYD2, 127.0, &[0.0]),
            (&HALF4_SMALL, &CUBIC4, 64.0, &[0.0, 0.5]),
            (&INT2_SMALL, &LLOYD2, 64.0, &[0.0, 0.5]),
        ];
        for (book, table, limit, halves) in books {
            let target = Target::new(table);
            let least = |half: &f64| target.least(limit + half, *half, &|ints| target.fit(ints).0);
            let best = halves.iter().map(least).fold(f64::MAX, f64::min);
            let own = target.fit(&target.integers(book)).0;
            assert!(own <= best * (1.0 + 1e-6), "{book:?}: {own} against {best}");
        }
    }

    /// V's where the weights' limit depends on the table: rounding one to 1/w of the largest is off by .29 / w times the largest
    /// over the rms weight, which is 4.5 for e^x of normal x (less where the softmax is sharper).
    #[test]
    fn small_tables_are_the_best_with_their_weights() {
        let books: [(&IntBook, &[f32]); 3] = [(&INT5_SMALL, &LLOYD5), (&INT4_SMALL, &CUBIC4), (&INT2_SMALL, &LLOYD2)];
        for (book, table) in books {
            let target = Target::new(table);
            let error = |ints: &[f64]| {
                let weight = (16383.0 / ints[ints.len() - 1]).floor().min(255.0);
                target.fit(ints).0.hypot(4.5 * 0.29 / weight)
            };
            let (best, own) = (target.least(127.0, 0.0, &error), error(&target.integers(book)));
            assert!(own <= best * (1.0 + 1e-6), "{book:?}: {own} against {best}");
        }
    }
}
