//! Searches for a group's scale, as ggml's `make_qx_quants`, `make_q3_quants` and `make_qkx2_quants`.

use super::encode256::EPSILON;

/// The nearest integer, ties to even.
pub(super) fn nearest(value: f32) -> i32 {
    value.round_ties_even() as i32
}

fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0., |best: f32, x| if x.abs() > best.abs() { *x } else { best })
}

/// The scale for codes `-half..half`: the best, by squares of errors weighted with `x^2`, of 19 that place the extreme
/// around `-half`.
pub(super) fn symmetric(x: &[f32], half: i32) -> f32 {
    let extreme = extreme(x);
    if extreme.abs() < EPSILON {
        return 0.;
    }
    let (mut scale, mut best) = (0., 0.);
    for step in std::iter::once(0).chain((-9..=9).filter(|step| *step != 0)) {
        let inverse = -(half as f32 + 0.1 * step as f32) / extreme;
        let (mut xl, mut ll) = (0., 0.);
        for x in x {
            let code = nearest(inverse * x).clamp(-half, half - 1) as f32;
            xl += x * x * x * code;
            ll += x * x * code * code;
        }
        if ll > 0. && (step == 0 || xl * xl > best * ll) {
            scale = xl / ll;
            best = scale * xl;
        }
    }
    scale
}

/// The scale for codes `-half..half`: codes are moved one by one as long as the weighted error falls.
pub(super) fn symmetric_by_steps(x: &[f32], half: i32) -> f32 {
    let extreme = extreme(x);
    if extreme.abs() < EPSILON {
        return 0.;
    }
    let inverse = -half as f32 / extreme;
    let mut codes: Vec<i32> = x.iter().map(|x| nearest(inverse * x).clamp(-half, half - 1)).collect();
    let (mut xl, mut ll) = (0., 0.);
    for (x, code) in x.iter().zip(&codes) {
        xl += x * x * x * *code as f32;
        ll += x * x * *code as f32 * *code as f32;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (x, code) in x.iter().zip(&mut codes) {
            let weight = x * x;
            let mut rest_xl = xl - weight * x * *code as f32;
            if rest_xl <= 0. {
                continue;
            }
            let mut rest_ll = ll - weight * *code as f32 * *code as f32;
            let new = nearest(x * rest_ll / rest_xl).clamp(-half, half - 1);
            if new == *code {
                continue;
            }
            rest_xl += weight * x * new as f32;
            rest_ll += weight * new as f32 * new as f32;
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

/// Scale and minimum (`x = code * scale - min`, `min >= 0`) for codes `0..=largest`: of a range of roundings each with its
/// least-squares fit, the best by `cost` of the errors, weighted.
pub(super) fn affine(
    x: &[f32],
    weights: &[f32],
    largest: i32,
    first_step: f32,
    steps: i32,
    cost: impl Fn(f32) -> f32,
) -> (f32, f32) {
    let (low, high) = x.iter().fold((x[0], x[0]), |(low, high), x| (low.min(*x), high.max(*x)));
    let low = low.min(0.);
    if high == low {
        return (0., -low);
    }
    let weighted = || x.iter().copied().zip(weights.iter().copied());
    let code = |x: f32, min: f32, inverse: f32| nearest(inverse * (x - min)).clamp(0, largest) as f32;
    let (sum_w, sum_x) = weighted().fold((0., 0.), |(sum_w, sum_x), (x, w)| (sum_w + w, sum_x + w * x));
    let inverse = largest as f32 / (high - low);
    let (mut scale, mut min) = (1. / inverse, low);
    let mut best = weighted().map(|(x, w)| w * cost(scale * code(x, low, inverse) + low - x)).sum::<f32>();
    for step in 0..=steps {
        // From the best minimum so far, not from the lowest value: so does ggml.
        let inverse = (first_step + 0.1 * step as f32 + largest as f32) / (high - min);
        let (mut sum_l, mut sum_ll, mut sum_xl) = (0., 0., 0.);
        for (x, w) in weighted() {
            let code = code(x, min, inverse);
            sum_l += w * code;
            sum_ll += w * code * code;
            sum_xl += w * code * x;
        }
        let determinant = sum_w * sum_ll - sum_l * sum_l;
        if determinant > 0. {
            let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut this_min = (sum_ll * sum_x - sum_l * sum_xl) / determinant;
            if this_min > 0. {
                (this_min, this_scale) = (0., sum_xl / sum_ll);
            }
            let error: f32 = weighted().map(|(x, w)| w * cost(this_scale * code(x, min, inverse) + this_min - x)).sum();
            if error < best {
                (best, scale, min) = (error, this_scale, this_min);
            }
        }
    }
    (scale, -min)
}
