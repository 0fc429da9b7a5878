//! The [`Simd`] operations in plain Rust: the fallback, and what every instruction set is compared with, those that
//! multiply smaller integers in a form that has their limits.
use super::steps::prelude::*;
use super::{Simd, WIDE_MAX};
use crate::trellis::RaisedSegments;
use half::f16;

#[derive(Clone, Copy)]
pub(crate) struct Portable<const LIMITS: u8>;

/// Codes and weights of whole bytes.
pub(crate) const BYTES: u8 = 0;
/// As AVX2: two products are added in 16 bits.
pub(crate) const PAIRS: u8 = 1;
/// As NEON: weights are i8.
pub(crate) const SIGNED: u8 = 2;

type F = [f32; 16];

#[inline(always)]
fn zip(a: F, b: F, f: impl Fn(f32, f32) -> f32) -> F {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl<const LIMITS: u8> Simd for Portable<LIMITS> {
    type F = F;
    type Bytes = [u8; 64];
    type Acc = [i32; 16];
    type WideAcc = [i32; 16];
    type Segments = [u8; 256];
    const K_UNSIGNED: bool = false;
    const WIDE_OFFSET: i32 = 0;
    const PAIRS: bool = LIMITS == PAIRS;
    const WEIGHT_MOST: f32 = if LIMITS == SIGNED { 127.0 } else { 255.0 };
    const WIDE_HEADS: usize = 4;

    fn splat(self, x: f32) -> F {
        [x; 16]
    }
    fn load(self, p: &[f32; 16]) -> F {
        *p
    }
    fn store(self, p: &mut [f32; 16], x: F) {
        *p = x;
    }
    fn f32_bytes(self, p: &[u8; 64]) -> F {
        let words = p.as_chunks::<4>().0;
        std::array::from_fn(|i| f32::from_le_bytes(words[i]))
    }
    fn f16_bytes(self, p: &[u8; 32]) -> F {
        let words = p.as_chunks::<2>().0;
        std::array::from_fn(|i| f16::from_le_bytes(words[i]).to_f32())
    }
    fn bf16_bytes(self, p: &[u8; 64]) -> [F; 2] {
        let words = p.as_chunks::<4>().0.map_u32();
        [words.map(|w| f32::from_bits(w << 16)), words.map(|w| f32::from_bits(w & 0xffff_0000))]
    }
    fn add(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a + b)
    }
    fn sub(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a - b)
    }
    fn mul(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a * b)
    }
    fn fma(self, a: F, b: F, c: F) -> F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    fn max(self, a: F, b: F) -> F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    fn round(self, x: F) -> F {
        x.map(f32::round_ties_even)
    }
    fn scale2(self, x: F, n: F) -> F {
        zip(x, n, |x, n| x * f32::from_bits(((n as i32).wrapping_add(127) << 23) as u32))
    }
    fn within(self, from: i32, to: i32, a: F, b: F) -> F {
        std::array::from_fn(|i| if (from..to).contains(&(i as i32)) { a[i] } else { b[i] })
    }
    fn keep_from(self, x: F, limit: F, a: F) -> F {
        std::array::from_fn(|i| if x[i] >= limit[i] { a[i] } else { 0.0 })
    }
    fn swap<const H: usize>(self, x: F) -> F {
        std::array::from_fn(|i| x[i ^ H])
    }
    fn reverse(self, x: F) -> F {
        std::array::from_fn(|i| x[15 - i])
    }
    fn sum(self, mut x: F) -> f32 {
        for h in [8, 4, 2, 1] {
            (0..h).for_each(|i| x[i] += x[i + h]);
        }
        x[0]
    }
    fn max_lane(self, x: F) -> f32 {
        x.into_iter().fold(x[0], |a, b| if a > b { a } else { b })
    }
    fn prefetch(self, _: *const u8) {}

    fn bytes(self, p: &[u8; 64]) -> [u8; 64] {
        *p
    }
    fn unfold(self, p: &[u8; 32]) -> [u8; 64] {
        std::array::from_fn(|i| p[i % 32] >> (i / 32 * 4))
    }
    fn upper(self, x: [u8; 64]) -> [u8; 64] {
        x.map(|x| x >> 4)
    }
    fn store_bytes(self, p: &mut [u8; 64], x: [u8; 64]) {
        *p = x;
    }
    fn shl<const N: i32>(self, x: [u8; 64]) -> [u8; 64] {
        words(x, x, |x, _| x << N)
    }
    fn shr<const N: i32>(self, x: [u8; 64]) -> [u8; 64] {
        words(x, x, |x, _| x >> N)
    }
    fn xor(self, a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        words(a, b, |a, b| a ^ b)
    }
    fn or(self, a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        words(a, b, |a, b| a | b)
    }
    fn not(self, x: [u8; 64]) -> [u8; 64] {
        x.map(|x| !x)
    }
    fn select(self, mask: u32, a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        words(a, b, |a, b| a & mask | b & !mask)
    }
    fn add_bytes(self, a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    fn sub_bytes(self, a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    fn increment(self, x: [u8; 64], ones: [u8; 64]) -> [u8; 64] {
        std::array::from_fn(|i| x[i].saturating_add(ones[i] & 1))
    }
    fn lanes_before<const N: i32>(self, x: [u8; 64], before: [u8; 64]) -> [u8; 64] {
        let bytes = 4 * N as usize;
        std::array::from_fn(|i| if i < bytes { before[64 + i - bytes] } else { x[i - bytes] })
    }
    fn is_clear(self, x: [u8; 64], bit: usize) -> [u8; 64] {
        x.map(|x| if x >> bit & 1 == 0 { 255 } else { 0 })
    }
    fn segments(self, segments: &RaisedSegments) -> [u8; 256] {
        segments.all
    }
    fn integers(self, segments: [u8; 256], x: [u8; 64]) -> [u8; 64] {
        x.map(|x| segments[usize::from(x)])
    }
    fn acc(self) -> [i32; 16] {
        [0; 16]
    }
    fn dot_k(self, acc: [i32; 16], codes: [u8; 64], q: u32) -> [i32; 16] {
        dot(acc, codes, q.to_le_bytes().map(|q| i32::from(q as i8)))
    }
    fn dot_v(self, acc: [i32; 16], codes: [u8; 64], w: u32) -> [i32; 16] {
        dot(acc, codes, w.to_le_bytes().map(i32::from))
    }
    fn acc_f32(self, acc: [i32; 16], bias: i32) -> F {
        acc.map(|a| (a + bias) as f32)
    }
    fn wide_acc(self) -> [i32; 16] {
        [0; 16]
    }
    fn dot_wide(self, acc: [i32; 16], codes: [u8; 64], w: u64) -> [i32; 16] {
        dot(acc, codes, [0, 16, 32, 48].map(|shift| i32::from((w >> shift) as i16)))
    }
    fn wide_f32(self, acc: [i32; 16], bias: i32) -> F {
        self.acc_f32(acc, bias)
    }
    fn to_u8(self, x: F) -> [u32; 4] {
        let bytes = x.map(|x| x.round_ties_even() as u8);
        std::array::from_fn(|i| u32::from_le_bytes(bytes.as_chunks::<4>().0[i]))
    }
    fn to_i8(self, x: F) -> [u32; 4] {
        let bytes = x.map(|x| x.round_ties_even() as i8 as u8);
        std::array::from_fn(|i| u32::from_le_bytes(bytes.as_chunks::<4>().0[i]))
    }
    fn to_wide(self, x: F) -> [u64; 4] {
        let ints = x.map(|x| x.round_ties_even().clamp(-WIDE_MAX, WIDE_MAX) as i32);
        std::array::from_fn(|i| {
            ints.as_chunks::<4>().0[i].iter().rev().fold(0, |word, v| word << 16 | u64::from(*v as u16))
        })
    }
}

/// `f` of the words of each lane.
#[inline(always)]
fn words(a: [u8; 64], b: [u8; 64], f: impl Fn(u32, u32) -> u32) -> [u8; 64] {
    let (a, b) = (a.as_chunks::<4>().0.map_u32(), b.as_chunks::<4>().0.map_u32());
    let mut out = [0; 64];
    for (out, (a, b)) in out.as_chunks_mut::<4>().0.iter_mut().zip(a.into_iter().zip(b)) {
        *out = f(a, b).to_le_bytes();
    }
    out
}

#[inline(always)]
fn dot(acc: [i32; 16], codes: [u8; 64], w: [i32; 4]) -> [i32; 16] {
    let codes = codes.as_chunks::<4>().0;
    std::array::from_fn(|i| acc[i] + (0..4).map(|j| i32::from(codes[i][j] as i8) * w[j]).sum::<i32>())
}

trait MapU32 {
    fn map_u32(&self) -> [u32; 16];
}

impl MapU32 for [[u8; 4]] {
    #[inline(always)]
    fn map_u32(&self) -> [u32; 16] {
        std::array::from_fn(|i| u32::from_le_bytes(self[i]))
    }
}

steps!(Portable<BYTES>, Portable::<BYTES>, 1, 1, 1, 1);
