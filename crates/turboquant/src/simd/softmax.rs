//! Online softmax of a span: masks, running maximum, and the weights in the form that the V step multiplies with.
use super::accumulate::{weight_most, weight_pair_most};
use super::{NONE, Place, QUAD, STRIPS, Simd, Span, SpanScratch, is_integer, is_wide, scale_of};
use crate::layout::SPAN;
use crate::layout::STRIP;

/// Turns the logits of `places` into weights; `span` is the V side. Quantities relative to the span are taken over each
/// head's visible tokens. Each step runs over all heads, so that one's latency hides another's.
#[inline(always)]
pub(super) fn softmax<S: Simd, const FORMAT: u8>(
    s: S,
    span: &Span<'_>,
    places: &[Place],
    scratch: &mut SpanScratch,
    parts: &mut [f32],
) {
    let places = &places[..places.len().min(QUAD)];
    for (h, place) in places.iter().enumerate() {
        let top = mask(s, place, &mut scratch.s[h]);
        let before = parts[place.m];
        let m = if top > before { top } else { before };
        parts[place.m] = m;
        scratch.alpha[h] = s.max_lane(s.exp2(s.splat(before - m)));
    }
    let (most, limit) = const { (weight_most::<S>(FORMAT), weight_pair_most::<S>(FORMAT)) };
    let mut tops = [(0f32, 0f32); QUAD];
    for (h, place) in places.iter().enumerate() {
        let [sum, top, pair] = exponentials::<S, FORMAT>(s, span, place, parts[place.m], &mut scratch.s[h]);
        parts[place.l] = parts[place.l] * scratch.alpha[h] + sum;
        tops[h] = scale_of(most, if top > 1e-30 { top } else { 1e-30 }, limit, pair);
    }
    for (h, place) in places.iter().enumerate() {
        let (first, last) = strips(place);
        if const { !is_integer(FORMAT) } {
            let row = scratch.s[h].as_chunks_mut::<STRIP>().0;
            for strip in (span.first..first).chain(last..span.last) {
                row[strip] = [0.0; STRIP];
            }
        } else {
            weights::<S, FORMAT>(s, h, [span.first, first, last, span.last], tops[h], scratch);
        }
    }
}

/// Strips of which a head sees something.
#[inline(always)]
fn strips(place: &Place) -> (usize, usize) {
    (place.from / STRIP, place.to.div_ceil(STRIP))
}

/// Tokens of a strip that a head sees, and whether that is all.
#[inline(always)]
fn range(place: &Place, strip: usize) -> (i32, i32, bool) {
    let start = (strip * STRIP) as i32;
    let (from, to) = (place.from as i32 - start, place.to as i32 - start);
    (from, to, from <= 0 && to >= STRIP as i32)
}

/// Sets the logits that a head does not see to `NONE`; returns the largest.
#[inline(always)]
fn mask<S: Simd>(s: S, place: &Place, row: &mut [f32; SPAN]) -> f32 {
    let row = row.as_chunks_mut::<STRIP>().0;
    let none = s.splat(NONE);
    let mut top = none;
    let (first, last) = strips(place);
    for (strip, x) in row.iter_mut().enumerate().take(last).skip(first) {
        let (from, to, whole) = range(place, strip);
        let mut logits = s.load(x);
        if !whole {
            logits = s.within(from, to, logits, none);
            s.store(x, logits);
        }
        top = s.max(top, logits);
    }
    s.max_lane(top)
}

/// Replaces logits by 2^(logit - m), times the V scale for integer kinds; returns the sum of the first, and the largest
/// of the second and of the sums of two neighbours.
#[inline(always)]
fn exponentials<S: Simd, const FORMAT: u8>(
    s: S,
    span: &Span<'_>,
    place: &Place,
    m: f32,
    row: &mut [f32; SPAN],
) -> [f32; 3] {
    let row = row.as_chunks_mut::<STRIP>().0;
    let (m, zero) = (s.splat(m), s.splat(0.0));
    let (mut sum, mut top, mut pair) = (zero, zero, zero);
    let (first, last) = strips(place);
    for (strip, x) in row.iter_mut().enumerate().take(last).skip(first) {
        let mut w = s.exp2(s.sub(s.load(x), m));
        sum = s.add(sum, w);
        if const { is_integer(FORMAT) }
            && let Some(scales) = span.scales[strip].first_chunk()
        {
            let (from, to, whole) = range(place, strip);
            let mut scales = s.f16_bytes(scales);
            if !whole {
                scales = s.within(from, to, scales, zero);
            }
            w = s.mul(w, scales);
            top = s.max(top, w);
            if const { weight_pair_most::<S>(FORMAT).is_some() } {
                pair = s.max(pair, s.add(w, s.swap::<1>(w)));
            }
        }
        s.store(x, w);
    }
    [s.sum(sum), s.max_lane(top), s.max_lane(pair)]
}

/// Weights of head `h` as integers, of which `most` is for `top`; strips that only other heads of the quad see get
/// zeros.
#[inline(always)]
fn weights<S: Simd, const FORMAT: u8>(
    s: S,
    h: usize,
    [from, first, last, to]: [usize; 4],
    (most, top): (f32, f32),
    scratch: &mut SpanScratch,
) {
    let wide = const { is_wide(FORMAT) };
    scratch.unit[h] = top / most;
    let scale = s.splat(most / top);
    let row = scratch.s[h].as_chunks::<STRIP>().0;
    let words: &mut [[u32; 4]; STRIPS] = scratch.words[h].as_chunks_mut().0.try_into().expect("4 words a strip");
    let wides: &mut [[u64; 4]; STRIPS] = scratch.wide[h].as_chunks_mut().0.try_into().expect("4 words a strip");
    let mut sum = s.splat(0.0);
    for strip in first..last {
        let w = s.mul(s.load(&row[strip]), scale);
        if wide {
            let w = s.round(w);
            sum = s.add(sum, w); // exact: below 2^24
            wides[strip] = s.to_wide(w);
        } else {
            words[strip] = s.to_u8(w);
        }
    }
    for strip in (from..first).chain(last..to) {
        (words[strip], wides[strip]) = ([0; 4], [0; 4]);
    }
    scratch.sum[h] = s.sum(sum) as i32;
}
