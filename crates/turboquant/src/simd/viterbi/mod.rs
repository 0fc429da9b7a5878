//! The encoder of trellis codes: the Viterbi algorithm on a circle.
//!
//! All costs are integers of 16 bits, every operation saturates the same way, and of equal costs the lower level wins,
//! so every instruction set and every device finds the same codes.
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use crate::encode::{LIMIT, norm2};
use crate::format::MAX_HEAD_DIM;
use crate::trellis::{FREE_BIT, MOST_LEVELS, Trellis, TrellisTables, UNIT};
use half::f16;
use std::cell::RefCell;

/// Thirty-two lanes of unsigned 16-bit integers, as the encoder of trellis codes needs them.
pub(crate) trait Costs: Copy {
    /// A cost a lane.
    type C: Copy;

    fn costs(self, p: &[u16; 32]) -> Self::C;
    fn store_costs(self, p: &mut [u16; 32], x: Self::C);
    fn splat_cost(self, x: u16) -> Self::C;
    /// Lane i holds what lane i ^ `y` held; y < 16.
    fn xor_lanes(self, x: Self::C, y: usize) -> Self::C;
    /// Lane 16 s + c holds what lane 2 c + s held.
    fn unzip(self, x: Self::C) -> Self::C;
    /// Lane 4 s + c of 64 holds what lane 16 c + s held.
    fn zip(self, x: [Self::C; 2]) -> [Self::C; 2];
    /// The square of twice the difference of two i16, in units of 2^15: with `d = min(2 min(|x - v|, 32767), 32767)`,
    /// `(d² + 2^14) >> 15`.
    fn distance(self, x: Self::C, v: Self::C) -> Self::C;
    /// x + y, or 65535 if that is less.
    fn add_costs(self, x: Self::C, y: Self::C) -> Self::C;
    /// x - y, or 0 if that is more.
    fn sub_costs(self, x: Self::C, y: Self::C) -> Self::C;
    /// The smaller of `best` and `cost`, and beside it `best_edge` or, where `cost` is smaller, `edge`.
    fn better(self, best: Self::C, best_edge: Self::C, cost: Self::C, edge: Self::C) -> (Self::C, Self::C);
    /// x + 1 where v is at least `limit`, both i16, else x.
    fn count(self, x: Self::C, v: Self::C, limit: Self::C) -> Self::C;
    fn min_cost(self, x: Self::C) -> u16;
}

/// Levels that an element is tried on: those nearest to it. With 3 the error is 1 % larger, with all it is not smaller.
const TRIED: usize = 4;
/// Elements of the circle that are run through before its first element and again behind its last one, to find the
/// state between them. With 16 the error is 1 % larger, with 40 a quarter of a percent smaller.
const AROUND: usize = 24;
/// After so many elements the smallest cost is subtracted from all, so that costs stay within 16 bits.
const RENORMALISE: usize = 8;

/// Codes of the rotated vector `z`, and its scale, |z| over the length of the codes' values.
#[inline(always)]
pub(in crate::simd) fn encode<S: Costs>(s: S, trellis: Trellis, z: &[f32], codes: &mut [u8]) -> f16 {
    let norm2 = norm2(z);
    // Also below fp16's smallest scale by far: such vectors are zero.
    if norm2 <= 1e-30 {
        codes.fill(0);
        return f16::ZERO;
    }
    // Taken out and put back: what runs inside a closure would be compiled without the instruction set.
    let mut edges = EDGES.take();
    if edges.len() < 2 * (AROUND + z.len() + AROUND) {
        edges.resize(2 * (AROUND + MAX_HEAD_DIM + AROUND), [0; 32]);
    }
    let mut elements = Elements { x: [0; MAX_HEAD_DIM], nearest: [0; MAX_HEAD_DIM] };
    elements.fill(s, trellis, z, (z.len() as f32 / norm2).sqrt() * UNIT);
    let circle = Circle { s, trellis, d: z.len(), elements: &elements };
    let square = match trellis {
        Trellis::Tc5 | Trellis::Tc4 => circle.run::<1>(&mut edges, codes),
        Trellis::Tc3 | Trellis::Tc2 => circle.run::<2>(&mut edges, codes),
    };
    EDGES.set(edges);
    f16::from_f32((norm2 / (square as f32 / (UNIT * UNIT))).sqrt().min(LIMIT))
}

thread_local! {
    /// The edge along which each state was reached at each element, 32 states a row.
    static EDGES: RefCell<Vec<[u16; 32]>> = const { RefCell::new(Vec::new()) };
}

/// The elements of a vector as the trellis sees them.
struct Elements {
    /// In units of a value, two's complement.
    x: [u16; MAX_HEAD_DIM],
    /// One more than the first of the levels that each is tried on, not limited to those that there are.
    nearest: [u16; MAX_HEAD_DIM],
}

impl Elements {
    #[inline(always)]
    fn fill<S: Costs>(&mut self, s: S, trellis: Trellis, z: &[f32], factor: f32) {
        for (x, z) in self.x.as_chunks_mut::<16>().0.iter_mut().zip(z.as_chunks::<16>().0) {
            for i in 0..16 {
                x[i] = (z[i] * factor).round_ties_even().clamp(-32000.0, 32000.0) as i16 as u16;
            }
        }
        let middles = &trellis.tables().middles[1..trellis.levels()];
        for (nearest, x) in self.nearest[..z.len().next_multiple_of(32)]
            .as_chunks_mut::<32>()
            .0
            .iter_mut()
            .zip(self.x.as_chunks::<32>().0)
        {
            let (x, mut count) = (s.costs(x), s.splat_cost(0));
            for middle in middles {
                count = s.count(count, x, s.splat_cost(*middle as u16));
            }
            s.store_costs(nearest, count);
        }
    }
}

/// The elements of a vector as a circle.
struct Circle<'a, S> {
    s: S,
    trellis: Trellis,
    /// Elements of the vector.
    d: usize,
    elements: &'a Elements,
}

impl<S: Costs> Circle<'_, S> {
    /// Chooses the codes of the best path among those that are closed: that end in the state in which they began. There
    /// are `ROWS` of 32 states. Returns the sum of the squares of the values, in units of 1 / [`UNIT`] squared.
    #[inline(always)]
    fn run<const ROWS: usize>(&self, edges: &mut [[u16; 32]], codes: &mut [u8]) -> i64 {
        let d = self.d;
        let any = [self.s.splat_cost(0); 2];
        let costs = self.forward::<ROWS>(d - AROUND % d, AROUND + d + AROUND, any, edges);
        let (own, behind) = edges[AROUND * ROWS..].split_at(d * ROWS);
        let (after, _) = self.back::<ROWS>(self.smallest::<ROWS>(costs), &behind[..AROUND * ROWS], &mut [0; AROUND]);
        let (before, square) = self.back::<ROWS>(after, own, codes);
        if before == after {
            return square;
        }
        // A third of all paths are not closed. Of those that end in the state before the first element the best nearly
        // always begins in it.
        let (first, square) = self.back::<ROWS>(before, own, codes);
        if first == before {
            return square;
        }
        let mut start = [[u16::MAX / 2; 32]; 2];
        start[before / 32][before % 32] = 0;
        self.forward::<ROWS>(0, d, [self.s.costs(&start[0]), self.s.costs(&start[1])], edges);
        self.back::<ROWS>(before, &edges[..d * ROWS], codes).1
    }

    /// Runs through `count` elements of the circle from `first` on; writes the edge along which each state was reached.
    #[inline(always)]
    fn forward<const ROWS: usize>(
        &self,
        first: usize,
        count: usize,
        costs: [S::C; 2],
        edges: &mut [[u16; 32]],
    ) -> [S::C; 2] {
        let (s, d) = (self.s, self.d);
        let TrellisTables { levels: values, edges: known, .. } = self.trellis.tables();
        let chained = (1 << self.trellis.chained()) - 1;
        // Not above what the tables have, which saves checks.
        let last = (self.trellis.levels() - TRIED).min(MOST_LEVELS - TRIED);
        // Rows by name: in an array that a loop indexes they would not stay in registers.
        let [mut a, mut b] = costs;
        let mut at = first % d;
        for (i, edges) in edges.as_chunks_mut::<ROWS>().0.iter_mut().enumerate().take(count) {
            let x = s.splat_cost(self.elements.x[at]);
            let low = usize::from(self.elements.nearest[at].saturating_sub(1)).min(last);
            at = if at + 1 == d { 0 } else { at + 1 };
            [a, b] = if ROWS == 1 { [s.unzip(a), b] } else { s.zip([a, b]) };
            let y = low & chained;
            let [mut edge_a, mut edge_b] = [s.costs(&known[low][0]), s.costs(&known[low][1])];
            let distance = s.distance(x, s.costs(&values[low]));
            let mut best_a = s.add_costs(s.xor_lanes(a, y), distance);
            let mut best_b = best_a;
            if ROWS == 2 {
                best_b = s.add_costs(s.xor_lanes(b, y), distance);
            }
            for level in low + 1..low + TRIED {
                let (y, known) = (level & chained, &known[level % MOST_LEVELS]);
                let distance = s.distance(x, s.costs(&values[level % MOST_LEVELS]));
                let cost = s.add_costs(s.xor_lanes(a, y), distance);
                (best_a, edge_a) = s.better(best_a, edge_a, cost, s.costs(&known[0]));
                if ROWS == 2 {
                    let cost = s.add_costs(s.xor_lanes(b, y), distance);
                    (best_b, edge_b) = s.better(best_b, edge_b, cost, s.costs(&known[1]));
                }
            }
            s.store_costs(&mut edges[0], edge_a);
            if ROWS == 2 {
                s.store_costs(&mut edges[1], edge_b);
            }
            (a, b) = (best_a, best_b);
            if i % RENORMALISE == RENORMALISE - 1 {
                let least = s.splat_cost(s.min_cost(a).min(s.min_cost(b)));
                (a, b) = (s.sub_costs(a, least), s.sub_costs(b, least));
            }
        }
        [a, b]
    }

    /// The state of the smallest cost, the lowest of equals.
    #[inline(always)]
    fn smallest<const ROWS: usize>(&self, costs: [S::C; 2]) -> usize {
        let mut rows = [[0; 32]; 2];
        self.s.store_costs(&mut rows[0], costs[0]);
        self.s.store_costs(&mut rows[1], costs[1]);
        let costs = rows.as_flattened();
        let mut state = 0;
        for i in 1..32 * ROWS {
            state = if costs[i] < costs[state] { i } else { state };
        }
        state
    }

    /// Goes the best path to `state` back through some elements, of which `edges` has the rows; returns the state
    /// before them and the sum of the squares of their values.
    #[inline(always)]
    fn back<const ROWS: usize>(&self, mut state: usize, edges: &[[u16; 32]], codes: &mut [u8]) -> (usize, i64) {
        let (integers, mut square) = (&self.trellis.tables().integers, 0);
        for (edges, code) in edges.as_chunks::<ROWS>().0.iter().zip(codes).rev() {
            let edge = usize::from(edges.as_flattened()[state]);
            let point;
            (*code, point) = self.trellis.element(state, edge);
            square += i64::from(integers[point]).pow(2);
            state = edge & ((1 << FREE_BIT) - 1);
        }
        (state, square)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::portable::{BYTES, Portable};
    use crate::trellis::tests::{Golden, goldens};

    /// Few levels, integer costs and a path closed by a guess cost at most 4 % over the best closed path of all (over
    /// many vectors of 64 elements 1 to 2 %, less where there are more elements).
    #[test]
    fn codes_are_nearly_those_of_the_best_path() {
        for trellis in [Trellis::Tc5, Trellis::Tc4, Trellis::Tc3, Trellis::Tc2] {
            let (mut own, mut best) = (0.0, 0.0);
            for Golden { vector, codes, .. } in goldens().into_iter().filter(|golden| golden.trellis == trellis) {
                let error = |codes: &[u8]| {
                    let mut error = 0.0;
                    trellis.each_point(codes, |i, point| error += (vector[i] - trellis.tables().values[point]).powi(2));
                    error
                };
                let mut found = vec![0; vector.len()];
                encode(Portable::<BYTES>, trellis, &vector, &mut found);
                (own, best) = (own + error(&found), best + error(&codes));
            }
            assert!(own < 1.04 * best, "{trellis:?}: {own} for {best}");
        }
    }
}
