//! The reference of products with float weights: the order of summation in safe Rust, one element at a time.

use crate::ACCUMULATORS;
use crate::float_element::FloatElement;

/// Computes `out[i][j] = sum_k x[i][k] * w[j][k]`; `out` has a row for each row of `x`.
pub(crate) fn dots<E: FloatElement>(x: &[f32], k: usize, w: &[u8], out: &mut [&mut [f32]]) {
    for (x, out) in x.chunks_exact(k).zip(out) {
        for (w, out) in w.chunks_exact(k * E::BYTES).zip(out.iter_mut()) {
            *out = dot::<E>(x, w);
        }
    }
}

fn dot<E: FloatElement>(x: &[f32], w: &[u8]) -> f32 {
    let mut acc = [0f32; ACCUMULATORS];
    for (x, w) in x.chunks(ACCUMULATORS).zip(w.chunks(ACCUMULATORS * E::BYTES)) {
        // A last step of fewer elements is padded with zeros for every accumulator, as the vector kernels do.
        let (mut xs, mut ws) = ([0f32; ACCUMULATORS], [0f32; ACCUMULATORS]);
        xs[..x.len()].copy_from_slice(x);
        for (to, from) in ws.iter_mut().zip(w.chunks_exact(E::BYTES)) {
            *to = E::to_f32(from);
        }
        for i in 0..ACCUMULATORS {
            acc[i] = xs[i].mul_add(ws[i], acc[i]);
        }
    }
    reduce(acc)
}

/// Adds halves onto halves: accumulator `i` takes in accumulator `i + 8`, then `i + 4`, `i + 2` and `i + 1`. Returns
/// accumulator 0.
pub(crate) fn reduce(mut acc: [f32; ACCUMULATORS]) -> f32 {
    let mut half = ACCUMULATORS / 2;
    while half > 0 {
        for i in 0..half {
            acc[i] += acc[i + half];
        }
        half /= 2;
    }
    acc[0]
}
