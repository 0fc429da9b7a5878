//! Online softmax of a tile: masks, running maximum, and the weights in the form that the V step multiplies with.
use super::{CHUNK, NONE, Place, STRIPS, Scratch, Simd, Tile, WIDE_MAX, accumulate, kind};
use crate::layout::STRIP;

/// Tiles of heads `places`; `tile` is the V side. Quantities relative to the tile are taken over each head's visible tokens.
#[inline(always)]
pub(super) fn softmax<S: Simd, const KIND: u8>(
    s: S,
    tile: &Tile<'_>,
    places: &[Place],
    scratch: &mut Scratch,
    parts: &mut [f32],
) {
    for (h, place) in places.iter().enumerate().take(CHUNK) {
        let (first, last) = (place.from / STRIP, place.to.div_ceil(STRIP));
        let range = |strip: usize| {
            let start = (strip * STRIP) as i32;
            (place.from as i32 - start, place.to as i32 - start)
        };
        let row = scratch.s[h].as_chunks_mut::<STRIP>().0;
        let none = s.splat(NONE);
        let mut top = none;
        for (strip, x) in row.iter_mut().enumerate().take(last).skip(first) {
            let (from, to) = range(strip);
            let visible = s.within(from, to, s.load(x), none);
            top = s.max(top, visible);
            s.store(x, visible);
        }
        let before = parts[place.m];
        let m = before.max(s.max_lane(top));
        scratch.alpha[h] = s.max_lane(s.exp2(s.splat(before - m)));
        parts[place.m] = m;
        let (mut sum, mut top) = (s.splat(0.0), s.splat(0.0));
        for (strip, x) in row.iter_mut().enumerate().take(last).skip(first) {
            let p = s.exp2(s.sub(s.load(x), s.splat(m)));
            sum = s.add(sum, p);
            let mut w = p;
            if KIND >= kind::TQ8
                && let Some(scales) = tile.scales[strip].first_chunk()
            {
                let (from, to) = range(strip);
                w = s.mul(p, s.within(from, to, s.f16_bytes(scales), s.splat(0.0)));
                top = s.max(top, w);
            }
            s.store(x, w);
        }
        parts[place.l] = parts[place.l] * scratch.alpha[h] + s.sum(sum);
        if KIND < kind::TQ8 {
            for strip in (tile.first..first).chain(last..tile.last) {
                row[strip] = [0.0; STRIP];
            }
        } else {
            let top = s.max_lane(top).max(1e-30);
            weights::<S, KIND>(s, h, [tile.first, first, last, tile.last], top, scratch);
        }
    }
}

/// Weights of head `h` as integers relative to `top`; strips that only other heads of the chunk see get zeros.
#[inline(always)]
fn weights<S: Simd, const KIND: u8>(
    s: S,
    h: usize,
    [from, first, last, to]: [usize; 4],
    top: f32,
    scratch: &mut Scratch,
) {
    let wide = const { accumulate::is_wide(KIND) };
    let most = if wide { WIDE_MAX } else { f32::from(accumulate::weight_max::<S>(KIND)) };
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
