//! Merging and finishing online-softmax states: o `[group][head_dim]`, m `[group]`, l `[group]`.
use super::Simd;

/// Adds the state `other` to `into`.
#[inline(always)]
pub(super) fn merge<S: Simd>(s: S, into: &mut [f32], other: &[f32], group: usize) {
    let d = into.len() / group - 2;
    let (o, ml) = into.split_at_mut(group * d);
    let (other_o, other_ml) = other.split_at(group * d);
    for g in 0..group {
        let (m, other_m) = (ml[g], other_ml[g]);
        let largest = if m > other_m { m } else { other_m };
        let (a, b) = (s.exp2(s.splat(m - largest)), s.exp2(s.splat(other_m - largest)));
        ml[g] = largest;
        ml[group + g] = s.max_lane(s.fma(s.splat(other_ml[group + g]), b, s.mul(s.splat(ml[group + g]), a)));
        let (o, tail) = o[g * d..(g + 1) * d].as_chunks_mut::<16>();
        let (other_o, other_tail) = other_o[g * d..(g + 1) * d].as_chunks::<16>();
        for (x, y) in o.iter_mut().zip(other_o) {
            let merged = s.fma(s.load(y), b, s.mul(s.load(x), a));
            s.store(x, merged);
        }
        if !tail.is_empty() {
            let (mut x, mut y) = ([0f32; 16], [0f32; 16]);
            x[..tail.len()].copy_from_slice(tail);
            y[..tail.len()].copy_from_slice(other_tail);
            let merged = s.fma(s.load(&y), b, s.mul(s.load(&x), a));
            s.store(&mut x, merged);
            tail.copy_from_slice(&x[..tail.len()]);
        }
    }
}
