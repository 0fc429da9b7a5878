//! What centred keys' logits lack, followed through a partition.
//!
//! A pair with amplitudes (A, B) adds C(t) = A cos(t theta) + B sin(t theta); with D = B cos - A sin, moving on by u tokens is
//! C(t + u) = C cos(u theta) + D sin(u theta). Phases start from exact angles at the partition's start and go to the middles of
//! its 16 blocks of 32 tokens by constant turns, one block a lane. Around a middle, a slow pair is a parabola and all of them
//! are summed into one; a fast pair is two products a token, even and odd in u, so that both halves of a block share them.
use super::Simd;
use super::scores::SUM_BLOCK;
use crate::attend::TILE;
use crate::centre::CentreQuery;
use crate::layout::STRIP;
use crate::rope::{BLOCKS, FOLLOW, FollowSlow, FollowStill, Start};

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

/// Rows of a state before those of the fast pairs.
pub(crate) const PARABOLA: usize = 3;

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

/// Fills the states of a query's heads, one after the other, for the partition that starts at `position`.
#[inline(always)]
pub(super) fn prepare<S: Simd>(s: S, query: &CentreQuery, position: usize, states: &mut State) {
    let (centre, len) = (&query.centre, query.state_len());
    for (g, state) in states.chunks_exact_mut(len).enumerate() {
        prepare_parabola(s, query, g, position, state);
    }
    let followed = centre.rope().followed().len().div_ceil(16);
    for (i, pairs) in centre.fast_pairs().chunks(16).enumerate() {
        let mut start: Start = [[0.0; 16]; 2];
        for (lane, pair) in pairs.iter().enumerate() {
            let [cos, sin] = centre.rope().start_of(*pair, position);
            (start[0][lane], start[1][lane]) = (cos, sin);
        }
        for (g, state) in states.chunks_exact_mut(len).enumerate() {
            let (a, b) = query.head(g);
            let [c, d] = phases(s, &a[followed + i], &b[followed + i], &start);
            let rows = state[PARABOLA..].as_chunks_mut::<2>().0[i * 16..].iter_mut();
            for ((follow, [at_c, at_d]), (c, d)) in centre.fast()[i * 16..].iter().zip(rows).zip(c.iter().zip(&d)) {
                let (cos, sin) = (s.load(&follow.middles[0]), s.load(&follow.middles[1]));
                let (c, d) = (s.splat(*c), s.splat(*d));
                s.store(at_c, s.fma(d, sin, s.mul(c, cos)));
                s.store(at_d, s.sub(s.mul(d, cos), s.mul(c, sin)));
            }
        }
    }
}

/// C and D of 16 pairs.
#[inline(always)]
fn phases<S: Simd>(s: S, a: &[f32; 16], b: &[f32; 16], start: &Start) -> Start {
    let (a, b, cos, sin) = (s.load(a), s.load(b), s.load(&start[0]), s.load(&start[1]));
    let mut out = [[0.0; 16]; 2];
    s.store(&mut out[0], s.fma(a, cos, s.mul(b, sin)));
    s.store(&mut out[1], s.sub(s.mul(b, cos), s.mul(a, sin)));
    out
}

/// Sums the followed pairs' parabolas of head `g`.
#[inline(always)]
fn prepare_parabola<S: Simd>(s: S, query: &CentreQuery, g: usize, position: usize, out: &mut State) {
    let rope = query.centre.rope();
    let (still, (a, b)) = (rope.still(), query.head(g));
    let (mut of_still, mut of_c, mut of_d) =
        ([s.splat(0.0); PARABOLA], [s.splat(0.0); PARABOLA], [s.splat(0.0); PARABOLA]);
    for chunk in 0..rope.followed().len().div_ceil(16) {
        let [c, d] = phases(s, &a[chunk], &b[chunk], &rope.start(chunk, position));
        if let Some(FollowStill(follow)) = rope.follow_still().get(chunk) {
            // Lanes beyond the still pairs have zero coefficients.
            let (c, d) = (s.load(&c), s.load(&d));
            for k in 0..PARABOLA {
                of_still[k] = s.fma(c, s.load(&follow[k][0]), s.fma(d, s.load(&follow[k][1]), of_still[k]));
            }
        }
        // The chunk's first slow pair; a chunk of still ones has none.
        let first = still.clamp(chunk * 16, (chunk + 1) * 16);
        let slow = rope.follow_slow().get(first.saturating_sub(still)..).unwrap_or(&[]).iter();
        for (FollowSlow(follow), (c, d)) in slow.zip(c.iter().zip(&d).skip(first - chunk * 16)) {
            let (c, d) = (s.splat(*c), s.splat(*d));
            for k in 0..PARABOLA {
                of_c[k] = s.fma(c, s.load(&follow[k][0]), of_c[k]);
                of_d[k] = s.fma(d, s.load(&follow[k][1]), of_d[k]);
            }
        }
    }
    // The partition's parabola, taken from its middle to the blocks'.
    let [q0, q1, q2] = [s.splat(s.sum(of_still[0])), s.splat(s.sum(of_still[1])), s.splat(s.sum(of_still[2]))];
    let (u, u2) = (s.load(&BLOCK_U[0]), s.load(&BLOCK_U[1]));
    let moved = [s.fma(q2, u2, s.fma(q1, u, q0)), s.fma(s.add(q2, q2), u, q1), q2];
    for k in 0..PARABOLA {
        s.store(&mut out[k], s.add(moved[k], s.add(of_c[k], of_d[k])));
    }
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
fn add_heads<S: Simd, const H: usize>(
    s: S,
    tile: &CentreTile<'_>,
    heads: [CentreHead<'_>; H],
    out: &mut [[f32; TILE]],
) {
    let fast = heads[0].query.centre.fast();
    let mut rows: [&[[[f32; BLOCKS]; 2]]; H] = [&[]; H];
    for h in 0..H {
        rows[h] = &heads[h].state[PARABOLA..].as_chunks().0[..fast.len()];
    }
    let (u, u2) = (s.load(&U[0]), s.load(&U[1]));
    for block in tile.first / 2..tile.last.div_ceil(2) {
        let at = (tile.tile * (TILE / FOLLOW) + block) % BLOCKS;
        let (mut even, mut odd) = ([s.splat(0.0); H], [s.splat(0.0); H]);
        for h in 0..H {
            let state = heads[h].state;
            even[h] = s.fma(s.splat(state[2][at]), u2, s.splat(state[0][at]));
            odd[h] = s.mul(s.splat(state[1][at]), u);
        }
        // Sums of sums: what is missing can be far larger than what is stored, and a long sum would round it away.
        for first in (0..fast.len()).step_by(SUM_BLOCK) {
            let (mut sum, mut difference) = ([s.splat(0.0); H], [s.splat(0.0); H]);
            for i in first..fast.len().min(first + SUM_BLOCK) {
                let [cos, sin] = &fast[i].halves;
                let (cos, sin) = (s.load(cos), s.load(sin));
                for h in 0..H {
                    sum[h] = s.fma(s.splat(rows[h][i][0][at]), cos, sum[h]);
                    difference[h] = s.fma(s.splat(rows[h][i][1][at]), sin, difference[h]);
                }
            }
            for h in 0..H {
                (even[h], odd[h]) = (s.add(even[h], sum[h]), s.add(odd[h], difference[h]));
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
