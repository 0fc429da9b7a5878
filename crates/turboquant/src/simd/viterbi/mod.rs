//! The encoder of trellis codes: the Viterbi algorithm on a circle.
//!
//! All costs are integers of 16 bits. An element is tried on three levels beside each other, numbered from 0 on. The
//! two lowest bits of its distance from a point are the number of the point's level; those of a path's cost are clear.
//! So the least sum of a cost and a distance tells the level too, and of equal sums that of the lowest level is the
//! least. Sums saturate at 65535. Every instruction set and every device therefore finds the same codes.
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use crate::encode::{LIMIT, norm2};
use crate::format::MAX_HEAD_DIM;
use crate::trellis::{MOST_LEVELS, MOST_POINTS, TRIED, Trellis, TrellisTables, UNIT};
use half::f16;
use std::cell::RefCell;

/// Thirty-two lanes of unsigned 16-bit integers, as the encoder of trellis codes needs them. Costs of all states are
/// two rows of lanes; where there are 32 states (`ROWS` is 1), nothing reads the second.
pub(crate) trait Costs: Copy {
    /// A cost a lane.
    type C: Copy;

    fn costs(self, p: &[u16; 32]) -> Self::C;
    /// Lanes i and 16 + i are `p[i]`.
    fn costs_twice(self, p: &[u16; 16]) -> Self::C;
    fn store_costs(self, p: &mut [u16; 32], x: Self::C);
    fn splat_cost(self, x: u16) -> Self::C;
    /// Each pair of lanes is the word x.
    fn splat_twice(self, x: u32) -> Self::C;
    /// The costs of all states are put in an order of the instruction set's own, from which `reach` is quick.
    fn spread<const ROWS: usize>(self, x: [Self::C; 2]) -> [Self::C; 2];
    /// Each state gets the cost of the one before it on `level`, from what `spread` returned. That is the state
    /// `((level ^ state) mod 16) 2 + state / 16` of 32, `((level ^ state) mod 4) 16 + state / 4` of 64.
    fn reach<const ROWS: usize>(self, spread: [Self::C; 2], level: usize) -> [Self::C; 2];
    /// The distance of x and v, and the number of a level: `((d² + 2^14) >> 15) & !3 | number`, where d is x - v modulo
    /// 2^16 as i16, and not -2^15.
    fn distance(self, x: Self::C, v: Self::C, number: Self::C) -> Self::C;
    /// x & !3.
    fn without_number(self, x: Self::C) -> Self::C;
    /// The low byte of each lane is that of `home` ^ `turns[x & 3]`, and the high byte may be anything. `turns` has a
    /// period of four.
    fn before(self, x: Self::C, turns: &[u8; 16], home: Self::C) -> Self::C;
    /// x + y, or 65535 if that is less.
    fn add_costs(self, x: Self::C, y: Self::C) -> Self::C;
    /// x - y, or 0 if that is more.
    fn sub_costs(self, x: Self::C, y: Self::C) -> Self::C;
    fn min_costs(self, x: Self::C, y: Self::C) -> Self::C;
    /// x + 1 where v is at least `limit`, both i16, else x.
    fn count(self, x: Self::C, v: Self::C, limit: Self::C) -> Self::C;
    fn min_cost(self, x: Self::C) -> u16;
}

/// Elements of the circle that are run through before its first element, to find the state between the last and the
/// first. With 24 the error is .4 to .7 % smaller at d = 64, .2 to .3 % at d = 128.
pub(crate) const AROUND: usize = 16;
/// After so many elements the least cost that there was before them is subtracted from all, so that costs stay within
/// 16 bits. The least one after them would keep the next element waiting.
const RENORMALISE: usize = 8;
/// A part of a path is gone back to from so many elements behind it.
const MEETING: usize = 16;
/// The most elements that are run through.
const MOST: usize = AROUND + MAX_HEAD_DIM;

/// Floats of which this is much the largest part are 1 apart.
const ROUNDER: f32 = 1.5 * (1 << 23) as f32;

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
    let mut survivors = SURVIVORS.take();
    if survivors.is_empty() {
        survivors.resize(64 * MOST + 32, 0);
    }
    // From where a cache line begins.
    let start = survivors.as_ptr().align_offset(64);
    let rows = survivors[start..].as_chunks_mut::<32>().0;
    let mut elements = Elements { twice: [0; MOST], low: [0; MOST] };
    elements.fill(s, trellis, z, (z.len() as f32 / norm2).sqrt() * UNIT);
    let circle = Circle { s, trellis, d: z.len(), elements: &elements };
    let square = match trellis {
        Trellis::Tc5 | Trellis::Tc4 => circle.run::<1>(rows, codes),
        Trellis::Tc3 | Trellis::Tc2 => circle.run::<2>(rows, codes),
    };
    SURVIVORS.set(survivors);
    f16::from_f32((norm2 / (square as f32 / (UNIT * UNIT))).sqrt().min(LIMIT))
}

thread_local! {
    /// In the low bytes of 32 lanes a row, the state before each element on the best path to each state after it.
    static SURVIVORS: RefCell<Vec<u16>> = const { RefCell::new(Vec::new()) };
}

/// The elements of a vector as the trellis sees them, the last [`AROUND`] before all.
struct Elements {
    /// Each twice in a word, in the finer units of the trellis, modulo 2^16.
    twice: [u32; MOST],
    /// The first of the levels that each is tried on.
    low: [u16; MOST],
}

impl Elements {
    #[inline(always)]
    fn fill<S: Costs>(&mut self, s: S, trellis: Trellis, z: &[f32], factor: f32) {
        let (tables, limit) = (trellis.tables(), f32::from(trellis.tables().limit));
        let (d, bounds) = (z.len(), &tables.bounds[..trellis.levels() - 1]);
        let mut x = [0; MAX_HEAD_DIM];
        for (x, z) in x.iter_mut().zip(z) {
            // The sum's lowest bits are the nearest integer, of two the even one, in two's complement.
            *x = ((z * factor).clamp(-limit, limit) + ROUNDER).to_bits() as u16;
        }
        let rows = x.as_chunks::<32>().0.iter().zip(self.low[AROUND..].as_chunks_mut().0).take(d.div_ceil(32));
        let last = s.splat_cost((trellis.levels() - TRIED) as u16);
        for ((x, low), twice) in rows.zip(self.twice[AROUND..].as_chunks_mut::<32>().0) {
            let (v, mut nearest) = (s.costs(x), s.splat_cost(0));
            for bound in bounds {
                nearest = s.count(nearest, v, s.splat_cost(*bound as u16));
            }
            s.store_costs(low, s.min_costs(s.sub_costs(nearest, s.splat_cost(1)), last));
            for i in 0..32 {
                twice[i] = u32::from(x[i] << trellis.fineness()) * 0x1_0001;
            }
        }
        for i in (0..AROUND).rev() {
            (self.twice[i], self.low[i]) = (self.twice[i + d], self.low[i + d]);
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
    fn run<const ROWS: usize>(&self, survivors: &mut [[u16; 32]], codes: &mut [u8]) -> i64 {
        // The state before each element, and that after the last.
        let mut states = [0; MAX_HEAD_DIM + 1];
        let states = &mut states[..=self.d];
        let any = [self.s.splat_cost(0); 2];
        let costs = self.forward::<ROWS>(0, any, survivors);
        let own = &survivors[AROUND * ROWS..(AROUND + self.d) * ROWS];
        whole::<ROWS>(self.smallest::<ROWS>(costs), own, states);
        // The best path that ends in the state before the first element nearly always begins in it, since it soon
        // meets the one that was found.
        let first = states[0];
        if states[self.d] != first && !back::<ROWS>(first, own, states) {
            let mut start = [[u16::MAX / 2; 32]; 2];
            start[usize::from(first) / 32 % 2][usize::from(first) % 32] = 0;
            self.forward::<ROWS>(AROUND, [self.s.costs(&start[0]), self.s.costs(&start[1])], survivors);
            whole::<ROWS>(first, &survivors[..self.d * ROWS], states);
        }
        self.choose(states, codes)
    }

    /// Runs through the elements from `from` on, and writes the state before each on the best path to each state after
    /// it.
    #[inline(always)]
    fn forward<const ROWS: usize>(&self, from: usize, costs: [S::C; 2], survivors: &mut [[u16; 32]]) -> [S::C; 2] {
        let s = self.s;
        let TrellisTables { finer, home, turns, .. } = self.trellis.tables();
        let home = [s.costs(&home[0]), s.costs(&home[1])];
        // Rows by name: in an array that a loop indexes they would not stay in registers.
        let [mut a, mut b] = costs;
        let (x, low) = (&self.elements.twice[from..AROUND + self.d], &self.elements.low[from..AROUND + self.d]);
        let survivors = survivors.chunks_mut(RENORMALISE * ROWS);
        for ((x, low), survivors) in x.chunks(RENORMALISE).zip(low.chunks(RENORMALISE)).zip(survivors) {
            let least = if ROWS == 2 { s.min_costs(a, b) } else { a };
            let least = s.splat_cost(s.min_cost(least));
            for ((x, low), survivors) in x.iter().zip(low).zip(survivors.as_chunks_mut::<ROWS>().0) {
                // No element's first level is above what is there, which saves checks.
                let (x, low) = (s.splat_twice(*x), usize::from(*low).min(MOST_LEVELS - TRIED));
                let spread = s.spread::<ROWS>([a, b]);
                for number in 0..TRIED {
                    let level = low + number;
                    let points = if ROWS == 1 {
                        s.costs_twice(&finer.0.as_chunks().0[level])
                    } else {
                        s.costs(&finer.0.as_chunks().0[level % (MOST_POINTS / 32)])
                    };
                    let distance = s.distance(x, points, s.splat_cost(number as u16));
                    let [more_a, more_b] = s.reach::<ROWS>(spread, level);
                    let more = s.add_costs(more_a, distance);
                    a = if number == 0 { more } else { s.min_costs(a, more) };
                    if ROWS == 2 {
                        let more = s.add_costs(more_b, distance);
                        b = if number == 0 { more } else { s.min_costs(b, more) };
                    }
                }
                s.store_costs(&mut survivors[0], s.before(a, &turns.0[low], home[0]));
                a = s.without_number(a);
                if ROWS == 2 {
                    s.store_costs(&mut survivors[1], s.before(b, &turns.0[low], home[1]));
                    b = s.without_number(b);
                }
            }
            (a, b) = (s.sub_costs(a, least), s.sub_costs(b, least));
        }
        [a, b]
    }

    /// The state of the smallest cost, the lowest of equals.
    #[inline(always)]
    fn smallest<const ROWS: usize>(&self, costs: [S::C; 2]) -> u8 {
        let mut rows = [[0; 32]; 2];
        self.s.store_costs(&mut rows[0], costs[0]);
        self.s.store_costs(&mut rows[1], costs[1]);
        // The state below the cost: no branch depends on which it is.
        let mut least = u32::MAX;
        for (state, cost) in (0..).zip(&rows.as_flattened()[..32 * ROWS]) {
            least = least.min(u32::from(*cost) << 8 | state);
        }
        least as u8
    }

    /// The codes of the path through `states`, and the sum of the squares of their values.
    #[inline(always)]
    fn choose(&self, states: &[u8], codes: &mut [u8]) -> i64 {
        let (integers, mut square) = (&self.trellis.tables().integers, 0);
        let (before, after) = (states.as_chunks::<16>().0, states[1..].as_chunks::<16>().0);
        let low = self.elements.low[AROUND..].as_chunks::<16>().0;
        let rows = codes.as_chunks_mut::<16>().0.iter_mut().zip(before.iter().zip(after).zip(low));
        for (codes, ((before, after), low)) in rows {
            let mut points = [0; 16];
            for i in 0..16 {
                (codes[i], points[i]) = self.trellis.element(before[i].into(), after[i].into(), low[i]);
            }
            for point in points {
                square += i64::from(integers[usize::from(point) % MOST_POINTS]).pow(2);
            }
        }
        square
    }
}

/// Goes the best path to `state` back through all elements, whose rows `survivors` has.
///
/// A step waits for the one before, so four parts are gone through at once: wherever a path begins, some elements back
/// it has nearly always met the best one. What has not is put right.
#[inline(always)]
fn whole<const ROWS: usize>(state: u8, survivors: &[[u16; 32]], states: &mut [u8]) {
    let rows = survivors.as_chunks::<ROWS>().0;
    let part = rows.len() / 4;
    let [mut a, mut b, mut c, mut d] = [0, 0, 0, usize::from(state)];
    for i in (part..part + MEETING).rev() {
        a = rows.get(i).map_or(a, |rows| before(rows, a));
        b = rows.get(part + i).map_or(b, |rows| before(rows, b));
        c = rows.get(2 * part + i).map_or(c, |rows| before(rows, c));
    }
    let ((rows_ab, rows_cd), (first, after)) = (rows.split_at(2 * part), states.split_at_mut(1));
    let ((rows_a, rows_b), (rows_c, rows_d)) = (rows_ab.split_at(part), rows_cd.split_at(part));
    let (after_ab, after_cd) = after.split_at_mut(2 * part);
    let ((after_a, after_b), (after_c, after_d)) = (after_ab.split_at_mut(part), after_cd.split_at_mut(part));
    let (ab, cd) = (
        rows_a.iter().zip(after_a).zip(rows_b.iter().zip(after_b)),
        rows_c.iter().zip(after_c).zip(rows_d.iter().zip(after_d)),
    );
    for (((rows_a, after_a), (rows_b, after_b)), ((rows_c, after_c), (rows_d, after_d))) in ab.zip(cd).rev() {
        (*after_a, *after_b, *after_c, *after_d) = (a as u8, b as u8, c as u8, d as u8);
        (a, b) = (before(rows_a, a), before(rows_b, b));
        (c, d) = (before(rows_c, c), before(rows_d, d));
    }
    first[0] = a as u8;
    for end in [3 * part, 2 * part, part] {
        let state = before(&rows[end], usize::from(states[end + 1]));
        back::<ROWS>(state as u8, &survivors[..end * ROWS], &mut states[..=end]);
    }
}

/// The state before an element on the best path to `state`.
#[inline(always)]
fn before<const ROWS: usize>(rows: &[[u16; 32]; ROWS], state: usize) -> usize {
    usize::from(rows.as_flattened()[state] as u8)
}

/// Goes the best path to `state` back through the elements whose rows `survivors` has, until it meets the path in
/// `states`, which it replaces so far. Returns whether it met it.
#[inline(always)]
fn back<const ROWS: usize>(state: u8, survivors: &[[u16; 32]], states: &mut [u8]) -> bool {
    let ([first, after @ ..], mut state) = (states, usize::from(state)) else { return false };
    for (rows, after) in survivors.as_chunks::<ROWS>().0.iter().zip(after).rev() {
        if usize::from(*after) == state {
            return true;
        }
        *after = state as u8;
        state = before(rows, state);
    }
    let met = usize::from(*first) == state;
    *first = state as u8;
    met
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::portable::{BYTES, Portable};
    use crate::trellis::tests::{Golden, goldens};

    /// Wherever the parts of a path meet the path itself, soon, late or never, all of it is found: as by going back in
    /// one.
    #[test]
    fn a_path_in_parts_is_the_path() {
        fn check<const ROWS: usize>(survivors: &[[u16; 32]]) {
            for state in 0..32 * ROWS as u8 {
                let [mut got, mut want] = [[u8::MAX; 65]; 2];
                whole::<ROWS>(state, survivors, &mut got);
                // No state is 255, so it meets nothing.
                assert!(!back::<ROWS>(state, survivors, &mut want));
                assert_eq!(got, want, "{ROWS} rows, from {state}");
            }
        }
        let mut word = 1u32;
        for states in [2, 6, 30, 64] {
            for both in [false, true] {
                let mut survivors = [[0; 32]; 128];
                for (row, survivors) in survivors.iter_mut().enumerate() {
                    for (i, state) in survivors.iter_mut().enumerate() {
                        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let any = (word >> 16) as u16 % states;
                        // Each of 64 states has another before it, so that paths never meet.
                        let one = (32 * (row % 2) + i) as u16 ^ (row / 2) as u16;
                        *state = if states == 64 { one } else { any } % if both { 64 } else { 32 };
                    }
                }
                if both {
                    check::<2>(&survivors);
                } else {
                    check::<1>(&survivors[..64]);
                }
            }
        }
    }

    /// Few levels, integer costs and a path closed by a guess cost at most 4 % over the best closed path of all (over
    /// many vectors of 64 elements 1 to 3 %, less where there are more elements).
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
