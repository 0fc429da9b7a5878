//! Weighted sums of a span's V strips, added to the heads' running outputs.
use super::scores::read;
use super::{
    Place, QUAD, Simd, Span, SpanScratch, WIDE_MAX, integer_scale, is_integer, is_wide, pair_most, strip, strip_of,
    trellis_of,
};
use crate::format::MAX_HEAD_DIM;
use crate::layout::SPAN;
use crate::layout::STRIP;
use crate::trellis::LARGEST;
use std::borrow::Borrow;

/// Largest integer weight for V of `FORMAT`.
pub(super) const fn weight_most<S: Simd>(format: u8) -> f32 {
    if is_wide(format) { WIDE_MAX } else { S::WEIGHT_MOST }
}

/// Largest sum of two neighbouring integer weights for V of `FORMAT`, if there is a limit.
pub(super) const fn weight_pair_most<S: Simd>(format: u8) -> Option<f32> {
    if trellis_of(format).is_some() { pair_most::<S>(LARGEST as i16, S::WEIGHT_MOST) } else { None }
}

/// Adds the visible strips' values; `C` columns of 16 dims are treated at a time, `W` with 15-bit weights.
#[inline(always)]
pub(super) fn accumulate<S: Simd, const FORMAT: u8, const C: usize, const W: usize>(
    s: S,
    span: &Span<'_>,
    places: &[Place],
    scratch: &SpanScratch,
    parts: &mut [f32],
) {
    let most = if const { is_wide(FORMAT) } { S::WIDE_HEADS } else { QUAD };
    for (i, places) in places.chunks(most).enumerate() {
        let h = i * most;
        if const { is_wide(FORMAT) } {
            match places.len() {
                1 => columns::<S, FORMAT, 1, W>(s, span, places, scratch, h, parts),
                2 => columns::<S, FORMAT, 2, W>(s, span, places, scratch, h, parts),
                3 => columns::<S, FORMAT, 3, W>(s, span, places, scratch, h, parts),
                _ => columns::<S, FORMAT, 4, W>(s, span, places, scratch, h, parts),
            }
            continue;
        }
        match places.len() {
            1 => columns::<S, FORMAT, 1, C>(s, span, places, scratch, h, parts),
            2 => columns::<S, FORMAT, 2, C>(s, span, places, scratch, h, parts),
            3 => columns::<S, FORMAT, 3, C>(s, span, places, scratch, h, parts),
            _ => columns::<S, FORMAT, 4, C>(s, span, places, scratch, h, parts),
        }
    }
}

#[inline(always)]
fn columns<S: Simd, const FORMAT: u8, const H: usize, const C: usize>(
    s: S,
    span: &Span<'_>,
    places: &[Place],
    scratch: &SpanScratch,
    first_head: usize,
    parts: &mut [f32],
) {
    let heads = Heads { places, scratch, first: first_head };
    let count = span.head_dim / 16;
    let mut col = 0;
    while col + C <= count {
        some_columns::<S, FORMAT, H, C>(s, span, &heads, col, parts);
        col += C;
    }
    while col < count {
        some_columns::<S, FORMAT, H, 1>(s, span, &heads, col, parts);
        col += 1;
    }
    if const { !is_integer(FORMAT) } && !span.head_dim.is_multiple_of(16) {
        half_column::<S, FORMAT, H>(s, span, &heads, parts);
    }
}

/// The heads of a pass: `first` is the first one's row in the scratch.
struct Heads<'a> {
    places: &'a [Place],
    scratch: &'a SpanScratch,
    first: usize,
}

impl Heads<'_> {
    /// Tokens of the span that some head sees.
    fn visible(&self) -> (usize, usize) {
        let from = self.places.iter().map(|p| p.from).min().unwrap_or(0);
        (from, self.places.iter().map(|p| p.to).max().unwrap_or(0))
    }
}

#[inline(always)]
fn some_columns<S: Simd, const FORMAT: u8, const H: usize, const C: usize>(
    s: S,
    span: &Span<'_>,
    heads: &Heads<'_>,
    col: usize,
    parts: &mut [f32],
) {
    let mut o = [[s.splat(0.0); C]; H];
    for h in 0..H {
        let old = parts[heads.places[h].o + col * 16..].as_chunks::<16>().0;
        for c in 0..C {
            o[h][c] = s.mul(s.load(&old[c]), s.splat(heads.scratch.alpha[heads.first + h]));
        }
    }
    o = match const { strip_of(FORMAT) } {
        strip::F32 => floats::<S, FORMAT, 64, 1, H, C>(s, span, heads, col, o),
        strip::F16 => floats::<S, FORMAT, 32, 1, H, C>(s, span, heads, col, o),
        strip::BF16 => floats::<S, FORMAT, 64, 2, H, C>(s, span, heads, col, o),
        _ => lines::<S, FORMAT, H, C>(s, span, heads, col, o),
    };
    for h in 0..H {
        let new = parts[heads.places[h].o + col * 16..].as_chunks_mut::<16>().0;
        for c in 0..C {
            // + 0: whether a zero is negative may depend on tokens that only other heads see.
            s.store(&mut new[c], s.add(o[h][c], s.splat(0.0)));
        }
    }
}

/// Float strips: a row of a column holds 16 dims of `TOKENS` tokens, `BYTES` bytes.
#[inline(always)]
fn floats<S: Simd, const FORMAT: u8, const BYTES: usize, const TOKENS: usize, const H: usize, const C: usize>(
    s: S,
    span: &Span<'_>,
    heads: &Heads<'_>,
    col: usize,
    mut o: [[S::F; C]; H],
) -> [[S::F; C]; H] {
    let (from, to) = heads.visible();
    let rows = STRIP / TOKENS;
    for strip in from / STRIP..to.div_ceil(STRIP) {
        let (from, to) = (from.max(strip * STRIP) - strip * STRIP, to.min((strip + 1) * STRIP) - strip * STRIP);
        let mut w = [&[0f32; STRIP]; H];
        for h in 0..H {
            w[h] = &heads.scratch.s[heads.first + h].as_chunks().0[strip];
        }
        let start = col * rows * BYTES;
        let mut columns: [&[[u8; BYTES]]; C] = [&[]; C];
        for c in 0..C {
            columns[c] = &span.strips[strip][start..].as_chunks().0[c * rows..(c + 1) * rows];
        }
        let whole = from.div_ceil(TOKENS)..to / TOKENS;
        if !from.is_multiple_of(TOKENS) {
            let row = from / TOKENS;
            let line = edge::<BYTES, C>(&columns, row, 0);
            o = float_row::<S, FORMAT, BYTES, TOKENS, H, C, _>(s, &line, &w, row, o);
        }
        for row in whole.clone() {
            let mut line = [&[0; BYTES]; C];
            for c in 0..C {
                s.prefetch(span.ahead(strip, start + (c * rows + row) * BYTES));
                line[c] = &columns[c][row];
            }
            o = float_row::<S, FORMAT, BYTES, TOKENS, H, C, _>(s, &line, &w, row, o);
        }
        if !to.is_multiple_of(TOKENS) && whole.start <= whole.end {
            let row = to / TOKENS;
            let line = edge::<BYTES, C>(&columns, row, 2);
            o = float_row::<S, FORMAT, BYTES, TOKENS, H, C, _>(s, &line, &w, row, o);
        }
    }
    o
}

/// A row of pairs of which no head sees the token at byte `dead`: zeroed, since it may hold anything, NaN included.
#[inline(always)]
fn edge<const BYTES: usize, const C: usize>(
    columns: &[&[[u8; BYTES]]; C],
    row: usize,
    dead: usize,
) -> [[u8; BYTES]; C] {
    let mut line = [[0; BYTES]; C];
    for c in 0..C {
        line[c] = columns[c][row];
        for pair in line[c].as_chunks_mut::<4>().0 {
            pair[dead..dead + 2].fill(0);
        }
    }
    line
}

#[inline(always)]
fn float_row<
    S: Simd,
    const FORMAT: u8,
    const BYTES: usize,
    const TOKENS: usize,
    const H: usize,
    const C: usize,
    L: Borrow<[u8; BYTES]>,
>(
    s: S,
    line: &[L; C],
    w: &[&[f32; STRIP]; H],
    row: usize,
    mut o: [[S::F; C]; H],
) -> [[S::F; C]; H] {
    for c in 0..C {
        let v = read::<S, FORMAT, BYTES, TOKENS>(s, line[c].borrow());
        for h in 0..H {
            for i in 0..TOKENS {
                o[h][c] = s.fma(v[i], s.splat(w[h][(row * TOKENS + i) % STRIP]), o[h][c]);
            }
        }
    }
    o
}

/// The last 8 dims of a float format whose head_dim is no multiple of 16: one token at a time, as the columns do.
#[inline(always)]
fn half_column<S: Simd, const FORMAT: u8, const H: usize>(s: S, span: &Span<'_>, heads: &Heads<'_>, parts: &mut [f32]) {
    let (from, to) = heads.visible();
    let first = span.head_dim - 8;
    let mut o = [s.splat(0.0); H];
    let mut buffer = [[0f32; 16]; H];
    for h in 0..H {
        buffer[h][..8].copy_from_slice(&parts[heads.places[h].o + first..][..8]);
        o[h] = s.mul(s.load(&buffer[h]), s.splat(heads.scratch.alpha[heads.first + h]));
    }
    for t in from..to {
        let mut v = [0f32; 16];
        for (i, v) in v.iter_mut().take(8).enumerate() {
            *v = element::<FORMAT>(span.strips[t / STRIP], t % STRIP, first + i, span.head_dim);
        }
        for h in 0..H {
            o[h] = s.fma(s.load(&v), s.splat(heads.scratch.s[heads.first + h][t]), o[h]);
        }
    }
    for h in 0..H {
        s.store(&mut buffer[h], s.add(o[h], s.splat(0.0)));
        parts[heads.places[h].o + first..][..8].copy_from_slice(&buffer[h][..8]);
    }
}

/// One element of a float V strip.
#[inline(always)]
fn element<const FORMAT: u8>(strip: &[u8], token: usize, i: usize, head_dim: usize) -> f32 {
    use crate::format::{Format, Side};
    crate::page::get_float(Format::from_number(FORMAT), Side::V, strip, token, i, head_dim.min(MAX_HEAD_DIM))
}

/// Integer strips: 16 dims are 4 lines of 4 tokens each.
#[inline(always)]
fn lines<S: Simd, const FORMAT: u8, const H: usize, const C: usize>(
    s: S,
    span: &Span<'_>,
    heads: &Heads<'_>,
    col: usize,
    mut o: [[S::F; C]; H],
) -> [[S::F; C]; H] {
    let (mut w, mut ww) = ([&[0u32; SPAN / 4]; H], [&[0u64; SPAN / 4]; H]);
    for h in 0..H {
        (w[h], ww[h]) = (&heads.scratch.words[heads.first + h], &heads.scratch.wide[heads.first + h]);
    }
    let (mut acc, mut wide_acc) = ([[s.acc(); C]; H], [[s.wide_acc(); C]; H]);
    for strip in span.first..span.last {
        if col == 0 {
            s.prefetch(span.ahead_scales(strip));
        }
        let at = col * 4 * 64;
        let codes = span.strips[strip][at..at + C * 4 * 64].as_chunks::<64>().0.as_chunks::<4>().0;
        for l in 0..4 {
            let mut line = [s.bytes(&[0; 64]); C];
            for c in 0..C {
                if const { trellis_of(FORMAT).is_none() } {
                    s.prefetch(span.ahead(strip, at + (c * 4 + l) * 64));
                }
                line[c] = s.bytes(&codes[c][l]);
            }
            let group = strip * 4 + l;
            for c in 0..C {
                for h in 0..H {
                    if const { is_wide(FORMAT) } {
                        wide_acc[h][c] = s.dot_wide(wide_acc[h][c], line[c], ww[h][group]);
                    } else {
                        acc[h][c] = s.dot_v(acc[h][c], line[c], w[h][group]);
                    }
                }
            }
        }
    }
    add_sums::<S, FORMAT, H, C>(s, heads, acc, wide_acc, &mut o);
    o
}

/// Adds integer sums to outputs.
#[inline(always)]
fn add_sums<S: Simd, const FORMAT: u8, const H: usize, const C: usize>(
    s: S,
    heads: &Heads<'_>,
    acc: [[S::Acc; C]; H],
    wide_acc: [[S::WideAcc; C]; H],
    o: &mut [[S::F; C]; H],
) {
    let scale = const { 1.0 / integer_scale(FORMAT) };
    for h in 0..H {
        let unit = s.splat(heads.scratch.unit[heads.first + h] * scale);
        for c in 0..C {
            let sum = if const { is_wide(FORMAT) } {
                s.wide_f32(wide_acc[h][c], -S::WIDE_OFFSET * heads.scratch.sum[heads.first + h])
            } else {
                s.acc_f32(acc[h][c], 0)
            };
            o[h][c] = s.fma(sum, unit, o[h][c]);
        }
    }
}
