//! The tables that kernels read to correct the logits of centred keys. With them no kernel computes an angle for a key.
use half::f16;
use turboquant::{CorrectionTables, KeyMean, PARTITION, Rope};

/// RoPE pairs of a pair group. Of coded keys kernels correct one group of high-frequency pairs, of keys stored as
/// floats as many as there are.
pub(crate) const FAST_PAIRS: usize = 8;
const BLOCKS: usize = PARTITION / 32;

/// The largest frequency, radians a token, of a pair that a polynomial corrects exactly. The first term that the
/// polynomial leaves out, of degree 8, is (15.5 x 0.035)^8 / 8! = 1.9e-7 of the amplitude at an interval's edge, about
/// f32's own rounding.
const POLYNOMIAL_PAIR: f64 = 0.035;
/// Terms of such a polynomial: 1, v .. v^7, where v counts 16 tokens from the interval's middle.
const EXACT_TERMS: usize = 8;

/// All RoPE pairs as they are corrected for keys stored as floats: the slow ones by polynomials, the fast ones in pair
/// groups.
pub(crate) struct ExactPairs {
    pub slow: Vec<usize>,
    fast: Vec<usize>,
}

impl ExactPairs {
    pub fn of(rope: &Rope) -> Self {
        let (slow, fast) = (0..rope.pairs()).partition(|pair| f64::from(rope.frequencies()[*pair]) <= POLYNOMIAL_PAIR);
        ExactPairs { slow, fast }
    }

    pub fn groups(&self) -> usize {
        self.fast.len().div_ceil(FAST_PAIRS)
    }
}

/// The number of pair groups where these means are corrected exactly; `None` where quadratics correct them.
pub fn exact_groups(means: &[KeyMean]) -> Option<usize> {
    let exact = means.iter().any(|mean| mean.high_pairs().len() > FAST_PAIRS);
    means.first().filter(|_| exact).map(|first| ExactPairs::of(first.tables().rope()).groups())
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn words(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// What kernels read of one RoPE to correct logits of centred keys, as bytes. It is the same for all kv heads.
#[derive(Clone, Debug)]
pub struct PartitionTables {
    /// `[partition][pair]` (cos, sin) at partitions' starts.
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
        let fits: Vec<_> = (0..tables.approximated().len()).map(|i| parabolas(tables, i)).collect();
        Self::with_fits(tables.rope(), tokens, &fits)
    }

    /// Tables for positions below `tokens`, with polynomials, for keys stored as floats.
    pub fn exact(tables: &CorrectionTables, tokens: usize) -> Self {
        let rope = tables.rope();
        let polynomial = |pair: &usize| polynomials(f64::from(rope.frequencies()[*pair]));
        let fits: Vec<_> = ExactPairs::of(rope).slow.iter().map(polynomial).collect();
        Self::with_fits(rope, tokens, &fits)
    }

    fn with_fits<const TERMS: usize>(rope: &Rope, tokens: usize, fits: &[[Terms<TERMS>; BLOCKS]]) -> Self {
        let start = |position| (0..rope.pairs()).flat_map(move |pair| rope.cos_sin(pair, position).map(|x| x as f32));
        let tiles = fits.chunks(8).flat_map(|group| {
            left_operands(BLOCKS * TERMS / 8, |pair, row| {
                let (block, term) = (row / (8 * TERMS) * 8 + row % 8, row / 8 % TERMS);
                group.get(pair).map_or([0.0; 2], |fit| fit[block][term])
            })
        });
        PartitionTables { starts: floats((0..tokens).step_by(PARTITION).flat_map(start)), fits: words(tiles) }
    }
}

/// What 1 of the cosine and of the sine at a partition's start contributes to each term of an interval. Terms are
/// powers of v, which counts 16 tokens from the interval's middle.
type Terms<const N: usize> = [[f64; 2]; N];

/// The quadratics of the `index`-th approximated pair, one for each interval. A very-low-frequency pair has one for the
/// whole partition, which is re-centred on each interval here.
fn parabolas(tables: &CorrectionTables, index: usize) -> [Terms<3>; BLOCKS] {
    std::array::from_fn(|block| {
        let [one, v, square] = if index < tables.very_low() {
            let [c, b, a] = tables.very_low_quadratic(index).map(|of| of.map(f64::from));
            let m = (32 * block) as f64 + 16.0 - PARTITION as f64 / 2.0;
            [[0, 1].map(|i| (a[i] * m + b[i]) * m + c[i]), [0, 1].map(|i| 2.0 * a[i] * m + b[i]), a]
        } else {
            tables.low_quadratic(index, block).map(|of| of.map(f64::from))
        };
        [one, v.map(|x| 16.0 * x), square.map(|x| 256.0 * x)]
    })
}

/// The Taylor polynomials of a pair with frequency `theta`, one for each interval. With C and D at the partition's
/// start, C cos(t theta) + D sin(t theta) is C' cos((t - m) theta) + D' sin((t - m) theta) around the middle m, and
/// cosine and sine are expanded.
fn polynomials(theta: f64) -> [Terms<EXACT_TERMS>; BLOCKS] {
    std::array::from_fn(|block| {
        let ((sin, cos), unit) = ((theta * ((32 * block) as f64 + 15.5)).sin_cos(), 16.0 * theta);
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

/// What kernels read of a layer's kv heads to correct logits of centred keys, as bytes.
#[derive(Clone, Debug)]
pub struct LayerTables {
    /// `[kv head][head_dim]`: what is subtracted from keys, 0 where the mean stays.
    pub means: Vec<u8>,
    /// The approximated pairs, 8 at a time, then the pair groups of each kv head. Entries past the last pair name none.
    pub lists: Vec<u8>,
    /// `[kv head][2 pairs of matrices][high parts, low parts][row][2 RoPE pairs a column]`: left operands of 8x8
    /// products, the cosines in both matrices, then the sines, of the high-frequency pairs at 0 to 31 tokens. Keys
    /// stored as floats have `[pair group]` in place of `[kv head]`, since all kv heads have the same pairs.
    pub high_operands: Vec<u8>,
    /// `[kv head or pair group][72][8]` (cos, sin) of the high-frequency pairs at 64 multiples of 8 tokens, then at 0
    /// to 7 tokens.
    pub high_angles: Vec<u8>,
}

impl LayerTables {
    /// `means` has one entry for each kv head, and at least one.
    pub fn new(means: &[KeyMean]) -> Self {
        let tables = means[0].tables();
        let rope = tables.rope();
        let (followed, groups, lists): (_, Vec<Vec<usize>>, usize) = match exact_groups(means) {
            Some(_) => {
                let ExactPairs { slow, fast } = ExactPairs::of(rope);
                (slow, fast.chunks(FAST_PAIRS).map(<[usize]>::to_vec).collect(), means.len())
            }
            None => (tables.approximated().to_vec(), means.iter().map(|mean| mean.high_pairs().to_vec()).collect(), 1),
        };
        let eight = |group: &[usize]| std::array::from_fn::<_, 8, _>(|i| group.get(i).map_or(u32::MAX, |p| *p as u32));
        let listed: Vec<u32> = groups.iter().flat_map(|g| eight(g)).collect();
        let at =
            |group: &Vec<usize>, i: usize, tokens| group.get(i).map_or([1.0, 0.0], |pair| rope.cos_sin(*pair, tokens));
        let tiles = groups.iter().flat_map(|g| left_operands(4, |pair, token| at(g, pair, token)));
        let tokens = || (0..PARTITION / 8).map(|k| 8 * k).chain(0..8);
        let turns = groups
            .iter()
            .flat_map(|g| tokens().flat_map(move |t| (0..FAST_PAIRS).flat_map(move |i| at(g, i, t).map(|x| x as f32))));
        LayerTables {
            means: floats(means.iter().flat_map(|mean| mean.subtracted().iter().copied())),
            lists: words(followed.chunks(8).flat_map(eight).chain(listed.repeat(lists))),
            high_operands: words(tiles),
            high_angles: floats(turns),
        }
    }
}

/// `tiles` matrices of 8 rows and 8 pairs as words: `[two matrices][high parts, low parts][row][2 pairs a column]`.
/// `of` gives (cos, sin) of a pair, 0 to 7, in a row, counted over all matrices.
fn left_operands(tiles: usize, of: impl Fn(usize, usize) -> [f64; 2]) -> Vec<u32> {
    let at = |i: usize| {
        let (row, column) = (i / 64 * 16 + i % 32 / 4, i % 4);
        operands([row, row + 8].map(|row| [of(2 * column, row), of(2 * column + 1, row)]), i / 32 % 2 == 1)
    };
    (0..32 * tiles).flat_map(at).collect()
}

/// (cos, sin) of two RoPE pairs in each of two matrices as words of two halves: the cosines in both matrices, then the
/// sines. With `low` the words hold what is lost when the values are rounded to halves.
fn operands(turns: [[[f64; 2]; 2]; 2], low: bool) -> [u32; 4] {
    let part = |x: f64| if low { x - f16::from_f64(x).to_f64() } else { x };
    let word = |tile: usize, k: usize| {
        let [first, second] = turns[tile].map(|turn| u32::from(f16::from_f64(part(turn[k])).to_bits()));
        first | second << 16
    };
    [word(0, 0), word(1, 0), word(0, 1), word(1, 1)]
}
