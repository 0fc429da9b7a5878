//! What centred keys' logits lack, followed through a partition.
//!
//! A pair with amplitudes (A, B) adds C(t) = A cos(t theta) + B sin(t theta); with D = B cos - A sin, moving on by u tokens is
//! C(t + u) = C cos(u theta) + D sin(u theta). Phases start from exact angles at the partition's start and go to the middles of
//! its 16 blocks of 32 tokens by constant turns, one block a lane. Around a middle, a slow pair is a parabola and all of them
//! are summed into one; a fast pair is two products a token, even and odd in u, so that both halves of a block share them.
use super::Simd;
use crate::attend::TILE;
use crate::centre::CentreQuery;
use crate::layout::STRIP;
use crate::rope::{BLOCKS, FOLLOW};

/// State of a head in a partition, rows of one value a block: the parabola's three coefficients, then C and D of each fast
/// pair at the blocks' middles.
pub(crate) type State = [[f32; BLOCKS]];

/// One head of a chunk.
#[derive(Clone, Copy)]
pub(crate) struct CentreHead<'a> {
    pub query: &'a CentreQuery,
    pub state: &'a State,
}

/// A chunk's heads over one tile; they may belong to different queries.
pub(crate) struct CentreTile<'a> {
    /// Tile of the partition.
    pub tile: usize,
    /// Strips that are visible.
    pub first: usize,
    pub last: usize,
    /// `None`: nothing is missing.
    pub heads: &'a [Option<CentreHead<'a>>],
}

impl CentreTile<'_> {
    /// Rows of a state before those of the fast pairs.
    pub(crate) const PARABOLA: usize = 3;
}

/// Distances of tokens from a block's middle (second half), and their squares; distances of the blocks' middles from the
/// partition's, their squares, and twice the distances.
const U: [[f32; 16]; 2] = powers(1.0, 0.5);
const BLOCK_U: [[f32; 16]; 2] = powers(FOLLOW as f32, -((BLOCKS / 2) as f32) * FOLLOW as f32 + FOLLOW as f32 / 2.0);

const fn powers(step: f32, first: f32) -> [[f32; 16]; 2] {
    let (mut out, mut i) = ([[0.0; 16]; 2], 0);
    while i < 16 {
        out[0][i] = first + step * i as f32;
        out[1][i] = out[0][i] * out[0][i];
        i += 1;
    }
    out
}

/// Fills the state of head `g` for the partition that starts at `position`.
#[inline(always)]
pub(super) fn prepare<S: Simd>(s: S, query: &CentreQuery, g: usize, position: usize, state: &mut State) {
    let (centre, rope) = (&query.centre, query.centre.rope());
    let (slow, still) = (rope.slow().len(), rope.still().len());
    let zero = s.splat(0.0);
    let (mut p0, mut p1, mut p2) = (zero, zero, zero);
    let mut partition = [0f32; 3];
    let pairs = centre.pairs().iter().zip(query.head(g));
    for (i, (pair, [a, b])) in pairs.enumerate() {
        let [cos, sin] = rope.start(*pair, position);
        let (c, d) = (a * cos + b * sin, b * cos - a * sin);
        let follow = rope.follow(*pair);
        if i >= slow && i < slow + still {
            let [cos, sin] = follow.still_middle;
            let (c, d) = (c * cos + d * sin, d * cos - c * sin);
            partition[0] += follow.still_fit[0] * c;
            partition[1] += follow.still_fit[1] * d;
            partition[2] += follow.still_fit[2] * c;
            continue;
        }
        let (cos, sin) = (s.load(&follow.middles[0]), s.load(&follow.middles[1]));
        let (c, d) = (s.splat(c), s.splat(d));
        let at_c = s.fma(d, sin, s.mul(c, cos));
        let at_d = s.sub(s.mul(d, cos), s.mul(c, sin));
        if i < slow {
            p0 = s.fma(s.splat(follow.fit[0]), at_c, p0);
            p1 = s.fma(s.splat(follow.fit[1]), at_d, p1);
            p2 = s.fma(s.splat(follow.fit[2]), at_c, p2);
        } else {
            let row = CentreTile::PARABOLA + 2 * (i - slow - still);
            s.store(&mut state[row], at_c);
            s.store(&mut state[row + 1], at_d);
        }
    }
    // The partition's parabola, taken from its middle to the blocks'.
    let (u, u2) = (s.load(&BLOCK_U[0]), s.load(&BLOCK_U[1]));
    let [q0, q1, q2] = [s.splat(partition[0]), s.splat(partition[1]), s.splat(partition[2])];
    p0 = s.add(p0, s.fma(q2, u2, s.fma(q1, u, q0)));
    p1 = s.add(p1, s.fma(s.add(q2, q2), u, q1));
    s.store(&mut state[0], p0);
    s.store(&mut state[1], p1);
    s.store(&mut state[2], s.add(p2, q2));
}

/// Adds what the logits of a tile lack.
#[inline(always)]
pub(super) fn add<S: Simd>(s: S, tile: &CentreTile<'_>, out: &mut [[f32; TILE]; super::CHUNK]) {
    let shared = match tile.heads.first() {
        Some(Some(head)) => {
            let same = |other: &CentreHead<'_>| other.query.centre.same(&head.query.centre);
            tile.heads.iter().all(|other| other.as_ref().is_some_and(same))
        }
        _ => false,
    };
    match tile.heads {
        [Some(a), Some(b), Some(c), Some(d)] if shared => add_heads::<S, 4>(s, tile, [*a, *b, *c, *d], out),
        [Some(a), Some(b), Some(c)] if shared => add_heads::<S, 3>(s, tile, [*a, *b, *c], out),
        [Some(a), Some(b)] if shared => add_heads::<S, 2>(s, tile, [*a, *b], out),
        heads => {
            for (head, out) in heads.iter().zip(out) {
                if let Some(head) = head {
                    add_heads::<S, 1>(s, tile, [*head], std::slice::from_mut(out));
                }
            }
        }
    }
}

/// Heads of one kv head.
#[inline(always)]
fn add_heads<S: Simd, const H: usize>(s: S, tile: &CentreTile<'_>, heads: [CentreHead<'_>; H], out: &mut [[f32; TILE]]) {
    let centre = &heads[0].query.centre;
    let (fast, rope) = (centre.fast(), centre.rope());
    let (u, u2) = (s.load(&U[0]), s.load(&U[1]));
    for block in tile.first / 2..tile.last.div_ceil(2) {
        let at = tile.tile * (TILE / FOLLOW) + block;
        let (mut even, mut odd) = ([s.splat(0.0); H], [s.splat(0.0); H]);
        for h in 0..H {
            let state = heads[h].state;
            even[h] = s.fma(s.splat(state[2][at]), u2, s.splat(state[0][at]));
            odd[h] = s.mul(s.splat(state[1][at]), u);
        }
        for (i, pair) in fast.iter().enumerate() {
            let [cos, sin] = &rope.follow(*pair).halves;
            let (cos, sin) = (s.load(cos), s.load(sin));
            for h in 0..H {
                let rows = &heads[h].state[CentreTile::PARABOLA + 2 * i..];
                even[h] = s.fma(s.splat(rows[0][at]), cos, even[h]);
                odd[h] = s.fma(s.splat(rows[1][at]), sin, odd[h]);
            }
        }
        for h in 0..H {
            let strips = out[h].as_chunks_mut::<STRIP>().0;
            let before = s.add(s.load(&strips[2 * block]), s.reverse(s.sub(even[h], odd[h])));
            s.store(&mut strips[2 * block], before);
            let after = s.add(s.load(&strips[2 * block + 1]), s.add(even[h], odd[h]));
            s.store(&mut strips[2 * block + 1], after);
        }
    }
}
