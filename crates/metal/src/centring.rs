//! What kernels read to take the mean of K out and to put it back into logits: tables, never an angle a key.
use half::f16;
use turboquant::{KeyCentre, PARTITION, Rope};

/// Fast pairs of a group: as many as kernels follow of keys that are not followed exactly.
pub(crate) const FAST_PAIRS: usize = 8;
const BLOCKS: usize = PARTITION / 32;

/// Radians a token up to which a pair that is followed exactly goes into a polynomial: its first term left out, of degree 8, is
/// (15.5 x 0.035)^8 / 8! = 1.9e-7 of the amplitude at a block's edge, about f32's own rounding.
const POLYNOMIAL_PAIR: f64 = 0.035;
/// 1, v .. v^7.
const TERMS: usize = 8;

/// All pairs of a rope as they are followed exactly: by polynomials, and in groups of 8.
pub(crate) struct ExactPairs {
    pub slow: Vec<usize>,
    fast: Vec<usize>,
}

impl ExactPairs {
    pub fn of(rope: &Rope) -> Self {
        let (slow, fast) = (0..rope.pairs()).partition(|pair| rope.frequency(*pair) <= POLYNOMIAL_PAIR);
        ExactPairs { slow, fast }
    }

    pub fn groups(&self) -> usize {
        self.fast.len().div_ceil(FAST_PAIRS)
    }
}

/// Groups of fast pairs where these centres are followed exactly; `None` where they are followed by parabolas.
pub fn exact_groups(centres: &[KeyCentre]) -> Option<usize> {
    let exact = centres.iter().any(|c| c.fast_pairs().len() > FAST_PAIRS);
    centres.first().filter(|_| exact).map(|first| ExactPairs::of(first.rope()).groups())
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn words(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn turn(rope: &Rope, pair: usize, position: usize) -> [f32; 2] {
    rope.turn(pair, position).map(|x| x as f32)
}

/// Of a rope, as bytes.
#[derive(Clone, Debug)]
pub struct RopeTables {
    /// `[partition][pair]` (cos, sin) at partitions' starts.
    pub starts: Vec<u8>,
    /// `[512][pair]` (cos, sin) of 0 to 511 tokens.
    pub offsets: Vec<u8>,
    /// `[still pair][1, u, u²][of cos, of sin]`.
    pub still_fit: Vec<u8>,
    /// `[slow pair][16 blocks][1, u, u²][of cos, of sin]`, each filled up to 8 floats; of pairs that are followed exactly `[slow
    /// pair][16 blocks][1, v .. v^7][of cos, of sin]`.
    pub slow_fit: Vec<u8>,
}

impl RopeTables {
    /// For positions below `tokens`.
    pub fn new(rope: &Rope, tokens: usize) -> Self {
        let still = 0..rope.still();
        let slow = rope.still()..rope.followed().len();
        let padded = |fit: [[f32; 2]; 3]| fit.into_iter().chain([[0.0; 2]]).flatten();
        Self::with_fits(
            rope,
            tokens,
            floats(still.flat_map(|i| rope.still_parabola(i).into_iter().flatten())),
            floats(slow.flat_map(|i| (0..BLOCKS).flat_map(move |b| padded(rope.slow_parabola(i, b))))),
        )
    }

    /// The same where keys are followed exactly.
    pub fn exact(rope: &Rope, tokens: usize) -> Self {
        let fit = |pair: &usize| {
            let theta = rope.frequency(*pair);
            (0..BLOCKS).flat_map(move |block| polynomial(theta, (32 * block) as f64 + 15.5).into_iter().flatten())
        };
        Self::with_fits(rope, tokens, Vec::new(), floats(ExactPairs::of(rope).slow.iter().flat_map(fit)))
    }

    fn with_fits(rope: &Rope, tokens: usize, still_fit: Vec<u8>, slow_fit: Vec<u8>) -> Self {
        let turns = |positions: &mut dyn Iterator<Item = usize>| {
            floats(positions.flat_map(|t| (0..rope.pairs()).flat_map(move |pair| turn(rope, pair, t))))
        };
        RopeTables {
            starts: turns(&mut (0..tokens.div_ceil(PARTITION)).map(|p| p * PARTITION)),
            offsets: turns(&mut (0..PARTITION)),
            still_fit,
            slow_fit,
        }
    }
}

/// Taylor's polynomial, in units of 16 tokens around `middle`, that 1 of cos or of sin at position 0 gives at later positions: with C,
/// D there, C cos + D sin of theta t is C' cos + D' sin of theta (t - middle).
fn polynomial(theta: f64, middle: f64) -> [[f32; 2]; TERMS] {
    let ((sin, cos), unit) = ((theta * middle).sin_cos(), 16.0 * theta);
    let mut term = 1.0;
    std::array::from_fn(|k| {
        term *= if k == 0 { 1.0 } else { unit / k as f64 };
        // cos has 1, -v²/2 .., sin v, -v³/6 ..
        let sign = if k % 4 < 2 { 1.0 } else { -1.0 };
        let of = if k % 2 == 0 { [cos, sin] } else { [-sin, cos] };
        of.map(|x| (sign * term * x) as f32)
    })
}

/// Of a layer's kv heads, as bytes.
#[derive(Clone, Debug)]
pub struct Tables {
    /// `[kv head][head_dim]`, 0 where nothing is taken out.
    pub means: Vec<u8>,
    /// Followed pairs, then groups of 8 fast ones of each kv head; past the last pair: none.
    pub lists: Vec<u8>,
    /// `[kv head][2 pairs of tiles][high parts, low parts][row][2 RoPE pairs a column]`: cos in both tiles, sin in both, of the fast
    /// pairs at the tiles' tokens: operands of products as they lie. Where keys are
    /// followed exactly all kv heads have the same: `[group]`.
    pub fast_tiles: Vec<u8>,
    /// `[kv head or group][72][8]` (cos, sin) of the fast pairs at 64 multiples of 8 tokens, then at 0 to 7 tokens.
    pub fast_turns: Vec<u8>,
}

impl Tables {
    /// `centres`: of all kv heads, at least one.
    pub fn new(centres: &[KeyCentre]) -> Self {
        let rope = centres[0].rope();
        let (followed, groups, lists): (_, Vec<Vec<usize>>, usize) = match exact_groups(centres) {
            Some(_) => {
                let ExactPairs { slow, fast } = ExactPairs::of(rope);
                (slow, fast.chunks(FAST_PAIRS).map(<[usize]>::to_vec).collect(), centres.len())
            }
            None => (rope.followed().to_vec(), centres.iter().map(|c| c.fast_pairs().to_vec()).collect(), 1),
        };
        let pair = |group: &Vec<usize>, i: usize| group.get(i).map_or(u32::MAX, |p| *p as u32);
        let listed = groups.iter().flat_map(|g| (0..FAST_PAIRS).map(move |i| pair(g, i)));
        let listed: Vec<u32> = listed.collect();
        let at =
            |group: &Vec<usize>, i: usize, tokens| group.get(i).map_or([1.0, 0.0], |pair| rope.turn(*pair, tokens));
        let tiles = groups.iter().flat_map(|g| {
            (0..4 * 32).flat_map(move |i| {
                let (token, column) = (i / 64 * 16 + i % 32 / 4, i % 4);
                let turns = [token, token + 8].map(|token| [at(g, 2 * column, token), at(g, 2 * column + 1, token)]);
                operands(turns, i / 32 % 2 == 1)
            })
        });
        let tokens = || (0..PARTITION / 8).map(|k| 8 * k).chain(0..8);
        let turns = groups
            .iter()
            .flat_map(|g| tokens().flat_map(move |t| (0..FAST_PAIRS).flat_map(move |i| at(g, i, t).map(|x| x as f32))));
        Tables {
            means: floats(centres.iter().flat_map(KeyCentre::taken)),
            lists: words(followed.into_iter().map(|p| p as u32).chain(listed.repeat(lists))),
            fast_tiles: words(tiles),
            fast_turns: floats(turns),
        }
    }
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
