//! What kernels read to take the mean of K out and to put it back into logits: tables, never an angle a key.
use half::f16;
use turboquant::{CorrectionTables, KeyMean, PARTITION, Rope};

/// Fast pairs of a group: as many as kernels follow of keys that are not followed exactly.
pub(crate) const FAST_PAIRS: usize = 8;
const BLOCKS: usize = PARTITION / 32;

/// Radians a token up to which a pair that is followed exactly goes into a polynomial: its first term left out, of degree 8, is
/// (15.5 x 0.035)^8 / 8! = 1.9e-7 of the amplitude at a block's edge, about f32's own rounding.
const POLYNOMIAL_PAIR: f64 = 0.035;
/// 1, v .. v^7.
const EXACT_TERMS: usize = 8;

/// All pairs of a rope as they are followed exactly: by polynomials, and in groups of 8.
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

/// Groups of fast pairs where these centres are followed exactly; `None` where they are followed by parabolas.
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

/// What kernels read of one RoPE to correct logits of centred keys, as bytes.
#[derive(Clone, Debug)]
pub struct PartitionTables {
    /// `[partition][pair]` (cos, sin) at partitions' starts.
    pub starts: Vec<u8>,
    /// What 1 of cos or of sin at a partition's start gives to the terms of its blocks, as left operands: `[8 followed pairs][pair of
    /// tiles][high parts, low parts][row][2 pairs a column]`, of cos in both tiles, then of sin. Rows are blocks of 32 tokens: the first
    /// 8 in a tile for each term, then the others.
    pub fits: Vec<u8>,
}

impl PartitionTables {
    /// For positions below `tokens`.
    pub fn new(tables: &CorrectionTables, tokens: usize) -> Self {
        let fits: Vec<_> = (0..tables.approximated().len()).map(|i| parabolas(tables, i)).collect();
        Self::with_fits(tables.rope(), tokens, &fits)
    }

    /// The same where keys are followed exactly.
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

/// What 1 of cos and of sin at a partition's start gives to each term of a block, in units of 16 tokens around its middle.
type Terms<const N: usize> = [[f64; 2]; N];

/// Of the `index`-th followed pair: of a still one its one parabola, moved to the blocks' middles.
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

/// Of a pair that is followed exactly: Taylor's polynomials. With C, D at a partition's start, C cos + D sin of theta t is C' cos + D'
/// sin of theta (t - middle).
fn polynomials(theta: f64) -> [Terms<EXACT_TERMS>; BLOCKS] {
    std::array::from_fn(|block| {
        let ((sin, cos), unit) = ((theta * ((32 * block) as f64 + 15.5)).sin_cos(), 16.0 * theta);
        let mut term = 1.0;
        std::array::from_fn(|k| {
            term *= if k == 0 { 1.0 } else { unit / k as f64 };
            // cos has 1, -v²/2 .., sin v, -v³/6 ..
            let sign = if k % 4 < 2 { 1.0 } else { -1.0 };
            let of = if k % 2 == 0 { [cos, sin] } else { [-sin, cos] };
            of.map(|x| sign * term * x)
        })
    })
}

/// Of a layer's kv heads, as bytes.
#[derive(Clone, Debug)]
pub struct LayerTables {
    /// `[kv head][head_dim]`, 0 where nothing is taken out.
    pub means: Vec<u8>,
    /// Followed pairs in groups of 8, then groups of 8 fast ones of each kv head; past the last pair: none.
    pub lists: Vec<u8>,
    /// `[kv head][2 pairs of tiles][high parts, low parts][row][2 RoPE pairs a column]`: cos in both tiles, sin in both, of the fast
    /// pairs at the tiles' tokens: operands of products as they lie. Where keys are
    /// followed exactly all kv heads have the same: `[group]`.
    pub fast_tiles: Vec<u8>,
    /// `[kv head or group][72][8]` (cos, sin) of the fast pairs at 64 multiples of 8 tokens, then at 0 to 7 tokens.
    pub fast_turns: Vec<u8>,
}

impl LayerTables {
    /// `means`: of all kv heads, at least one.
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
            fast_tiles: words(tiles),
            fast_turns: floats(turns),
        }
    }
}

/// `tiles` tiles of 8 rows and 8 pairs, as words: `[pair of tiles][high parts, low parts][row][2 pairs a column]`. of: (cos, sin) of a pair
/// in a row of all tiles.
fn left_operands(tiles: usize, of: impl Fn(usize, usize) -> [f64; 2]) -> Vec<u32> {
    let at = |i: usize| {
        let (row, column) = (i / 64 * 16 + i % 32 / 4, i % 4);
        operands([row, row + 8].map(|row| [of(2 * column, row), of(2 * column + 1, row)]), i / 32 % 2 == 1)
    };
    (0..32 * tiles).flat_map(at).collect()
}

/// (cos, sin) of two RoPE pairs in each of two tiles, as words of two halves: cos in both, sin in both. `low`: what halves lose.
fn operands(turns: [[[f64; 2]; 2]; 2], low: bool) -> [u32; 4] {
    let part = |x: f64| if low { x - f16::from_f64(x).to_f64() } else { x };
    let word = |tile: usize, k: usize| {
        let [first, second] = turns[tile].map(|turn| u32::from(f16::from_f64(part(turn[k])).to_bits()));
        first | second << 16
    };
    [word(0, 0), word(1, 0), word(0, 1), word(1, 1)]
}
