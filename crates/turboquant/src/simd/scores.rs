//! Logits of a span: query heads times K strips, 16 tokens a register, summed over dims in order.
use super::{
    HeadQuery, QUAD, Simd, Span, book, has_sign_plane, is_integer, is_wide, pair_most, strip, strip_of, table_bytes,
    trellis_of,
};
use crate::layout::SPAN;
use crate::layout::STRIP;

type Out = [[f32; SPAN]; QUAD];

/// Largest integer of an int8 query.
pub(super) const QUERY_MOST: f32 = 127.0;

/// Largest sum of two neighbouring integers of a query for K of `FORMAT`, if there is a limit.
pub(super) const fn query_pair_most<S: Simd>(format: u8) -> Option<f32> {
    let largest = book(format).largest() as i16;
    match format {
        _ if is_wide(format) => None,
        _ if has_sign_plane(format) => pair_most::<S>(largest, QUERY_MOST),
        _ => pair_most::<S>(2 * largest, QUERY_MOST),
    }
}

/// What the table's integers are raised by.
pub(super) const fn offset<S: Simd>(format: u8) -> u8 {
    match format {
        _ if is_wide(format) => 0,
        _ if has_sign_plane(format) => S::SIGNED_OFFSET,
        _ if S::K_UNSIGNED => book(format).largest(),
        _ => 0,
    }
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
            strip::BITS_8 => lines::<S, FORMAT, 1, false, H, N>(s, span, heads, strips),
            strip::BITS_4_SIGNS => lines::<S, FORMAT, 2, true, H, N>(s, span, heads, strips),
            strip::BITS_4 => lines::<S, FORMAT, 2, false, H, N>(s, span, heads, strips),
            strip::BITS_2_SIGNS => lines::<S, FORMAT, 4, true, H, N>(s, span, heads, strips),
            _ => lines::<S, FORMAT, 4, false, H, N>(s, span, heads, strips),
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

/// Integer strips: a line holds `GROUPS` groups of 4 dims of 16 tokens.
#[inline(always)]
fn lines<S: Simd, const FORMAT: u8, const GROUPS: usize, const PLANE: bool, const H: usize, const N: usize>(
    s: S,
    span: &Span<'_>,
    heads: &[HeadQuery<'_>],
    strips: [usize; N],
) -> [[S::F; N]; H] {
    let mut sums = LogitSums::<S, H, N> { acc: [[s.acc(); N]; H], wide: [[s.wide_acc(); N]; H] };
    if PLANE {
        add_signed_lines::<S, FORMAT, GROUPS, H, N>(s, span, heads, strips, &mut sums);
    } else {
        add_lines::<S, FORMAT, GROUPS, H, N>(s, span, heads, strips, &mut sums);
    }
    logits::<S, FORMAT, H, N>(s, heads, &sums)
}

/// Adds the products with codes that need no further signs.
#[inline(always)]
fn add_lines<S: Simd, const FORMAT: u8, const GROUPS: usize, const H: usize, const N: usize>(
    s: S,
    span: &Span<'_>,
    heads: &[HeadQuery<'_>],
    strips: [usize; N],
    sums: &mut LogitSums<S, H, N>,
) {
    let table = s.table(&const { table_bytes(&book(FORMAT), GROUPS, false, offset::<S>(FORMAT)) });
    let count = span.head_dim / 4 / GROUPS;
    let codes: [&[[u8; 64]]; N] = strips.map(|x| &span.strips[x].as_chunks().0[..count]);
    let q: [&[[u32; GROUPS]]; H] =
        std::array::from_fn(|h| if const { is_wide(FORMAT) } { &[] } else { &heads[h].words.as_chunks().0[..count] });
    let qw: [&[[u64; GROUPS]]; H] =
        std::array::from_fn(|h| if const { is_wide(FORMAT) } { &heads[h].wide.as_chunks().0[..count] } else { &[] });
    for j in 0..count {
        let mut line = [s.bytes(&[0; 64]); N];
        for x in 0..N {
            line[x] = s.bytes(&codes[x][j]);
            if const { trellis_of(FORMAT).is_none() } {
                s.prefetch(span.ahead(strips[x], j * 64));
            }
        }
        for g in 0..GROUPS {
            for x in 0..N {
                let c = unpack::<S, GROUPS>(s, table, line[x], g);
                for h in 0..H {
                    if const { is_wide(FORMAT) } {
                        sums.wide[h][x] = s.dot_wide(sums.wide[h][x], c, qw[h][j][g]);
                    } else {
                        sums.acc[h][x] = s.dot_k(sums.acc[h][x], c, q[h][j][g]);
                    }
                }
            }
        }
    }
}

/// Adds the products with codes whose signs lie in a plane of their own.
#[inline(always)]
fn add_signed_lines<S: Simd, const FORMAT: u8, const GROUPS: usize, const H: usize, const N: usize>(
    s: S,
    span: &Span<'_>,
    heads: &[HeadQuery<'_>],
    strips: [usize; N],
    sums: &mut LogitSums<S, H, N>,
) {
    let table = s.table(&const { table_bytes(&book(FORMAT), GROUPS, true, offset::<S>(FORMAT)) });
    let count = span.head_dim / 4 / GROUPS;
    let codes: [&[[u8; 64]]; N] = strips.map(|x| &span.strips[x].as_chunks().0[..count]);
    let q: [&[[u32; GROUPS]]; H] = std::array::from_fn(|h| &heads[h].words.as_chunks().0[..count]);
    let none = s.bytes(&[0; 64]);
    // Line `$j`, whose groups' signs are bits `$bit`.. of `$signs`. A macro: each use is unrolled, its bits constants.
    macro_rules! line {
        ($j:expr, $signs:expr, $bit:expr) => {{
            let j = $j;
            let mut line = [none; N];
            for x in 0..N {
                line[x] = s.bytes(&codes[x][j]);
                s.prefetch(span.ahead(strips[x], j * 64));
            }
            for g in 0..GROUPS {
                for x in 0..N {
                    let c = s.signed(unpack::<S, GROUPS>(s, table, line[x], g), $signs[x], $bit + g);
                    for h in 0..H {
                        sums.acc[h][x] = s.dot_signed(sums.acc[h][x], c, q[h][j][g]);
                    }
                }
            }
        }};
    }
    let together = 8 / GROUPS;
    for first in (0..count).step_by(together) {
        let at = count * 64 + first * GROUPS * 8;
        let mut signs = [none; N];
        for x in 0..N {
            s.prefetch(span.ahead(strips[x], at));
            signs[x] = sign_line(s, &span.strips[strips[x]][at..]);
        }
        line!(first, signs, 0);
        if GROUPS == 2 {
            line!(first + 1, signs, 2);
        }
        if first + together <= count {
            line!(first + together / 2, signs, 4);
            if GROUPS == 2 {
                line!(first + 3, signs, 6);
            }
        }
    }
}

/// A line of signs: folded if it is the last and short.
#[inline(always)]
pub(super) fn sign_line<S: Simd>(s: S, rest: &[u8]) -> S::Bytes {
    match (rest.first_chunk(), rest.first_chunk()) {
        (Some(line), _) => s.bytes(line),
        (None, Some(folded)) => s.unfold(folded),
        (None, None) => s.bytes(&[0; 64]),
    }
}

/// Integer sums as logits, but for the K scales.
#[inline(always)]
fn logits<S: Simd, const FORMAT: u8, const H: usize, const N: usize>(
    s: S,
    heads: &[HeadQuery<'_>],
    sums: &LogitSums<S, H, N>,
) -> [[S::F; N]; H] {
    let scale = if const { is_wide(FORMAT) } { 1.0 } else { 1.0 / const { book(FORMAT).scale } };
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

/// Group `g` of a line as one signed byte a code.
#[inline(always)]
pub(super) fn unpack<S: Simd, const GROUPS: usize>(s: S, table: S::Table, line: S::Bytes, g: usize) -> S::Bytes {
    match (GROUPS, g) {
        (1, _) => line,
        (_, 0) => s.lookup::<0>(table, line),
        (4, 1) => s.lookup::<2>(table, line),
        (2, _) | (4, 2) => s.lookup::<4>(table, line),
        _ => s.lookup::<6>(table, line),
    }
}
