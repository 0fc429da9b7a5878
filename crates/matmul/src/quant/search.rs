//! Searches for the scales of scale groups, with the results of ggml's `make_qx_quants`, `make_q3_quants` and
//! `make_qkx2_quants`.
//!
//! `L` scale groups are searched side by side; `x[i][l]` is element `i` of group `l`. The sums of a group run in the
//! order of its elements, as ggml's do, and the compiler makes vectors of the lanes.
// A lane's index goes through several arrays at once.
#![allow(clippy::needless_range_loop)]

use super::activation::ROUND;

/// A scale group whose largest magnitude is below this is all zero.
pub(super) const EPSILON: f32 = 1e-15;

/// Returns the integer nearest to a value below 2^22 in magnitude, ties to even. Larger values stay as large.
pub(super) fn nearest(value: f32) -> f32 {
    (value + ROUND) - ROUND
}

/// Returns `x`, which holds `L` groups of `LEN` elements one after the other, with the groups side by side.
pub(super) fn side_by_side<const L: usize, const LEN: usize>(x: &[f32]) -> [[f32; L]; LEN] {
    std::array::from_fn(|i| std::array::from_fn(|l| x[l * LEN + i]))
}

/// Returns the element of the largest magnitude, the first of several.
pub(super) fn extreme(x: &[f32]) -> f32 {
    let [extreme] = extremes(x.as_chunks().0);
    extreme
}

/// Returns the element of the largest magnitude of each group, the first of several.
fn extremes<const L: usize>(x: &[[f32; L]]) -> [f32; L] {
    let mut best = [0f32; L];
    for x in x {
        for l in 0..L {
            best[l] = if x[l].abs() > best[l].abs() { x[l] } else { best[l] };
        }
    }
    best
}

/// Returns the scales for codes `-half..half`. 19 scales that place the extreme around code `-half` are tried; the one
/// with the smallest sum of `x^2 * error^2` is the best.
pub(super) fn symmetric<const L: usize>(x: &[[f32; L]], half: f32) -> [f32; L] {
    let extreme = extremes(x);
    let (mut scale, mut best) = ([0f32; L], [0f32; L]);
    for step in std::iter::once(0).chain((-9..=9).filter(|step| *step != 0)) {
        let inverse = extreme.map(|extreme| -(half + 0.1 * step as f32) / extreme);
        let (mut xl, mut ll) = ([0f32; L], [0f32; L]);
        for x in x {
            for l in 0..L {
                let code = nearest(inverse[l] * x[l]).clamp(-half, half - 1.);
                xl[l] += x[l] * x[l] * x[l] * code;
                ll[l] += x[l] * x[l] * code * code;
            }
        }
        for l in 0..L {
            let better = ll[l] > 0. && (step == 0 || xl[l] * xl[l] > best[l] * ll[l]);
            scale[l] = if better { xl[l] / ll[l] } else { scale[l] };
            best[l] = if better { scale[l] * xl[l] } else { best[l] };
        }
    }
    std::array::from_fn(|l| if extreme[l].abs() < EPSILON { 0. } else { scale[l] })
}

/// Returns the scale for codes `-half..half`. Codes are moved one by one as long as the error, weighted with `x^2`,
/// falls.
pub(super) fn symmetric_by_steps(x: &[f32], half: f32) -> f32 {
    let extreme = extreme(x);
    if extreme.abs() < EPSILON {
        return 0.;
    }
    let inverse = -half / extreme;
    let mut codes: Vec<f32> = x.iter().map(|x| nearest(inverse * x).clamp(-half, half - 1.)).collect();
    let (mut xl, mut ll) = (0., 0.);
    for (x, code) in x.iter().zip(&codes) {
        xl += x * x * x * *code;
        ll += x * x * *code * *code;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (x, code) in x.iter().zip(&mut codes) {
            let weight = x * x;
            let mut rest_xl = xl - weight * x * *code;
            if rest_xl <= 0. {
                continue;
            }
            let mut rest_ll = ll - weight * *code * *code;
            let new = nearest(x * rest_ll / rest_xl).clamp(-half, half - 1.);
            if new == *code {
                continue;
            }
            rest_xl += weight * x * new;
            rest_ll += weight * new * new;
            if rest_ll > 0. && rest_xl * rest_xl * ll > xl * xl * rest_ll {
                (*code, xl, ll, changed) = (new, rest_xl, rest_ll, true);
            }
        }
        if !changed {
            break;
        }
    }
    if ll > 0. { xl / ll } else { 0. }
}

/// A search for scales and minima, which minimises the sum of `weight * cost(error)` over the elements of a scale
/// group.
pub(super) struct Search<F> {
    /// The largest code.
    pub largest: f32,
    /// The change of the codes' range in the first rounding that is tried.
    pub first_step: f32,
    /// The number of further roundings, each of which changes the range by .1 more.
    pub steps: i32,
    /// The cost of an error.
    pub cost: F,
}

impl<F: Fn(f32) -> f32> Search<F> {
    /// Returns scales and minima (`x = code * scale - min`, `min >= 0`) for codes `0..=largest`: the best of a range of
    /// roundings, each with its least-squares fit.
    pub(super) fn affine<const L: usize>(&self, x: &[[f32; L]], weights: &[[f32; L]]) -> ([f32; L], [f32; L]) {
        let (mut low, mut high) = (x[0], x[0]);
        let (mut sum_w, mut sum_x) = ([0f32; L], [0f32; L]);
        for (x, w) in x.iter().zip(weights) {
            for l in 0..L {
                (low[l], high[l]) = (low[l].min(x[l]), high[l].max(x[l]));
                (sum_w[l], sum_x[l]) = (sum_w[l] + w[l], sum_x[l] + w[l] * x[l]);
            }
        }
        let low = low.map(|low| low.min(0.));
        let inverse: [f32; L] = std::array::from_fn(|l| self.largest / (high[l] - low[l]));
        let (mut scale, mut min) = (inverse.map(|inverse| 1. / inverse), low);
        let mut best = self.error(x, weights, &inverse, &min, &scale, &min);
        for step in 0..=self.steps {
            // From the best minimum so far, not from the lowest value: so does ggml.
            let inverse =
                std::array::from_fn(|l| (self.first_step + 0.1 * step as f32 + self.largest) / (high[l] - min[l]));
            let (fit_scale, fit_min, fits) = self.fit(x, weights, &inverse, &min, &sum_w, &sum_x);
            let error = self.error(x, weights, &inverse, &min, &fit_scale, &fit_min);
            for l in 0..L {
                let better = fits[l] && error[l] < best[l];
                best[l] = if better { error[l] } else { best[l] };
                scale[l] = if better { fit_scale[l] } else { scale[l] };
                min[l] = if better { fit_min[l] } else { min[l] };
            }
        }
        let constant = |l: usize| high[l] == low[l];
        (
            std::array::from_fn(|l| if constant(l) { 0. } else { scale[l] }),
            std::array::from_fn(|l| if constant(l) { -low[l] } else { -min[l] }),
        )
    }

    /// Returns the code of `x`, as a float.
    fn code(&self, x: f32, min: f32, inverse: f32) -> f32 {
        nearest(inverse * (x - min)).clamp(0., self.largest)
    }

    /// Returns the least-squares scale and minimum for the codes `inverse * (x - from)`, and whether there is a
    /// solution.
    fn fit<const L: usize>(
        &self,
        x: &[[f32; L]],
        weights: &[[f32; L]],
        inverse: &[f32; L],
        from: &[f32; L],
        sum_w: &[f32; L],
        sum_x: &[f32; L],
    ) -> ([f32; L], [f32; L], [bool; L]) {
        let (mut sum_l, mut sum_ll, mut sum_xl) = ([0f32; L], [0f32; L], [0f32; L]);
        for (x, w) in x.iter().zip(weights) {
            for l in 0..L {
                let code = self.code(x[l], from[l], inverse[l]);
                sum_l[l] += w[l] * code;
                sum_ll[l] += w[l] * code * code;
                sum_xl[l] += w[l] * code * x[l];
            }
        }
        let (mut scale, mut min, mut fits) = ([0f32; L], [0f32; L], [false; L]);
        for l in 0..L {
            let determinant = sum_w[l] * sum_ll[l] - sum_l[l] * sum_l[l];
            fits[l] = determinant > 0.;
            scale[l] = (sum_w[l] * sum_xl[l] - sum_x[l] * sum_l[l]) / determinant;
            min[l] = (sum_ll[l] * sum_x[l] - sum_l[l] * sum_xl[l]) / determinant;
            if min[l] > 0. {
                (min[l], scale[l]) = (0., sum_xl[l] / sum_ll[l]);
            }
        }
        (scale, min, fits)
    }

    /// Returns the cost of the codes `inverse * (x - from)` with a scale and a minimum.
    fn error<const L: usize>(
        &self,
        x: &[[f32; L]],
        weights: &[[f32; L]],
        inverse: &[f32; L],
        from: &[f32; L],
        scale: &[f32; L],
        min: &[f32; L],
    ) -> [f32; L] {
        let mut sum = [0f32; L];
        for (x, w) in x.iter().zip(weights) {
            for l in 0..L {
                sum[l] += w[l] * (self.cost)(scale[l] * self.code(x[l], from[l], inverse[l]) + min[l] - x[l]);
            }
        }
        sum
    }
}
