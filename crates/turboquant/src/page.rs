//! The order of elements inside a strip (16 tokens of one side of a record).
//!
//! Formats that kernels multiply as integers (`tq8`, `tc*`): 64-byte lines of 16 lanes x 4 bytes, so that an
//! instruction that adds the products of 4 neighbouring bytes sums along what is being summed and nothing is ever added
//! across lanes. K: a lane is a token, the 4 bytes are 4 dims that follow each other; groups of 4 dims in order. V: a
//! lane is a dim, the 4 bytes are 4 tokens; for each 16 dims, the strip's 4 groups of 4 tokens in order. With codes of
//! 4 or 2 bits a line holds 2 or 4 successive groups, the first in the low bits of each byte. `tc5` and `tc3` keep
//! their 4 or 2 chained bits so, and after all lines the free bits in a plane of the same lines: bit g % 8 of a byte is
//! the free bit of group g. A last line of only 4 groups is folded: its second half lies in the first half's upper
//! bits.
//!
//! Floats: f32 and f16 K by dim, 16 tokens each; bf16 K by pair of dims, 16 tokens x 2. V by columns of 16 dims (the
//! last may have 8), in each by token, bf16 by pair of tokens. Other formats: by token, 8 codes of b bits in b bytes.
use crate::encode::Codes;
use crate::format::{Format, MAX_HEAD_DIM, Side};
use crate::layout::STRIP;
use half::{bf16, f16};

/// A format of 64-byte lines: groups per line and whether free bits lie in a plane of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lines {
    pub groups: usize,
    pub free_plane: bool,
}

impl Lines {
    /// The lines of formats that kernels multiply as integers. Codes of 8, 4 or 2 bits lie whole in their lines; of
    /// other codes the highest bit, which is free, lies in a plane of its own.
    pub(crate) const fn of(format: Format) -> Option<Lines> {
        let bits = format.code_bits();
        match format.has_one_scale() {
            false => None,
            true if 8 % bits == 0 => Some(Lines { groups: 8 / bits, free_plane: false }),
            true => Some(Lines { groups: 8 / (bits - 1), free_plane: true }),
        }
    }

    /// Bits of a code in its line.
    fn bits(self) -> usize {
        8 / self.groups
    }

    /// Calls `f(element, (byte of the strip, shift) of its code, the same of its free bit)` for every element of token
    /// `token`.
    #[inline(always)]
    fn each(self, side: Side, token: usize, head_dim: usize, mut f: impl FnMut(usize, (usize, usize), (usize, usize))) {
        let (bits, free, groups) = (self.bits(), STRIP * head_dim / self.groups, head_dim / 4);
        for i in 0..head_dim {
            let (lane, group, byte) = match side {
                Side::K => (token, i / 4, i % 4),
                Side::V => (i % 16, i / 16 * 4 + token / 4, token % 4),
            };
            let at = lane * 4 + byte;
            let code = (group / self.groups * 64 + at, group % self.groups * bits);
            let folded = group / 8 == groups / 8;
            let free = match folded {
                true => (free + group / 8 * 64 + at % 32, group % 8 + at / 32 * 4),
                false => (free + group / 8 * 64 + at, group % 8),
            };
            f(i, code, free);
        }
    }
}

/// Elements of a K vector that a word of each line holds, where the format is a trellis code: their codes lie in the
/// word's bits in order, the older in the higher ones.
#[inline(always)]
fn elements_of_word(format: Format) -> Option<usize> {
    format.trellis().map(|trellis| 32 / trellis.chained())
}

/// The element of a K vector that lies at `place` of its lines, where a word holds `elements`.
#[inline(always)]
fn element_at(place: usize, elements: usize) -> usize {
    let (group, byte) = (place % elements / 4, place % 4);
    place / elements * elements + elements - 1 - (byte * (elements / 4) + group)
}

/// Puts a query's elements in the order in which kernels read those of keys.
#[inline(always)]
pub(crate) fn to_key_order(format: Format, q: &mut [f32]) {
    if let Some(elements) = elements_of_word(format) {
        let mut copy = [0.0; MAX_HEAD_DIM];
        copy[..q.len()].copy_from_slice(q);
        q.iter_mut().enumerate().for_each(|(place, q)| *q = copy[element_at(place, elements)]);
    }
}

/// Codes in the order in which words of so many elements hold them.
#[inline(always)]
fn in_key_order<'a, const ELEMENTS: usize>(codes: &Codes, ordered: &'a mut Codes) -> &'a Codes {
    let words = ordered.as_chunks_mut::<ELEMENTS>().0.iter_mut().zip(codes.as_chunks::<ELEMENTS>().0);
    for (ordered, codes) in words {
        for place in 0..ELEMENTS {
            ordered[place] = codes[element_at(place, ELEMENTS)];
        }
    }
    ordered
}

/// Packs the codes of token `token` (0..16) into its strip.
#[inline(always)]
pub(crate) fn put_codes(format: Format, side: Side, strip: &mut [u8], token: usize, head_dim: usize, codes: &Codes) {
    let Some(Lines { groups, free_plane }) = Lines::of(format) else {
        let bytes = format.code_bytes(head_dim);
        return put_row(format.code_bits(), &mut strip[token * bytes..][..bytes], codes);
    };
    let mut ordered = [0; MAX_HEAD_DIM];
    let codes = match elements_of_word(format).filter(|_| side == Side::K) {
        Some(8) => in_key_order::<8>(codes, &mut ordered),
        Some(_) => in_key_order::<16>(codes, &mut ordered),
        None => codes,
    };
    match (side, groups, free_plane) {
        (Side::K, 1, _) => put_k::<1, false>(strip, token, head_dim, codes),
        (Side::K, 2, false) => put_k::<2, false>(strip, token, head_dim, codes),
        (Side::K, 2, true) => put_k::<2, true>(strip, token, head_dim, codes),
        (Side::K, _, false) => put_k::<4, false>(strip, token, head_dim, codes),
        (Side::K, _, true) => put_k::<4, true>(strip, token, head_dim, codes),
        (Side::V, 1, _) => put_v::<1, false>(strip, token, head_dim, codes),
        (Side::V, 2, false) => put_v::<2, false>(strip, token, head_dim, codes),
        (Side::V, 2, true) => put_v::<2, true>(strip, token, head_dim, codes),
        (Side::V, _, false) => put_v::<4, false>(strip, token, head_dim, codes),
        (Side::V, _, true) => put_v::<4, true>(strip, token, head_dim, codes),
    }
}

/// A K token owns a word of each line.
#[inline(always)]
fn put_k<const GROUPS: usize, const PLANE: bool>(strip: &mut [u8], token: usize, head_dim: usize, codes: &Codes) {
    let bits = 8 / GROUPS;
    let mask = ((1u32 << bits) - 1) * 0x0101_0101;
    let (lines, free) = strip.split_at_mut(STRIP * head_dim / GROUPS);
    let codes = &codes.as_chunks::<4>().0[..head_dim / 4];
    for (line, codes) in lines.as_chunks_mut::<64>().0.iter_mut().zip(codes.as_chunks::<GROUPS>().0) {
        let mut word = 0;
        for (g, codes) in codes.iter().enumerate() {
            word |= (u32::from_le_bytes(*codes) & mask) << (g * bits);
        }
        line.as_chunks_mut::<4>().0[token] = word.to_le_bytes();
    }
    if !PLANE {
        return;
    }
    let (lines, folded) = free.as_chunks_mut::<64>();
    let (groups, rest) = codes.as_chunks::<8>();
    for (line, codes) in lines.iter_mut().zip(groups) {
        line.as_chunks_mut::<4>().0[token] = free_bits(codes, bits).to_le_bytes();
    }
    if let Some(word) = folded.as_chunks_mut::<4>().0.get_mut(token % 8) {
        let shift = token / 8 * 4;
        let kept = u32::from_le_bytes(*word) & !(0x0f0f_0f0f << shift);
        *word = (kept | free_bits(rest, bits) << shift).to_le_bytes();
    }
}

/// The free bits of some groups' codes, one group a bit of each byte.
#[inline(always)]
fn free_bits(groups: &[[u8; 4]], bits: usize) -> u32 {
    let mut word = 0;
    for (bit, codes) in groups.iter().enumerate() {
        word |= (u32::from_le_bytes(*codes) >> bits & 0x0101_0101) << bit;
    }
    word
}

/// A V token owns some bits of one byte of each lane.
#[inline(always)]
fn put_v<const GROUPS: usize, const PLANE: bool>(strip: &mut [u8], token: usize, head_dim: usize, codes: &Codes) {
    let bits = 8 / GROUPS;
    let mask = (1u32 << bits) - 1;
    let (line, shift) = (token / 4 / GROUPS, token % 4 * 8 + token / 4 % GROUPS * bits);
    let (lines, free) = strip.split_at_mut(STRIP * head_dim / GROUPS);
    let codes = &codes.as_chunks::<16>().0[..head_dim / 16];
    for (column, codes) in lines.chunks_exact_mut(256 / GROUPS).zip(codes) {
        let lanes = column.as_chunks_mut::<64>().0[line].as_chunks_mut::<4>().0;
        for (lane, code) in lanes.iter_mut().zip(codes) {
            let word = u32::from_le_bytes(*lane) & !(mask << shift);
            *lane = (word | (u32::from(*code) & mask) << shift).to_le_bytes();
        }
    }
    if !PLANE {
        return;
    }
    let (lines, folded) = free.as_chunks_mut::<64>();
    for (column, codes) in codes.iter().enumerate() {
        let shift = token % 4 * 8 + token / 4 + column % 2 * 4;
        match lines.get_mut(column / 2) {
            Some(line) => put_free_bits(line, shift, codes, bits),
            None => {
                put_free_bits(folded, shift, &codes[..8], bits);
                put_free_bits(folded, shift + 4, &codes[8..], bits);
            }
        }
    }
}

/// Puts one free bit into each word.
#[inline(always)]
fn put_free_bits(words: &mut [u8], shift: usize, codes: &[u8], bits: usize) {
    for (word, code) in words.as_chunks_mut::<4>().0.iter_mut().zip(codes) {
        let kept = u32::from_le_bytes(*word) & !(1 << shift);
        *word = (kept | u32::from(code >> bits) << shift).to_le_bytes();
    }
}

/// Reads the codes of token `token` back.
#[inline(always)]
pub(crate) fn get_codes(format: Format, side: Side, strip: &[u8], token: usize, head_dim: usize, codes: &mut Codes) {
    let Some(lines) = Lines::of(format) else {
        let bytes = format.code_bytes(head_dim);
        return get_row(format.code_bits(), &strip[token * bytes..][..bytes], codes);
    };
    let mask = ((1u32 << lines.bits()) - 1) as u8;
    let elements = elements_of_word(format).filter(|_| side == Side::K);
    lines.each(side, token, head_dim, |place, code, free| {
        let i = elements.map_or(place, |elements| element_at(place, elements));
        codes[i] = strip[code.0] >> code.1 & mask;
        if lines.free_plane {
            codes[i] |= (strip[free.0] >> free.1 & 1) << lines.bits();
        }
    });
}

/// 8 codes of `bits` bits in `bits` bytes, the first in the lowest bits.
#[inline(always)]
fn put_row(bits: usize, row: &mut [u8], codes: &Codes) {
    for (unit, codes) in row.chunks_exact_mut(bits).zip(codes.as_chunks::<8>().0) {
        let word = codes.iter().rev().fold(0u64, |w, c| w << bits | u64::from(*c));
        unit.copy_from_slice(&word.to_le_bytes()[..bits]);
    }
}

#[inline(always)]
fn get_row(bits: usize, row: &[u8], codes: &mut Codes) {
    for (unit, codes) in row.chunks_exact(bits).zip(codes.as_chunks_mut::<8>().0) {
        let mut word = [0; 8];
        word[..bits].copy_from_slice(unit);
        let word = u64::from_le_bytes(word);
        (0..8).for_each(|k| codes[k] = (word >> (k * bits)) as u8 & ((1u32 << bits) - 1) as u8);
    }
}

/// Byte of element `i` of token `token` in a strip of floats.
#[inline(always)]
pub(crate) fn float_at(format: Format, side: Side, token: usize, i: usize, head_dim: usize) -> usize {
    match (format, side) {
        (Format::F32, Side::K) => (i * STRIP + token) * 4,
        (Format::Bf16, Side::K) => (i / 2 * STRIP + token) * 4 + i % 2 * 2,
        (_, Side::K) => (i * STRIP + token) * 2,
        (_, Side::V) => {
            let column = i / 16 * 16;
            let width = (head_dim - column).min(16);
            let i = i - column;
            match format {
                Format::F32 => (column * STRIP + token * width + i) * 4,
                Format::F16 => (column * STRIP + token * width + i) * 2,
                _ => (column * STRIP + token / 2 * 2 * width + i * 2 + token % 2) * 2,
            }
        }
    }
}

/// Stores an element, rounded to the format.
#[inline(always)]
pub(crate) fn put_float(format: Format, side: Side, strip: &mut [u8], token: usize, i: usize, head_dim: usize, x: f32) {
    let at = float_at(format, side, token, i, head_dim);
    match format {
        Format::F32 => strip[at..at + 4].copy_from_slice(&x.to_le_bytes()),
        Format::F16 => strip[at..at + 2].copy_from_slice(&f16::from_f32(x).to_le_bytes()),
        _ => strip[at..at + 2].copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
    }
}

#[inline(always)]
pub(crate) fn get_float(format: Format, side: Side, strip: &[u8], token: usize, i: usize, head_dim: usize) -> f32 {
    let at = float_at(format, side, token, i, head_dim);
    match format {
        Format::F32 => f32::from_le_bytes([strip[at], strip[at + 1], strip[at + 2], strip[at + 3]]),
        Format::F16 => f16::from_le_bytes([strip[at], strip[at + 1]]).to_f32(),
        _ => bf16::from_le_bytes([strip[at], strip[at + 1]]).to_f32(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All tokens written into a strip of junk read back, so no two elements share a bit and none lies outside the
    /// strip.
    #[test]
    fn strips_give_codes_back() {
        for side in [Side::K, Side::V] {
            for (format, d) in Format::all(side).flat_map(|format| [16, 80, 96, 128].map(|d| (format, d))) {
                if format.is_float() {
                    continue;
                }
                let mut strip = vec![0xa5u8; STRIP * format.code_bytes(d)];
                let code = |token: usize, i: usize| {
                    let x = (token * 7919 + i * 104_729) ^ (token * i);
                    (x % 251) as u8 & ((1u32 << format.code_bits()) - 1) as u8
                };
                for token in 0..STRIP {
                    let mut codes = [0; 512];
                    (0..d).for_each(|i| codes[i] = code(token, i));
                    put_codes(format, side, &mut strip, token, d, &codes);
                }
                for token in 0..STRIP {
                    let mut codes = [0; 512];
                    get_codes(format, side, &strip, token, d, &mut codes);
                    (0..d).for_each(|i| assert_eq!(codes[i], code(token, i), "{format:?} {side} d {d} {token} {i}"));
                }
            }
        }
    }

    #[test]
    fn float_positions_are_distinct_and_fill_the_strip() {
        for format in [Format::F32, Format::F16, Format::Bf16] {
            for side in [Side::K, Side::V] {
                let (d, bytes) = (24, format.code_bytes(1));
                let mut seen = vec![false; STRIP * d];
                for (token, i) in (0..STRIP).flat_map(|token| (0..d).map(move |i| (token, i))) {
                    let at = float_at(format, side, token, i, d);
                    assert!(at.is_multiple_of(bytes) && !std::mem::replace(&mut seen[at / bytes], true));
                }
            }
        }
    }
}
