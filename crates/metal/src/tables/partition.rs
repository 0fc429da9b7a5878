//! The tables of one RoPE, which kernels read.
use super::operands::left_operands;
use super::pairs::{ExactPairs, PAIR_GROUP};
use super::{floats, words};
use turboquant::{CorrectionTables, PARTITION, Rope};

const INTERVALS: usize = PARTITION / 32;

/// Terms of a polynomial that corrects exactly: 1, v .. v^7, where v counts 16 tokens from the interval's middle.
const EXACT_TERMS: usize = 8;

/// The tables of one RoPE, as bytes, by which kernels correct the logits of centred keys. They are the same for all kv
/// heads.
#[derive(Clone, Debug)]
pub struct PartitionTables {
    /// `[partition][pair]` (cos, sin) at partitions' starts; one 0 where there is no pair, since kernels read the first
    /// one in place of those that there are not.
    pub starts: Vec<u8>,
    /// What 1 of the cosine or of the sine at a partition's start contributes to each term of its intervals, as left
    /// operands of 8x8 products: `[8 approximated pairs][two matrices][high parts, low parts][row][2 pairs a column]`,
    /// of the cosine in both matrices, then of the sine. Rows are intervals: one matrix for each term with the first 8
    /// intervals, then as many with the others.
    pub fits: Vec<u8>,
}

impl PartitionTables {
    /// Tables for positions below `tokens`, with quadratics.
    pub fn new(tables: &CorrectionTables, tokens: usize) -> Self {
        let fits: Vec<_> = (0..tables.approximated().len()).map(|i| quadratics(tables, i)).collect();
        Self::with_fits(tables.rope(), tokens, &fits)
    }

    /// Tables for positions below `tokens`, with polynomials, for keys stored as floats.
    pub fn exact(tables: &CorrectionTables, tokens: usize) -> Self {
        let rope = tables.rope();
        let polynomial = |pair: &usize| polynomials(f64::from(rope.frequencies()[*pair]));
        let fits: Vec<_> = ExactPairs::of(rope).approximated.iter().map(polynomial).collect();
        Self::with_fits(rope, tokens, &fits)
    }

    fn with_fits<const TERMS: usize>(rope: &Rope, tokens: usize, fits: &[[Terms<TERMS>; INTERVALS]]) -> Self {
        let start = |position| (0..rope.pairs()).flat_map(move |pair| rope.cos_sin(pair, position).map(|x| x as f32));
        let matrices = fits.chunks(PAIR_GROUP).flat_map(|pairs| {
            left_operands(INTERVALS * TERMS / 8, |pair, row| {
                let (interval, term) = (row / (8 * TERMS) * 8 + row % 8, row / 8 % TERMS);
                pairs.get(pair).map_or([0.0; 2], |fit| fit[interval][term])
            })
        });
        let starts = match rope.pairs() {
            0 => floats([0.0; 2]),
            _ => floats((0..tokens).step_by(PARTITION).flat_map(start)),
        };
        PartitionTables { starts, fits: words(matrices) }
    }
}

/// What 1 of the cosine and of the sine at a partition's start contributes to each term of an interval. Terms are
/// powers of v, which counts 16 tokens from the interval's middle.
type Terms<const N: usize> = [[f64; 2]; N];

/// The quadratics of the `index`-th approximated pair, one for each interval. A very-low-frequency pair has one for the
/// whole partition, which is re-centred on each interval here.
fn quadratics(tables: &CorrectionTables, index: usize) -> [Terms<3>; INTERVALS] {
    std::array::from_fn(|interval| {
        let [one, v, square] = if index < tables.very_low() {
            let [c, b, a] = tables.very_low_quadratic(index).map(|of| of.map(f64::from));
            let m = (32 * interval) as f64 + 16.0 - PARTITION as f64 / 2.0;
            [[0, 1].map(|i| (a[i] * m + b[i]) * m + c[i]), [0, 1].map(|i| 2.0 * a[i] * m + b[i]), a]
        } else {
            tables.low_quadratic(index, interval).map(|of| of.map(f64::from))
        };
        [one, v.map(|x| 16.0 * x), square.map(|x| 256.0 * x)]
    })
}

/// The Taylor polynomials of a pair with frequency `theta`, one for each interval. With C and D at the partition's
/// start, C cos(t theta) + D sin(t theta) is C' cos((t - m) theta) + D' sin((t - m) theta) around the middle m, and
/// cosine and sine are expanded.
fn polynomials(theta: f64) -> [Terms<EXACT_TERMS>; INTERVALS] {
    std::array::from_fn(|interval| {
        let ((sin, cos), unit) = ((theta * ((32 * interval) as f64 + 15.5)).sin_cos(), 16.0 * theta);
        let mut term = 1.0;
        std::array::from_fn(|k| {
            term *= if k == 0 { 1.0 } else { unit / k as f64 };
            // The cosine is 1 - v²/2 + .., the sine v - v³/6 + ..
            let sign = if k % 4 < 2 { 1.0 } else { -1.0 };
            let of = if k % 2 == 0 { [cos, sin] } else { [-sin, cos] };
            of.map(|x| sign * term * x)
        })
    })
}
