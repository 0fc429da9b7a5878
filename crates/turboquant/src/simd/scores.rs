//! Logits of a span: query heads times K strips, 16 tokens a register, summed over dims in order.
use super::{HeadQuery, QUAD, Simd, Span, integer_scale, is_integer, is_wide, pair_most, strip, strip_of, trellis_of};
use crate::layout::SPAN;
use crate::layout::STRIP;
use crate::trellis::LARGEST;

type Out = [[f32; SPAN]; QUAD];

/// Largest integer of an int8 query.
pub(super) const QUERY_MOST: f32 = 127.0;

/// Largest sum of two neighbouring integers of a query for K of `FORMAT`, if there is a limit.
pub(super) const fn query_pair_most<S: Simd>(format: u8) -> Option<f32> {
    if trellis_of(format).is_some() { pair_most::<S>(2 * LARGEST as i16, QUERY_MOST) } else { None }
}

/// What the integers of an expanded strip of K are raised by.
pub(super) const fn offset<S: Simd>(format: u8) -> u8 {
    if S::K_UNSIGNED && trellis_of(format).is_some() { LARGEST } else { 0 }
}

/// Writes the logits (base 2) of the visible strips' tokens; those of dead tokens are arbitrary. `N` strips are treated
/// at a time for 3 or 4 heads, `M` for fewer.
#[inline(always)]
pub(super) fn scores<S: Simd, const FORMAT: u8, const N: usize, const M: usize>(
    s: S,
    span: &Span<'_>,
    heads: &[HeadQuery<'_>],
    out: &mut Out,
) {
    let most = if const { is_wide(FORMAT) } { S::WIDE_HEADS } else { QUAD };
    for (heads, out) in heads.chunks(most).zip(out.chunks_mut(most)) {
        match heads.len() {
            1 => passes::<S, FORMAT, 1, M>(s, span, heads, out),
            2 => passes::<S, FORMAT, 2, M>(s, span, heads, out),
            3 => passes::<S, FORMAT, 3, N>(s, span, heads, out),
            _ => passes::<S, FORMAT, 4, N>(s, span, heads, out),
        }
    }
}

#[inline(always)]
fn passes<S: Simd, const FORMAT: u8, const H: usize, const N: usize>(
    s: S,
    span: &Span<'_>,
    heads: &[HeadQuery<'_>],
    out: &mut [[f32; SPAN]],
) {
    let mut first = span.first;
    while first < span.last {
        // The last pass may treat its last strip more than once, with the same result.
        let strips: [usize; N] = std::array::from_fn(|x| (first + x).min(span.last - 1));
        let sums = match const { strip_of(FORMAT) } {
            strip::F32 => floats::<S, FORMAT, 64, 1, H, N>(s, span, heads, strips),
            strip::F16 => floats::<S, FORMAT, 32, 1, H, N>(s, span, heads, strips),
            strip::BF16 => floats::<S, FORMAT, 64, 2, H, N>(s, span, heads, strips),
            _ => lines::<S, FORMAT, H, N>(s, span, heads, strips),
        };
        for x in 0..N {
            if const { is_integer(FORMAT) } {
                s.prefetch(span.ahead_scales(strips[x]));
            }
            for h in 0..H {
                let mut f = sums[h][x];
                if const { is_integer(FORMAT) }
                    && let Some(scales) = span.scales[strips[x]].first_chunk()
                {
                    f = s.mul(f, s.f16_bytes(scales));
                }
                s.store(&mut out[h].as_chunks_mut::<STRIP>().0[strips[x]], f);
            }
        }
        first += N;
    }
}

/// Terms of an f32 sum that are added one after the other.
pub(super) const SUM_BLOCK: usize = 8;

/// Float strips: lines of `BYTES` bytes hold `DIMS` dims of 16 tokens.
#[inline(always)]
fn floats<S: Simd, const FORMAT: u8, const BYTES: usize, const DIMS: usize, const H: usize, const N: usize>(
    s: S,
    span: &Span<'_>,
    heads: &[HeadQuery<'_>],
    strips: [usize; N],
) -> [[S::F; N]; H] {
    let count = span.head_dim / DIMS;
    let codes: [&[[u8; BYTES]]; N] = strips.map(|x| &span.strips[x].as_chunks().0[..count]);
    let q: [&[[f32; DIMS]]; H] = std::array::from_fn(|h| &heads[h].floats.as_chunks().0[..count]);
    let (mut sums, mut blocks) = ([[s.splat(0.0); N]; H], [[s.splat(0.0); N]; H]);
    for j in 0..count {
        // f32 is what parity is tested with: sums of sums round less than one long sum.
        if const { strip_of(FORMAT) == strip::F32 } && j % SUM_BLOCK == 0 {
            for h in 0..H {
                for x in 0..N {
                    (blocks[h][x], sums[h][x]) = (s.add(blocks[h][x], sums[h][x]), s.splat(0.0));
                }
            }
        }
        for x in 0..N {
            s.prefetch(span.ahead(strips[x], j * BYTES));
            let dims = read::<S, FORMAT, BYTES, DIMS>(s, &codes[x][j]);
            for h in 0..H {
                for i in 0..DIMS {
                    sums[h][x] = s.fma(dims[i], s.splat(q[h][j][i]), sums[h][x]);
                }
            }
        }
    }
    if const { strip_of(FORMAT) == strip::F32 } {
        for h in 0..H {
            for x in 0..N {
                sums[h][x] = s.add(blocks[h][x], sums[h][x]);
            }
        }
    }
    sums
}

/// A line of floats as `DIMS` registers.
#[inline(always)]
pub(super) fn read<S: Simd, const FORMAT: u8, const BYTES: usize, const DIMS: usize>(
    s: S,
    line: &[u8; BYTES],
) -> [S::F; DIMS] {
    let mut out = [s.splat(0.0); DIMS];
    // No `first_chunk` fails: BYTES is 64 for f32, 32 for f16 and 64 for bf16, and of these branches only that of
    // FORMAT is compiled in.
    if const { strip_of(FORMAT) == strip::F16 } {
        if let Some(line) = line.first_chunk() {
            out[0] = s.f16_bytes(line);
        }
    } else if let Some(line) = line.first_chunk() {
        if const { strip_of(FORMAT) == strip::F32 } {
            out[0] = s.f32_bytes(line);
        } else {
            out.copy_from_slice(&s.bf16_bytes(line)[..DIMS]);
        }
    }
    out
}

/// Sums of integer products so far, of `H` heads and `N` strips.
struct LogitSums<S: Simd, const H: usize, const N: usize> {
    acc: [[S::Acc; N]; H],
    wide: [[S::WideAcc; N]; H],
}

/// Integer strips: a line holds 4 dims of 16 tokens.
#[inline(always)]
fn lines<S: Simd, const FORMAT: u8, const H: usize, const N: usize>(
    s: S,
    span: &Span<'_>,
    heads: &[HeadQuery<'_>],
    strips: [usize; N],
) -> [[S::F; N]; H] {
    let mut sums = LogitSums::<S, H, N> { acc: [[s.acc(); N]; H], wide: [[s.wide_acc(); N]; H] };
    let count = span.head_dim / 4;
    let codes: [&[[u8; 64]]; N] = strips.map(|x| &span.strips[x].as_chunks().0[..count]);
    let q: [&[u32]; H] =
        std::array::from_fn(|h| if const { is_wide(FORMAT) } { &[] } else { &heads[h].words[..count] });
    let qw: [&[u64]; H] =
        std::array::from_fn(|h| if const { is_wide(FORMAT) } { &heads[h].wide[..count] } else { &[] });
    for j in 0..count {
        let mut line = [s.bytes(&[0; 64]); N];
        for x in 0..N {
            line[x] = s.bytes(&codes[x][j]);
            if const { trellis_of(FORMAT).is_none() } {
                s.prefetch(span.ahead(strips[x], j * 64));
            }
        }
        for x in 0..N {
            for h in 0..H {
                if const { is_wide(FORMAT) } {
                    sums.wide[h][x] = s.dot_wide(sums.wide[h][x], line[x], qw[h][j]);
                } else {
                    sums.acc[h][x] = s.dot_k(sums.acc[h][x], line[x], q[h][j]);
                }
            }
        }
    }
    logits::<S, FORMAT, H, N>(s, heads, &sums)
}

/// Integer sums as logits, but for the K scales.
#[inline(always)]
fn logits<S: Simd, const FORMAT: u8, const H: usize, const N: usize>(
    s: S,
    heads: &[HeadQuery<'_>],
    sums: &LogitSums<S, H, N>,
) -> [[S::F; N]; H] {
    let scale = const { 1.0 / integer_scale(FORMAT) };
    let mut out = [[s.splat(0.0); N]; H];
    for h in 0..H {
        for x in 0..N {
            let sum = if const { is_wide(FORMAT) } {
                s.wide_f32(sums.wide[h][x], -S::WIDE_OFFSET * heads[h].sum)
            } else {
                s.acc_f32(sums.acc[h][x], -i32::from(offset::<S>(FORMAT)) * heads[h].sum)
            };
            out[h][x] = s.mul(sum, s.splat(heads[h].unit * scale));
        }
    }
    out
}
