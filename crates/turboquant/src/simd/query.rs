//! Integer forms of rotated queries.
use super::scores::{QUERY_MOST, query_pair_most};
use super::{Simd, WIDE_MAX, is_wide, scale_of};

/// One head's query as integers for K of format `FORMAT`, relative to its largest element or pair: appends to `words`
/// or `wide`; returns the integers' sum, and the float that one unit stands for.
#[inline(always)]
pub(super) fn quantize<S: Simd, const FORMAT: u8>(
    s: S,
    q: &[f32],
    words: &mut Vec<u32>,
    wide: &mut Vec<u64>,
) -> (i32, f32) {
    let most = if const { is_wide(FORMAT) } { WIDE_MAX } else { QUERY_MOST };
    let limit = const { query_pair_most::<S>(FORMAT) };
    let zero = s.splat(0.0);
    let (mut top, mut pair) = (zero, zero);
    for q in q.as_chunks::<16>().0 {
        let q = s.load(q);
        let size = s.max(q, s.sub(zero, q));
        top = s.max(size, top);
        if limit.is_some() {
            pair = s.max(s.add(size, s.swap::<1>(size)), pair);
        }
    }
    let largest = s.max_lane(top);
    let largest = if largest > 1e-30 { largest } else { 1e-30 };
    let (most, largest) = scale_of(most, largest, limit, s.max_lane(pair));
    let inverse = s.splat(most / largest);
    let mut sum = zero;
    for q in q.as_chunks::<16>().0 {
        let q = s.round(s.mul(s.load(q), inverse));
        sum = s.add(sum, q); // exact: below 2^24
        if const { is_wide(FORMAT) } {
            wide.extend_from_slice(&s.to_wide(q));
        } else {
            words.extend_from_slice(&s.to_i8(q));
        }
    }
    (s.sum(sum) as i32, largest / most)
}
