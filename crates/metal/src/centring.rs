//! What kernels read to take the mean of K out and to put it back into logits: tables, never an angle a key.
use half::f16;
use turboquant::{KeyCentre, PARTITION, Rope};

/// Fast pairs that kernels follow.
pub(crate) const FAST_PAIRS: usize = 8;
const BLOCKS: usize = PARTITION / 32;

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
    /// `[slow pair][16 blocks][1, u, u²][of cos, of sin]`, each filled up to 8 floats.
    pub slow_fit: Vec<u8>,
}

impl RopeTables {
    /// For positions below `tokens`.
    pub fn new(rope: &Rope, tokens: usize) -> Self {
        let turns = |positions: &mut dyn Iterator<Item = usize>| {
            floats(positions.flat_map(|t| (0..rope.pairs()).flat_map(move |pair| turn(rope, pair, t))))
        };
        let still = 0..rope.still();
        let slow = rope.still()..rope.followed().len();
        let padded = |fit: [[f32; 2]; 3]| fit.into_iter().chain([[0.0; 2]]).flatten();
        RopeTables {
            starts: turns(&mut (0..tokens.div_ceil(PARTITION)).map(|p| p * PARTITION)),
            offsets: turns(&mut (0..PARTITION)),
            still_fit: floats(still.flat_map(|i| rope.still_parabola(i).into_iter().flatten())),
            slow_fit: floats(slow.flat_map(|i| (0..BLOCKS).flat_map(move |b| padded(rope.slow_parabola(i, b))))),
        }
    }
}

/// Of a layer's kv heads, as bytes.
#[derive(Clone, Debug)]
pub struct Tables {
    /// `[kv head][head_dim]`, 0 where nothing is taken out.
    pub means: Vec<u8>,
    /// Followed pairs, then 8 fast ones of each kv head; past the last pair: none.
    pub lists: Vec<u8>,
    /// `[kv head][2 pairs of tiles][high parts, low parts][row][2 RoPE pairs a column]`: cos in both tiles, sin in both, of the fast
    /// pairs at the tiles' tokens: operands of products as they lie.
    pub fast_tiles: Vec<u8>,
    /// `[kv head][72][8]` (cos, sin) of the fast pairs at 64 multiples of 8 tokens, then at 0 to 7 tokens.
    pub fast_turns: Vec<u8>,
}

impl Tables {
    /// Nothing where a centre follows more fast pairs than kernels do.
    pub fn new(centres: &[KeyCentre]) -> Option<Self> {
        let rope = centres.first()?.rope();
        if centres.iter().any(|c| c.fast_pairs().len() > FAST_PAIRS) {
            return None;
        }
        let pair = |centre: &KeyCentre, i: usize| centre.fast_pairs().get(i).copied();
        let followed = rope.followed().iter().map(|p| *p as u32);
        let fast = centres.iter().flat_map(|c| (0..FAST_PAIRS).map(move |i| pair(c, i).map_or(u32::MAX, |p| p as u32)));
        let at = |centre: &KeyCentre, i: usize, tokens| {
            pair(centre, i).map_or([1.0, 0.0], |pair| centre.rope().turn(pair, tokens))
        };
        let tiles = centres.iter().flat_map(|c| {
            (0..4 * 32).flat_map(move |i| {
                let (token, column) = (i / 64 * 16 + i % 32 / 4, i % 4);
                let turns = [token, token + 8].map(|token| [at(c, 2 * column, token), at(c, 2 * column + 1, token)]);
                operands(turns, i / 32 % 2 == 1)
            })
        });
        let tokens = || (0..PARTITION / 8).map(|k| 8 * k).chain(0..8);
        let turns = centres
            .iter()
            .flat_map(|c| tokens().flat_map(move |t| (0..FAST_PAIRS).flat_map(move |i| at(c, i, t).map(|x| x as f32))));
        Some(Tables {
            means: floats(centres.iter().flat_map(KeyCentre::taken)),
            lists: words(followed.chain(fast)),
            fast_tiles: words(tiles),
            fast_turns: floats(turns),
        })
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
