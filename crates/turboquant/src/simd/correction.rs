//! The mean correction of centred keys' logits, over one partition (see [`crate::correction_tables`] for C and D).
//!
//! C and D start from exact angles at the partition's start and move to the middles of its 16 intervals of 32 tokens by
//! constant angles, one interval a lane. Around a middle each approximated pair is a quadratic, and all of them are
//! summed into one; a high-frequency pair is two products a token, even and odd in the distance u from the middle, so
//! that both halves of an interval share them.
use super::Simd;
use super::scores::SUM_BLOCK;
use crate::correction_tables::{INTERVAL, INTERVALS, LowFrequency, QUADRATIC, Start, VeryLowFrequency};
use crate::key_transform::CorrectionQuery;
use crate::layout::SPAN;
use crate::layout::STRIP;

/// A head's correction in a partition, rows of one value an interval: the quadratic's three coefficients, then C and D
/// of each high-frequency pair at the intervals' middles.
pub(crate) type CorrectionState = [[f32; INTERVALS]];

/// One head of a quad.
#[derive(Clone, Copy)]
pub(crate) struct CorrectionHead<'a> {
    pub query: &'a CorrectionQuery,
    pub state: &'a CorrectionState,
    /// What the logit of position 0 lacks beyond the rest.
    pub first: f32,
}

/// A quad's heads over one span; they may belong to different queries.
pub(crate) struct CorrectionSpan<'a> {
    /// Span of the partition.
    pub span: usize,
    /// Strips that are visible.
    pub first: usize,
    pub last: usize,
    /// Whether its first token is at position 0.
    pub starts_sequence: bool,
    /// `None`: nothing is missing.
    pub heads: &'a [Option<CorrectionHead<'a>>],
}

/// Distances of an interval's second half of tokens from its middle, and their squares.
const U: [[f32; 16]; 2] = powers(1.0, 0.5);
/// Distances of the intervals' middles from the partition's, and their squares.
const INTERVAL_U: [[f32; 16]; 2] =
    powers(INTERVAL as f32, -((INTERVALS / 2) as f32) * INTERVAL as f32 + INTERVAL as f32 / 2.0);

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
pub(super) fn prepare<S: Simd>(s: S, query: &CorrectionQuery, position: usize, states: &mut CorrectionState) {
    let (transform, len) = (&query.transform, query.state_len());
    for (g, state) in states.chunks_exact_mut(len).enumerate() {
        prepare_quadratic(s, query, g, position, state);
    }
    let approximated = transform.tables().approximated().len().div_ceil(16);
    for (i, pairs) in transform.high_pairs().chunks(16).enumerate() {
        let mut start: Start = [[0.0; 16]; 2];
        for (lane, pair) in pairs.iter().enumerate() {
            let [cos, sin] = transform.tables().start_of(*pair, position);
            (start[0][lane], start[1][lane]) = (cos, sin);
        }
        for (g, state) in states.chunks_exact_mut(len).enumerate() {
            let (a, b) = query.head(g);
            let [c, d] = phases(s, &a[approximated + i], &b[approximated + i], &start);
            let rows = state[QUADRATIC..].as_chunks_mut::<2>().0[i * 16..].iter_mut();
            for ((high, [at_c, at_d]), (c, d)) in transform.high()[i * 16..].iter().zip(rows).zip(c.iter().zip(&d)) {
                let (cos, sin) = (s.load(&high.middles[0]), s.load(&high.middles[1]));
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

/// Sums the approximated pairs' quadratics of head `g`.
#[inline(always)]
fn prepare_quadratic<S: Simd>(s: S, query: &CorrectionQuery, g: usize, position: usize, out: &mut CorrectionState) {
    let tables = query.transform.tables();
    let (very_low, (a, b)) = (tables.very_low(), query.head(g));
    let (mut whole, mut of_c, mut of_d) =
        ([s.splat(0.0); QUADRATIC], [s.splat(0.0); QUADRATIC], [s.splat(0.0); QUADRATIC]);
    for chunk in 0..tables.approximated().len().div_ceil(16) {
        let [c, d] = phases(s, &a[chunk], &b[chunk], &tables.start(chunk, position));
        if let Some(VeryLowFrequency(quadratics)) = tables.very_low_quadratics().get(chunk) {
            // Lanes beyond the last such pair have zero coefficients.
            let (c, d) = (s.load(&c), s.load(&d));
            for k in 0..QUADRATIC {
                whole[k] = s.fma(c, s.load(&quadratics[k][0]), s.fma(d, s.load(&quadratics[k][1]), whole[k]));
            }
        }
        // The chunk's first low-frequency pair; a chunk of very-low-frequency pairs alone has none.
        let first = very_low.clamp(chunk * 16, (chunk + 1) * 16);
        let low = tables.low_quadratics().get(first.saturating_sub(very_low)..).unwrap_or(&[]).iter();
        for (LowFrequency(quadratics), (c, d)) in low.zip(c.iter().zip(&d).skip(first - chunk * 16)) {
            let (c, d) = (s.splat(*c), s.splat(*d));
            for k in 0..QUADRATIC {
                of_c[k] = s.fma(c, s.load(&quadratics[k][0]), of_c[k]);
                of_d[k] = s.fma(d, s.load(&quadratics[k][1]), of_d[k]);
            }
        }
    }
    // The whole partition's quadratic, moved from its middle to the intervals'.
    let [q0, q1, q2] = [s.splat(s.sum(whole[0])), s.splat(s.sum(whole[1])), s.splat(s.sum(whole[2]))];
    let (u, u2) = (s.load(&INTERVAL_U[0]), s.load(&INTERVAL_U[1]));
    let moved = [s.fma(q2, u2, s.fma(q1, u, q0)), s.fma(s.add(q2, q2), u, q1), q2];
    for k in 0..QUADRATIC {
        s.store(&mut out[k], s.add(moved[k], s.add(of_c[k], of_d[k])));
    }
}

/// Adds the mean correction to the logits of a span.
#[inline(always)]
pub(super) fn add<S: Simd>(s: S, span: &CorrectionSpan<'_>, out: &mut [[f32; SPAN]; super::QUAD]) {
    let shared = match span.heads.first() {
        Some(Some(head)) => {
            let same = |other: &CorrectionHead<'_>| other.query.transform.same(&head.query.transform);
            span.heads.iter().all(|other| other.as_ref().is_some_and(same))
        }
        _ => false,
    };
    match span.heads {
        [Some(a), Some(b), Some(c), Some(d)] if shared => add_heads::<S, 4>(s, span, [*a, *b, *c, *d], out),
        [Some(a), Some(b), Some(c)] if shared => add_heads::<S, 3>(s, span, [*a, *b, *c], out),
        [Some(a), Some(b)] if shared => add_heads::<S, 2>(s, span, [*a, *b], out),
        heads => {
            for (head, out) in heads.iter().zip(out.iter_mut()) {
                if let Some(head) = head {
                    add_heads::<S, 1>(s, span, [*head], std::slice::from_mut(out));
                }
            }
        }
    }
    if span.starts_sequence {
        for (head, out) in span.heads.iter().zip(out) {
            out[0] += head.map_or(0.0, |head| head.first);
        }
    }
}

/// Heads of one kv head.
#[inline(always)]
fn add_heads<S: Simd, const H: usize>(
    s: S,
    span: &CorrectionSpan<'_>,
    heads: [CorrectionHead<'_>; H],
    out: &mut [[f32; SPAN]],
) {
    let high = heads[0].query.transform.high();
    let mut rows: [&[[[f32; INTERVALS]; 2]]; H] = [&[]; H];
    for h in 0..H {
        rows[h] = &heads[h].state[QUADRATIC..].as_chunks().0[..high.len()];
    }
    let (u, u2) = (s.load(&U[0]), s.load(&U[1]));
    for interval in span.first / 2..span.last.div_ceil(2) {
        let at = (span.span * (SPAN / INTERVAL) + interval) % INTERVALS;
        let (mut even, mut odd) = ([s.splat(0.0); H], [s.splat(0.0); H]);
        for h in 0..H {
            let state = heads[h].state;
            even[h] = s.fma(s.splat(state[2][at]), u2, s.splat(state[0][at]));
            odd[h] = s.mul(s.splat(state[1][at]), u);
        }
        // Sums of short sums: a correction can be far larger than what is stored, and one long sum would round that
        // away.
        for first in (0..high.len()).step_by(SUM_BLOCK) {
            let (mut sum, mut difference) = ([s.splat(0.0); H], [s.splat(0.0); H]);
            for i in first..high.len().min(first + SUM_BLOCK) {
                let [cos, sin] = &high[i].halves;
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
            let before = s.add(s.load(&strips[2 * interval]), s.reverse(s.sub(even[h], odd[h])));
            s.store(&mut strips[2 * interval], before);
            let after = s.add(s.load(&strips[2 * interval + 1]), s.add(even[h], odd[h]));
            s.store(&mut strips[2 * interval + 1], after);
        }
    }
}
