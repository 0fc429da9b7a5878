//! The reference of products with float weights: the order of summation in safe Rust, one element at a time.

use crate::LANES;
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
    let mut acc = [0f32; LANES];
    for (x, w) in x.chunks(LANES).zip(w.chunks(LANES * E::BYTES)) {
        // A last step of fewer elements is padded with zeros in every lane, as the vector kernels do.
        let (mut xs, mut ws) = ([0f32; LANES], [0f32; LANES]);
        xs[..x.len()].copy_from_slice(x);
        for (to, from) in ws.iter_mut().zip(w.chunks_exact(E::BYTES)) {
            *to = E::to_f32(from);
        }
        for lane in 0..LANES {
            acc[lane] = xs[lane].mul_add(ws[lane], acc[lane]);
        }
    }
    reduce(acc)
}

/// Adds halves onto halves: lane `l` takes in lane `l + 8`, then `l + 4`, `l + 2` and `l + 1`. Returns lane 0.
pub(crate) fn reduce(mut acc: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            acc[lane] += acc[lane + half];
        }
        half /= 2;
    }
    acc[0]
}
