//! The rotary embedding as centring needs it: exact turns, and the tables by which attention follows them.
use crate::attend::PARTITION;
use crate::centre::CentreError;
use std::f64::consts::TAU;
use std::sync::Arc;

/// Pairs that turn by at most this angle (radians) a token are centred always, and followed by a parabola over the tokens of
/// a block of 32.
pub const SLOW_PAIR: f32 = 0.05;
/// Pairs that turn by at most this angle are followed by one parabola over a whole partition; its error is below that of the
/// fastest slow pair over a block.
const STILL_PAIR: f64 = 0.003;
/// Tokens of a block of the tables, and blocks of a partition.
pub(crate) const FOLLOW: usize = 32;
pub(crate) const BLOCKS: usize = PARTITION / FOLLOW;

/// Radix of the angle tables: a position is split into digits base 64, and the last table ends at 64³ tokens.
const RADIX: usize = 64;
const DIGITS: usize = 3;

/// Which two elements of a head RoPE turns together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pairing {
    /// Elements i and i + n of the first 2n ("neox", Llama and Qwen in their published layout).
    HalfSplit,
    /// Elements 2i and 2i + 1.
    Interleaved,
}

/// The rotary embedding of a model: frequencies and pairing. Cheap to clone; shared by all layers and kv heads.
#[derive(Clone, Debug)]
pub struct Rope {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    head_dim: usize,
    pairing: Pairing,
    /// Radians a token of each pair: the model's f32, scaling included.
    theta: Vec<f64>,
    /// (cos, sin) of theta * digit * 64^level, `[level][digit][pair]`.
    turns: Vec<[f64; 2]>,
    /// (cos, sin) at the start of each partition of the tables' range: of the followed pairs, 16 each, and of all pairs.
    starts: Vec<Start>,
    all_starts: Vec<[f32; 2]>,
    /// Still pairs, then slow ones.
    followed: Vec<usize>,
    still: usize,
    fast: Vec<usize>,
    follow_still: Vec<FollowStill>,
    follow_slow: Vec<FollowSlow>,
}

/// (cos, sin) of 16 pairs.
pub(crate) type Start = [[f32; 16]; 2];

/// How attention follows a slow pair inside a partition: coefficients of the parabolas around the blocks' middles, one block a
/// lane, that 1 of cos or of sin at the partition's start gives. `[coefficient][of C, of D]`.
#[derive(Clone, Debug)]
pub(crate) struct FollowSlow(pub [[[f32; BLOCKS]; 2]; 3]);

/// The same of 16 still pairs, one pair a lane: the one parabola around the partition's middle.
#[derive(Clone, Debug)]
pub(crate) struct FollowStill(pub [[[f32; 16]; 2]; 3]);

/// How attention follows a fast pair: (cos, sin) of theta times the distance of the blocks' middles from the partition's start,
/// and of theta times .5, 1.5 .. 15.5: the second half of a block, from its middle.
#[derive(Clone, Debug)]
pub(crate) struct FollowFast {
    pub middles: [[f32; BLOCKS]; 2],
    pub halves: [[f32; FOLLOW / 2]; 2],
}

impl Rope {
    /// `frequencies`: radians a token of each pair, in f32 as the model uses them. Fewer than head_dim / 2 leave the last
    /// elements of a head unrotated. Attention follows slow pairs by parabolas, which suits coded keys: their own error is larger.
    pub fn new(head_dim: usize, frequencies: &[f32], pairing: Pairing) -> Result<Rope, CentreError> {
        Self::following(head_dim, frequencies, pairing, SLOW_PAIR)
    }

    /// The same, but attention takes every pair exactly (to f32), which keys stored as floats need: their own error is smaller than
    /// a parabola's. It costs two products a pair and key.
    pub fn exact(head_dim: usize, frequencies: &[f32], pairing: Pairing) -> Result<Rope, CentreError> {
        // No frequency is below zero, so no pair is slow.
        Self::following(head_dim, frequencies, pairing, -1.0)
    }

    /// Pairs of at most `slow` radians a token are followed by parabolas.
    fn following(head_dim: usize, frequencies: &[f32], pairing: Pairing, slow: f32) -> Result<Rope, CentreError> {
        if frequencies.len() > head_dim / 2 {
            return Err(CentreError::Frequencies { frequencies: frequencies.len(), head_dim });
        }
        let allowed = 0.0..=std::f32::consts::PI;
        if let Some((index, value)) = frequencies.iter().enumerate().find(|(_, f)| !allowed.contains(*f)) {
            return Err(CentreError::Frequency { index, value: *value });
        }
        let theta: Vec<f64> = frequencies.iter().map(|f| f64::from(*f)).collect();
        let digits = (0..DIGITS).flat_map(|level| (0..RADIX).map(move |digit| digit * RADIX.pow(level as u32)));
        let turns = digits.flat_map(|tokens| theta.iter().map(move |theta| turn(*theta, tokens as f64))).collect();
        let (slow, fast): (Vec<usize>, _) = (0..theta.len()).partition(|pair| frequencies[*pair] <= slow);
        let (still, slow) = slow.into_iter().partition(|pair| theta[*pair] <= STILL_PAIR);
        let (still, slow): (Vec<usize>, Vec<usize>) = (still, slow);
        let follow_still = still.chunks(16).map(|pairs| follow_still(pairs, &theta)).collect();
        let follow_slow = slow.iter().map(|pair| follow_slow(theta[*pair])).collect();
        let followed = [&still[..], &slow].concat();
        let (starts, all_starts, still) = (Vec::new(), Vec::new(), still.len());
        let mut inner = Inner {
            head_dim,
            pairing,
            theta,
            turns,
            starts,
            all_starts,
            followed,
            still,
            fast,
            follow_still,
            follow_slow,
        };
        for position in (0..RADIX.pow(DIGITS as u32)).step_by(PARTITION) {
            let starts: Vec<Start> = inner.followed.chunks(16).map(|pairs| inner.start(pairs, position)).collect();
            let turns = (0..inner.theta.len()).map(|pair| inner.turn(pair, position).map(|x| x as f32));
            let turns: Vec<[f32; 2]> = turns.collect();
            inner.starts.extend(starts);
            inner.all_starts.extend(turns);
        }
        Ok(Rope { inner: Arc::new(inner) })
    }

    pub fn head_dim(&self) -> usize {
        self.inner.head_dim
    }

    /// Number of pairs that turn.
    pub fn pairs(&self) -> usize {
        self.inner.theta.len()
    }

    /// Elements of pair `pair`.
    pub(crate) fn elements(&self, pair: usize) -> (usize, usize) {
        match self.inner.pairing {
            Pairing::HalfSplit => (pair, pair + self.pairs()),
            Pairing::Interleaved => (2 * pair, 2 * pair + 1),
        }
    }

    /// Radians a token.
    pub fn frequency(&self, pair: usize) -> f64 {
        self.inner.theta[pair]
    }

    pub fn pairing(&self) -> Pairing {
        self.inner.pairing
    }

    /// (cos, sin) of position * theta.
    #[inline(always)]
    pub fn turn(&self, pair: usize, position: usize) -> [f64; 2] {
        self.inner.turn(pair, position)
    }

    /// (cos, sin) of 16 followed pairs at `position`; read from a table at the start of a partition.
    #[inline(always)]
    pub(crate) fn start(&self, chunk: usize, position: usize) -> Start {
        let inner = &*self.inner;
        let chunks = inner.followed.len().div_ceil(16);
        let tabled = inner.starts.get(position / PARTITION * chunks + chunk);
        match tabled.filter(|_| position.is_multiple_of(PARTITION)) {
            Some(start) => *start,
            None => inner.start(inner.followed.chunks(16).nth(chunk).unwrap_or(&[]), position),
        }
    }

    /// (cos, sin) of one pair at `position`, likewise.
    #[inline(always)]
    pub(crate) fn start_of(&self, pair: usize, position: usize) -> [f32; 2] {
        let tabled = self.inner.all_starts.get(position / PARTITION * self.pairs() + pair);
        match tabled.filter(|_| position.is_multiple_of(PARTITION)) {
            Some(start) => *start,
            None => self.turn(pair, position).map(|x| x as f32),
        }
    }

    /// Pairs that are followed by parabolas, the still ones first.
    pub fn followed(&self) -> &[usize] {
        &self.inner.followed
    }

    /// How many of the followed pairs, the first ones, turn so slowly that one parabola serves a whole partition.
    pub fn still(&self) -> usize {
        self.inner.still
    }

    pub(crate) fn fast(&self) -> &[usize] {
        &self.inner.fast
    }

    /// Coefficients `[1, u, u²][of cos, of sin]` of the parabola around the middle of a partition that 1 of cos or of sin at its
    /// start gives, for the `index`-th followed pair, a still one.
    pub fn still_parabola(&self, index: usize) -> [[f32; 2]; 3] {
        let FollowStill(lanes) = &self.inner.follow_still[index / 16];
        lanes.map(|of| of.map(|lanes| lanes[index % 16]))
    }

    /// The same around the middle of block `block` of 32 tokens, for the `index`-th followed pair, not a still one.
    pub fn slow_parabola(&self, index: usize, block: usize) -> [[f32; 2]; 3] {
        let FollowSlow(blocks) = &self.inner.follow_slow[index - self.inner.still];
        blocks.map(|of| of.map(|blocks| blocks[block]))
    }

    /// Of the slow pairs, in order.
    pub(crate) fn follow_slow(&self) -> &[FollowSlow] {
        &self.inner.follow_slow
    }

    /// Of the still pairs, in order, 16 each.
    pub(crate) fn follow_still(&self) -> &[FollowStill] {
        &self.inner.follow_still
    }

    pub(crate) fn follow_fast(&self, pair: usize) -> FollowFast {
        let theta = self.inner.theta[pair];
        let turns = |tokens: [f64; 16]| {
            let both = tokens.map(|tokens| turn(theta, tokens));
            [0, 1].map(|k| both.map(|t| t[k] as f32))
        };
        FollowFast { middles: turns(middles()), halves: turns(std::array::from_fn(|u| u as f64 + 0.5)) }
    }
}

impl Inner {
    fn start(&self, pairs: &[usize], position: usize) -> Start {
        let mut start = [[0.0; 16]; 2];
        for (lane, pair) in pairs.iter().enumerate() {
            let [cos, sin] = self.turn(*pair, position);
            (start[0][lane], start[1][lane]) = (cos as f32, sin as f32);
        }
        start
    }

    /// Products of the turns of the position's digits: the same numbers on every path, to about 1e-15.
    #[inline(always)]
    fn turn(&self, pair: usize, position: usize) -> [f64; 2] {
        let n = self.theta.len();
        let high = position / (RADIX * RADIX);
        let mut t = match high {
            0..RADIX => self.turns[(2 * RADIX + high) * n + pair],
            _ => turn(self.theta[pair], (high * RADIX * RADIX) as f64),
        };
        for (level, digit) in [(1, position / RADIX % RADIX), (0, position % RADIX)] {
            let [c, s] = self.turns[(level * RADIX + digit) * n + pair];
            t = [t[0] * c - t[1] * s, t[1] * c + t[0] * s];
        }
        t
    }
}

fn turn(theta: f64, tokens: f64) -> [f64; 2] {
    let angle = (theta * tokens) % TAU;
    [angle.cos(), angle.sin()]
}

/// Distances of the blocks' middles from the partition's start.
fn middles() -> [f64; BLOCKS] {
    std::array::from_fn(|i| (i * FOLLOW) as f64 + (FOLLOW - 1) as f64 / 2.0)
}

/// With C, D at the partition's start, moving on by u makes C' = C cos + D sin and D' = D cos - C sin; the parabola is
/// fit[0] C' + fit[1] D' u + fit[2] C' u².
fn coefficients(fit: [f32; 3], [cos, sin]: [f64; 2]) -> [[f32; 2]; 3] {
    let of = [[cos, sin], [-sin, cos], [cos, sin]];
    [0, 1, 2].map(|k| of[k].map(|x| (f64::from(fit[k]) * x) as f32))
}

fn follow_slow(theta: f64) -> FollowSlow {
    let fit = parabola(theta, FOLLOW);
    let blocks = middles().map(|tokens| coefficients(fit, turn(theta, tokens)));
    FollowSlow([0, 1, 2].map(|k| [0, 1].map(|of| blocks.map(|block| block[k][of]))))
}

fn follow_still(pairs: &[usize], theta: &[f64]) -> FollowStill {
    let mut lanes = [[[0.0; 2]; 3]; 16];
    for (lane, pair) in lanes.iter_mut().zip(pairs) {
        let theta = theta[*pair];
        *lane = coefficients(parabola(theta, PARTITION), turn(theta, (PARTITION - 1) as f64 / 2.0));
    }
    FollowStill([0, 1, 2].map(|k| [0, 1].map(|of| lanes.map(|lane| lane[k][of]))))
}

/// Least-squares fit over `tokens` tokens around a middle: cos(theta u) by a0 + a2 u², sin(theta u) by a1 u. Its largest
/// error is a quarter of the Taylor parabola's.
fn parabola(theta: f64, tokens: usize) -> [f32; 3] {
    let us = || (0..tokens / 2).map(|i| i as f64 + 0.5);
    let sum = |f: &dyn Fn(f64) -> f64| us().map(f).sum::<f64>();
    let (m0, m2, m4) = (sum(&|_| 1.0), sum(&|u| u * u), sum(&|u| u.powi(4)));
    let (c0, c2) = (sum(&|u| (theta * u).cos()), sum(&|u| u * u * (theta * u).cos()));
    let determinant = m0 * m4 - m2 * m2;
    let (a0, a2) = ((c0 * m4 - c2 * m2) / determinant, (c2 * m0 - c0 * m2) / determinant);
    [a0, sum(&|u| u * (theta * u).sin()) / m2, a2].map(|a| a as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_exact() {
        let frequencies = [1.0, 0.31, 0.05, 1e-3, 2.1e-7];
        let rope = Rope::new(64, &frequencies, Pairing::Interleaved).unwrap();
        for position in [0, 1, 63, 64, 4095, 4096, 131_071, 262_143, 262_144, 1_000_003] {
            for (pair, f) in frequencies.iter().enumerate() {
                let angle = f64::from(*f) * position as f64;
                let [c, s] = rope.turn(pair, position);
                assert!((c - angle.cos()).abs() < 1e-9 && (s - angle.sin()).abs() < 1e-9, "{f} {position}");
            }
        }
    }

    /// The bounds that `KeyCentre` documents, per unit of amplitude: a slow pair's parabola over 32 tokens, a still pair's
    /// over 512.
    #[test]
    fn parabolas_follow_their_pairs() {
        for (theta, tokens) in [(f64::from(SLOW_PAIR), FOLLOW), (STILL_PAIR, PARTITION)] {
            let [a0, a1, a2] = parabola(theta, tokens).map(f64::from);
            let error = |u: f64| {
                let (even, odd) = (a0 + a2 * u * u - (theta * u).cos(), a1 * u - (theta * u).sin());
                even.hypot(odd)
            };
            let largest = (0..tokens / 2).map(|i| error(i as f64 + 0.5)).fold(0.0, f64::max);
            assert!(largest < 0.03, "{theta}: {largest}");
        }
    }
}
