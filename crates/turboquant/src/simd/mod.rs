//! The kernels' vector code: one text over the [`Simd`] trait, compiled for each instruction set.
//!
//! A `Simd` value is a token: it exists only where its instruction set has been detected, so its operations are safe.
//! All float operations are IEEE ones in a fixed order, so float kernels give the same bits on every instruction set;
//! integer kernels are exact sums, and differ only in how large queries and weights an instruction set can multiply
//! without overflow.
mod accumulate;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod correction;
mod dispatch;
mod expand;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod query;
mod scores;
mod softmax;
mod state;
mod steps;
mod store;
#[cfg(test)]
mod twins;
pub(crate) mod viterbi;

pub(crate) use correction::{CorrectionHead, CorrectionSpan, CorrectionState};
pub use dispatch::Isa;
pub(crate) use steps::Steps;
pub(crate) use store::load;

use crate::format::{Coding, Format};
use crate::layout::{SPAN, STRIP};
use crate::trellis::{RaisedSegments, Trellis};

/// Query heads of a quad, which a kernel treats together: what is read or looked up once serves all of them.
pub(crate) const QUAD: usize = 4;
/// Strips of a span.
pub(crate) const STRIPS: usize = SPAN / STRIP;
/// Below every real logit, and finite: infinities would make NaN in differences.
pub(crate) const NONE: f32 = -1e30;
/// Largest integer of a query element or weight in the 15-bit form: 127 * 128 + 63, two signed limbs.
pub(crate) const WIDE_MAX: f32 = 16319.0;

/// Sixteen lanes of f32, of four bytes, or of an integer sum.
pub(crate) trait Simd: viterbi::Costs {
    type F: Copy;
    /// 64 bytes: 16 lanes of 4.
    type Bytes: Copy;
    /// Sums of products with 8-bit words.
    type Acc: Copy;
    /// Sums of products with 15-bit words.
    type WideAcc: Copy;
    /// The segments of a trellis code.
    type Segments: Copy;

    /// Whether `dot_k` takes unsigned codes: they are raised by the largest integer.
    const K_UNSIGNED: bool;
    /// What `dot_wide` raises codes by.
    const WIDE_OFFSET: i32;
    /// Whether two neighbouring products are added in 16 bits, which queries and weights are then small enough for.
    const PAIRS: bool;
    /// Largest 8-bit weight.
    const WEIGHT_MOST: f32;
    /// Heads that fit the registers in 15-bit kernels.
    const WIDE_HEADS: usize;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, p: &[f32; 16]) -> Self::F;
    fn store(self, p: &mut [f32; 16], x: Self::F);
    /// Sixteen little-endian f32.
    fn f32_bytes(self, p: &[u8; 64]) -> Self::F;
    fn f16_bytes(self, p: &[u8; 32]) -> Self::F;
    /// Sixteen pairs of bf16: the first and the second of each.
    fn bf16_bytes(self, p: &[u8; 64]) -> [Self::F; 2];
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, x: Self::F) -> Self::F;
    /// x * 2^n for integral n in -126..=127; anything for others.
    fn scale2(self, x: Self::F, n: Self::F) -> Self::F;
    /// Lane i of `a` where from <= i < to, else of `b`.
    fn within(self, from: i32, to: i32, a: Self::F, b: Self::F) -> Self::F;
    /// `a` where x >= limit, else zero.
    fn keep_from(self, x: Self::F, limit: Self::F, a: Self::F) -> Self::F;
    /// Lanes i and i ^ H exchanged; H is 1, 2, 4 or 8.
    fn swap<const H: usize>(self, x: Self::F) -> Self::F;
    /// Lanes in the opposite order.
    fn reverse(self, x: Self::F) -> Self::F;
    /// Sum of all lanes: i + (i + 8), then 4, 2, 1 apart.
    fn sum(self, x: Self::F) -> f32;
    fn max_lane(self, x: Self::F) -> f32;
    /// Fetches the line at `p` into L2; any address will do.
    fn prefetch(self, p: *const u8);

    fn bytes(self, p: &[u8; 64]) -> Self::Bytes;
    /// A folded line: the second half is the first one's upper bits.
    fn unfold(self, p: &[u8; 32]) -> Self::Bytes;
    /// Bits 4.. of each byte as bits 0..4; the others arbitrary.
    fn upper(self, x: Self::Bytes) -> Self::Bytes;
    fn store_bytes(self, p: &mut [u8; 64], x: Self::Bytes);
    /// Each lane's word to the left by N bits, 0 < N < 32.
    fn shl<const N: i32>(self, x: Self::Bytes) -> Self::Bytes;
    /// Each lane's word to the right by N bits, zeros shifted in.
    fn shr<const N: i32>(self, x: Self::Bytes) -> Self::Bytes;
    fn xor(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    fn not(self, x: Self::Bytes) -> Self::Bytes;
    /// The bits of `a` that are set in each lane's `mask`, the others of `b`.
    fn select(self, mask: u32, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Sums of bytes (mod 256).
    fn add_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    fn sub_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// x + 1, at most 255, where the byte of `ones` is 255, else x where it is 0.
    fn increment(self, x: Self::Bytes, ones: Self::Bytes) -> Self::Bytes;
    /// Lane i holds lane i - N of `x`; the first N hold the last ones of `before`. N is 1, 2 or 3.
    fn lanes_before<const N: i32>(self, x: Self::Bytes, before: Self::Bytes) -> Self::Bytes;
    /// Bytes of ones where bit `bit` of a byte is clear, else 0.
    fn is_clear(self, x: Self::Bytes, bit: usize) -> Self::Bytes;
    fn segments(self, segments: &RaisedSegments) -> Self::Segments;
    /// Each byte 16 h + l becomes base[h] + (slope[h] l >> 5) (mod 256). A slope is at most 127.
    fn integers(self, segments: Self::Segments, x: Self::Bytes) -> Self::Bytes;

    fn acc(self) -> Self::Acc;
    /// acc + sum over a lane's 4 bytes of code * q; codes raised if `K_UNSIGNED`, q four i8.
    fn dot_k(self, acc: Self::Acc, codes: Self::Bytes, q: u32) -> Self::Acc;
    /// acc + sum over a lane's 4 bytes of code * w; codes signed, w four u8 up to `WEIGHT_MOST`.
    fn dot_v(self, acc: Self::Acc, codes: Self::Bytes, w: u32) -> Self::Acc;
    fn acc_f32(self, acc: Self::Acc, bias: i32) -> Self::F;
    fn wide_acc(self) -> Self::WideAcc;
    /// As `dot_v`, with four integers as `to_wide` packs them, and codes raised by `WIDE_OFFSET`.
    fn dot_wide(self, acc: Self::WideAcc, codes: Self::Bytes, w: u64) -> Self::WideAcc;
    fn wide_f32(self, acc: Self::WideAcc, bias: i32) -> Self::F;
    /// Rounds to u8, four a word.
    fn to_u8(self, x: Self::F) -> [u32; 4];
    /// Rounds to i8, four a word.
    fn to_i8(self, x: Self::F) -> [u32; 4];
    /// Rounds to integers up to `WIDE_MAX`, four a word as `dot_wide` takes them.
    fn to_wide(self, x: Self::F) -> [u64; 4];

    /// 2^x; exactly 0 below -126.
    #[inline(always)]
    fn exp2(self, x: Self::F) -> Self::F {
        let n = self.round(x);
        let f = self.sub(x, n);
        // Minimax for 2^f on [-.5, .5], relative error 2e-7.
        let mut p = self.splat(1.339_887_4e-3);
        for c in [9.618_437e-3, 5.550_332_6e-2, 0.240_226_48, std::f32::consts::LN_2, 1.0] {
            p = self.fma(p, f, self.splat(c));
        }
        self.keep_from(x, self.splat(-126.0), self.scale2(p, n))
    }

    /// The Walsh-Hadamard transform of 16 elements.
    #[inline(always)]
    fn walsh16(self, mut x: Self::F) -> Self::F {
        x = self.fma(x, self.load(&ALTERNATE[0]), self.swap::<1>(x));
        x = self.fma(x, self.load(&ALTERNATE[1]), self.swap::<2>(x));
        x = self.fma(x, self.load(&ALTERNATE[2]), self.swap::<4>(x));
        self.fma(x, self.load(&ALTERNATE[3]), self.swap::<8>(x))
    }
}

/// -1 in the lanes whose bit is set.
const ALTERNATE: [[f32; 16]; 4] = alternate();

const fn alternate() -> [[f32; 16]; 4] {
    let (mut signs, mut i) = ([[1.0; 16]; 4], 0);
    while i < 64 {
        if (i % 16) >> (i / 16) & 1 == 1 {
            signs[i / 16][i % 16] = -1.0;
        }
        i += 1;
    }
    signs
}

/// One side of one span (128 tokens of one kv head).
pub(crate) struct Span<'a> {
    pub head_dim: usize,
    /// Codes of each strip.
    pub strips: [&'a [u8]; STRIPS],
    /// The scales of each strip's tokens, two bytes each; empty for floats.
    pub scales: [&'a [u8]; STRIPS],
    /// How many bytes beyond each strip and its scales those lie that will be read later, to be fetched meanwhile.
    pub ahead: [isize; STRIPS],
    /// The strips that some head of the quad sees.
    pub first: usize,
    pub last: usize,
}

impl Span<'_> {
    pub(crate) fn new(head_dim: usize) -> Self {
        let none: [&[u8]; STRIPS] = [&[]; STRIPS];
        Span { head_dim, strips: none, scales: none, ahead: [0; STRIPS], first: 0, last: 0 }
    }

    /// What lies ahead of byte `at` of a strip's codes.
    #[inline(always)]
    fn ahead(&self, strip: usize, at: usize) -> *const u8 {
        self.strips[strip].as_ptr().wrapping_offset(self.ahead[strip].wrapping_add(at as isize))
    }

    /// What lies ahead of a strip's scales.
    #[inline(always)]
    fn ahead_scales(&self, strip: usize) -> *const u8 {
        self.scales[strip].as_ptr().wrapping_offset(self.ahead[strip])
    }
}

/// A query head in the forms that kernels broadcast, with log2(e) * scale folded in.
#[derive(Clone, Copy)]
pub(crate) struct HeadQuery<'a> {
    pub floats: &'a [f32],
    /// Four i8 a word; the float is `unit` times the integer.
    pub words: &'a [u32],
    /// Four 15-bit integers a word.
    pub wide: &'a [u64],
    /// Sum of the integers.
    pub sum: i32,
    pub unit: f32,
}

/// What a query head of a quad attends to, and where its partial state begins in `parts`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    /// The first token of the span that the head sees.
    pub from: usize,
    /// The token behind the last that it sees.
    pub to: usize,
    /// Where the weighted sum of values begins.
    pub o: usize,
    /// Where the largest logit is.
    pub m: usize,
    /// Where the sum of weights is.
    pub l: usize,
}

/// What passes between the steps of a span.
#[repr(align(64))]
pub(crate) struct SpanScratch {
    /// Logits in base 2, then weights.
    pub s: [[f32; SPAN]; QUAD],
    /// Weights as integers, four a word, relative to the head's largest of the span.
    pub words: [[u32; SPAN / 4]; QUAD],
    pub wide: [[u64; SPAN / 4]; QUAD],
    /// Sum of a head's 15-bit weights, and the float that one unit of its integer weights stands for.
    pub sum: [i32; QUAD],
    pub unit: [f32; QUAD],
    /// What the head's earlier sums are multiplied by.
    pub alpha: [f32; QUAD],
}

impl SpanScratch {
    pub(crate) fn new() -> Self {
        SpanScratch {
            s: [[0.0; SPAN]; QUAD],
            words: [[0; SPAN / 4]; QUAD],
            wide: [[0; SPAN / 4]; QUAD],
            sum: [0; QUAD],
            unit: [0.0; QUAD],
            alpha: [0.0; QUAD],
        }
    }
}

/// Largest sum of two neighbouring multipliers up to `most` of codes up to `code`, if their products' sum must fit 16
/// bits and two of the largest do not. Neighbours of a large one are usually small: so taken, a limit costs less than
/// one on each.
const fn pair_most<S: Simd>(code: i16, most: f32) -> Option<f32> {
    // Rounding adds up to 1/2 to each.
    let limit = (i16::MAX / code - 1) as f32;
    if S::PAIRS && limit < 2.0 * most { Some(limit) } else { None }
}

/// The integer and the float that multipliers are scaled by, of the two that are the largest: of one (`most`, `top`)
/// and, where `limit` is one, of the sum of two.
#[inline(always)]
fn scale_of(most: f32, top: f32, limit: Option<f32>, pair: f32) -> (f32, f32) {
    match limit {
        Some(limit) if pair * most > top * limit => (limit, pair),
        _ => (most, top),
    }
}

/// How kernels read the strips of a format.
pub(crate) mod strip {
    pub const F32: u8 = 0;
    pub const F16: u8 = 1;
    pub const BF16: u8 = 2;
    /// Lines of integers of 8 bits: `tq8` as it is stored, trellis codes expanded.
    pub const BITS_8: u8 = 3;
}

/// How kernels read the strips of the format of number `format`, one of [`strip`]. A single integer, so that a kernel's
/// `match` is decided before it is compiled.
pub(crate) const fn strip_of(format: u8) -> u8 {
    match Format::from_number(format) {
        Format::F16 => strip::F16,
        Format::Bf16 => strip::BF16,
        format if format.has_one_scale() => strip::BITS_8,
        _ => strip::F32,
    }
}

/// Whether kernels multiply the codes of the format of number `format` as integers.
pub(crate) const fn is_integer(format: u8) -> bool {
    Format::from_number(format).has_one_scale()
}

/// Whether the codes of the format of number `format` are int8, which are multiplied with 15-bit integers: an int8
/// query would double the error of `tq8` itself, 8-bit weights would add several times as much.
pub(crate) const fn is_wide(format: u8) -> bool {
    is_integer(format) && matches!(Format::from_number(format).coding(), Coding::Int8)
}

/// Units of an integer that kernels multiply, for the format of number `format`: what stands for the value 1.
pub(crate) const fn integer_scale(format: u8) -> f32 {
    match trellis_of(format) {
        Some(trellis) => trellis.segments().scale,
        None => 1.0,
    }
}

/// The trellis code of the format of number `format`. Kernels see its strips expanded, as integers of 8 bits.
pub(crate) const fn trellis_of(format: u8) -> Option<Trellis> {
    Format::from_number(format).trellis()
}
