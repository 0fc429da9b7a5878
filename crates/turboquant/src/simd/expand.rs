//! Trellis codes of a strip as integers of 8 bits, in the lines that kernels read codes of 8 bits in.
//!
//! A strip is expanded once for all query heads that attend to it. An element's point is put together for whole lines:
//! in a strip of K the elements of a token follow each other in a word, the older in the higher bits, so the elements
//! before are a shift away; in a strip of V they lie in the lanes before.
use super::scores::offset;
use super::{Simd, trellis_of};
use crate::trellis::Trellis;

/// A trellis code whose number is that of a format; the number of a format without one is never asked for.
const fn trellis(format: u8) -> Trellis {
    match trellis_of(format) {
        Some(trellis) => trellis,
        None => Trellis::Tc4,
    }
}

/// Expands the strip `codes` of K or of V. `out`: the lines of a strip of codes of 8 bits, those of K raised as
/// [`Simd::dot_k`] wants them. `ahead`: how far beyond `codes` those lie that will be read later.
#[inline(always)]
pub(super) fn expand<S: Simd, const FORMAT: u8, const KEYS: bool>(
    s: S,
    codes: &[u8],
    ahead: isize,
    out: &mut [[u8; 64]],
) {
    let (code, raised) = const { (trellis(FORMAT), if KEYS { offset::<S>(FORMAT) } else { 0 }) };
    // The integers of tc5 are negated before they are raised.
    let segments = match code {
        Trellis::Tc5 => s.segments(&const { trellis(FORMAT).segments().raised(0) }),
        _ if KEYS => s.segments(&const { trellis(FORMAT).segments().raised(offset::<S>(FORMAT)) }),
        _ => s.segments(&const { trellis(FORMAT).segments().raised(0) }),
    };
    let words = out.len() * code.chained() / 8;
    let (lines, bits) = codes.split_at(words * 64);
    let lines = lines.as_chunks::<64>().0;
    let put = Put::<S, FORMAT> { s, segments, raised, bits, ahead };
    match (KEYS, const { trellis(FORMAT).chained() == 4 }) {
        (true, true) => keys_of_4_bits(&put, lines, out),
        (true, false) => keys_of_2_bits(&put, lines, out),
        (false, true) => values_of_4_bits(&put, lines, out),
        (false, false) => values_of_2_bits(&put, lines, out),
    }
}

/// Makes integers of points.
struct Put<'a, S: Simd, const FORMAT: u8> {
    s: S,
    segments: S::Segments,
    raised: u8,
    /// The plane of free bits.
    bits: &'a [u8],
    /// How far beyond the codes those lie that will be read later.
    ahead: isize,
}

impl<S: Simd, const FORMAT: u8> Put<'_, S, FORMAT> {
    /// The free bits of eight lines from line `first` on; nothing of a code without.
    #[inline(always)]
    fn free_bits(&self, first: usize) -> S::Bytes {
        if const { trellis(FORMAT).has_free_bit() } {
            let bits = &self.bits[first / 8 * 64..];
            self.s.prefetch(bits.as_ptr().wrapping_offset(self.ahead));
            free_line(self.s, bits)
        } else {
            self.s.bytes(&[0; 64])
        }
    }

    /// A line of codes; what lies ahead of it is fetched.
    #[inline(always)]
    fn line(&self, line: &[u8; 64]) -> S::Bytes {
        self.s.prefetch(line.as_ptr().wrapping_offset(self.ahead));
        self.s.bytes(line)
    }

    /// The integers of points without their free bits, which are bit `bit` of `free`.
    #[inline(always)]
    fn put(&self, points: S::Bytes, free: S::Bytes, bit: usize, out: &mut [u8; 64]) {
        let (s, segments) = (self.s, self.segments);
        let integers = match const { trellis(FORMAT) } {
            Trellis::Tc4 => s.integers(segments, points),
            Trellis::Tc2 => s.integers(segments, s.shl::<1>(points)),
            Trellis::Tc3 => {
                let free = s.is_clear(free, bit);
                s.integers(segments, s.select(0x7f7f_7f7f, points, s.not(free)))
            }
            Trellis::Tc5 => {
                let negative = s.is_clear(free, bit);
                let magnitudes = s.integers(segments, s.increment(s.xor(points, negative), negative));
                let raised = s.bytes(&[self.raised; 64]);
                s.add_bytes(s.sub_bytes(s.xor(magnitudes, negative), negative), raised)
            }
        };
        s.store_bytes(out, integers);
    }
}

/// A line of free bits: folded if it is the last and short.
#[inline(always)]
fn free_line<S: Simd>(s: S, rest: &[u8]) -> S::Bytes {
    match (rest.first_chunk(), rest.first_chunk()) {
        (Some(line), _) => s.bytes(line),
        (None, Some(folded)) => s.unfold(folded),
        (None, None) => s.bytes(&[0; 64]),
    }
}

/// The last line of a circle, then its lines in order.
macro_rules! circle {
    ($s:expr, $lines:expr) => {
        match $lines.last() {
            Some(last) => $s.bytes(last),
            None => return,
        }
    };
}

/// A word is 8 elements of a token.
#[inline(always)]
fn keys_of_4_bits<S: Simd, const FORMAT: u8>(put: &Put<'_, S, FORMAT>, lines: &[[u8; 64]], out: &mut [[u8; 64]]) {
    let s = put.s;
    let mut before = circle!(s, lines);
    let mut free = s.bytes(&[0; 64]);
    for (i, (line, out)) in lines.iter().zip(out.as_chunks_mut::<2>().0).enumerate() {
        let bit = i % 4 * 2;
        if bit == 0 {
            free = put.free_bits(2 * i);
        }
        let w = put.line(line);
        let y = s.xor(w, s.or(s.shr::<5>(w), s.shl::<27>(before)));
        put.put(s.select(0x0f0f_0f0f, w, s.shl::<4>(y)), free, bit, &mut out[0]);
        put.put(s.select(0x0f0f_0f0f, s.shr::<4>(w), y), free, bit + 1, &mut out[1]);
        before = w;
    }
}

/// A word is 16 elements of a token.
#[inline(always)]
fn keys_of_2_bits<S: Simd, const FORMAT: u8>(put: &Put<'_, S, FORMAT>, lines: &[[u8; 64]], out: &mut [[u8; 64]]) {
    const LOW: u32 = 0x1f1f_1f1f;
    const ALL: u32 = 0x7f7f_7f7f;
    let s = put.s;
    let mut before = circle!(s, lines);
    let (mut free, none) = (s.bytes(&[0; 64]), s.bytes(&[0; 64]));
    for (i, (line, out)) in lines.iter().zip(out.as_chunks_mut::<4>().0).enumerate() {
        let bit = i % 2 * 4;
        if bit == 0 {
            free = put.free_bits(4 * i);
        }
        let w = put.line(line);
        let by_2 = s.or(s.shr::<2>(w), s.shl::<30>(before));
        let by_4 = s.or(s.shr::<4>(w), s.shl::<28>(before));
        let by_6 = s.or(s.shr::<6>(w), s.shl::<26>(before));
        let y = s.xor(w, by_6);
        put.put(s.select(ALL, s.select(LOW, w, s.shl::<5>(y)), none), free, bit, &mut out[0]);
        put.put(s.select(ALL, s.select(LOW, by_2, s.shl::<3>(y)), none), free, bit + 1, &mut out[1]);
        put.put(s.select(ALL, s.select(LOW, by_4, s.shl::<1>(y)), none), free, bit + 2, &mut out[2]);
        put.put(s.select(ALL, s.select(LOW, by_6, s.shr::<1>(y)), none), free, bit + 3, &mut out[3]);
        before = w;
    }
}

/// A word is one element of 8 tokens; two lines are a column of 16 elements.
#[inline(always)]
fn values_of_4_bits<S: Simd, const FORMAT: u8>(put: &Put<'_, S, FORMAT>, lines: &[[u8; 64]], out: &mut [[u8; 64]]) {
    let s = put.s;
    let columns = lines.as_chunks::<2>().0;
    let Some(last) = columns.last() else { return };
    let mut before = [s.bytes(&last[0]), s.bytes(&last[1])];
    let mut free = s.bytes(&[0; 64]);
    for (i, (column, out)) in columns.iter().zip(out.as_chunks_mut::<4>().0).enumerate() {
        // Two columns share a line of free bits.
        free = if i % 2 == 0 { put.free_bits(4 * i) } else { s.upper(free) };
        for half in 0..2 {
            let w = put.line(&column[half]);
            let (one, two) = (s.lanes_before::<1>(w, before[half]), s.lanes_before::<2>(w, before[half]));
            let y = s.xor(w, s.select(0x7777_7777, s.shr::<1>(one), s.shl::<3>(two)));
            put.put(s.select(0x0f0f_0f0f, w, s.shl::<4>(y)), free, 2 * half, &mut out[2 * half]);
            put.put(s.select(0x0f0f_0f0f, s.shr::<4>(w), y), free, 2 * half + 1, &mut out[2 * half + 1]);
            before[half] = w;
        }
    }
}

/// A word is one element of 16 tokens; a line is a column of 16 elements.
#[inline(always)]
fn values_of_2_bits<S: Simd, const FORMAT: u8>(put: &Put<'_, S, FORMAT>, lines: &[[u8; 64]], out: &mut [[u8; 64]]) {
    let s = put.s;
    let mut before = circle!(s, lines);
    let (mut free, none) = (s.bytes(&[0; 64]), s.bytes(&[0; 64]));
    for (i, (line, out)) in lines.iter().zip(out.as_chunks_mut::<4>().0).enumerate() {
        free = if i % 2 == 0 { put.free_bits(4 * i) } else { s.upper(free) };
        let w = put.line(line);
        let (one, two) = (s.lanes_before::<1>(w, before), s.lanes_before::<2>(w, before));
        let y = s.xor(w, s.lanes_before::<3>(w, before));
        // A nibble has the lower 4 bits of every second token's point, another one the 3 bits above them.
        let even = s.select(0x3333_3333, w, s.shl::<2>(one));
        let odd = s.select(0x3333_3333, s.shr::<2>(w), one);
        let even_level = s.select(0x7777_7777, s.select(0x1111_1111, two, s.shl::<1>(y)), none);
        let odd_level = s.select(0x7777_7777, s.select(0x1111_1111, s.shr::<2>(two), s.shr::<1>(y)), none);
        put.put(s.select(0x0f0f_0f0f, even, s.shl::<4>(even_level)), free, 0, &mut out[0]);
        put.put(s.select(0x0f0f_0f0f, odd, s.shl::<4>(odd_level)), free, 1, &mut out[1]);
        put.put(s.select(0x0f0f_0f0f, s.shr::<4>(even), even_level), free, 2, &mut out[2]);
        put.put(s.select(0x0f0f_0f0f, s.shr::<4>(odd), odd_level), free, 3, &mut out[3]);
        before = w;
    }
}
