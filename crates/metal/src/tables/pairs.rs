//! The RoPE pairs, by how kernels correct them.
use turboquant::{KeyTransform, Rope};

/// RoPE pairs of a pair group. Of coded keys kernels correct one group of high-frequency pairs, of keys stored as
/// floats as many as there are.
pub(crate) const PAIR_GROUP: usize = 8;

/// The largest frequency, radians a token, of a pair that a polynomial corrects exactly. The first term that the
/// polynomial leaves out, of degree 8, is (15.5 x 0.035)^8 / 8! = 1.9e-7 of the amplitude at an interval's edge, about
/// f32's own rounding.
const POLYNOMIAL_PAIR: f64 = 0.035;

/// All RoPE pairs as they are corrected for keys stored as floats.
pub(crate) struct ExactPairs {
    /// Those that polynomials approximate.
    pub approximated: Vec<usize>,
    /// The others, which are corrected in pair groups.
    pub high: Vec<usize>,
}

impl ExactPairs {
    /// Divides the pairs of `rope` by their frequencies.
    pub fn of(rope: &Rope) -> Self {
        let (approximated, high) =
            (0..rope.pairs()).partition(|pair| f64::from(rope.frequencies()[*pair]) <= POLYNOMIAL_PAIR);
        ExactPairs { approximated, high }
    }
}

/// The number of pair groups where the means of these keys are corrected exactly; `None` where quadratics correct them.
pub fn exact_groups(keys: &[KeyTransform]) -> Option<usize> {
    let exact = keys.iter().any(|key| key.high_pairs().len() > PAIR_GROUP);
    let rope = keys.first().filter(|_| exact)?.tables().rope();
    Some(ExactPairs::of(rope).high.len().div_ceil(PAIR_GROUP))
}
