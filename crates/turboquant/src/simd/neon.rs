//! NEON with the dot product extension: four registers are 16 lanes; `sdot` multiplies signed bytes by signed bytes.
use super::Simd;
use super::steps::prelude::*;
use crate::trellis::RaisedSegments;
use core::arch::aarch64::*;
use core::arch::asm;

pub(super) fn is_available() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

/// Exists only inside functions compiled for the features of `is_available`.
#[derive(Clone, Copy)]
pub(super) struct Neon(());

type F = [float32x4_t; 4];
type B = [uint8x16_t; 4];
type I = [int32x4_t; 4];

/// An expression of each of four registers, or of pairs of them. No closures: they would be compiled without the
/// features.
macro_rules! each {
    ($x:ident in $a:expr => $e:expr) => {{
        let [a, b, c, d] = $a;
        [each!(@ $x = a, $e), each!(@ $x = b, $e), each!(@ $x = c, $e), each!(@ $x = d, $e)]
    }};
    ($x:ident, $y:ident in $a:expr, $b:expr => $e:expr) => {{
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = ($a, $b);
        [
            each!(@ ($x, $y) = (a0, b0), $e),
            each!(@ ($x, $y) = (a1, b1), $e),
            each!(@ ($x, $y) = (a2, b2), $e),
            each!(@ ($x, $y) = (a3, b3), $e),
        ]
    }};
    (@ $x:pat = $v:expr, $e:expr) => {{
        let $x = $v;
        $e
    }};
}

macro_rules! ops {
    ($(
        $(#[$attr:meta])*
        fn $name:ident $(<const $n:ident: $nt:ty>)? ($me:ident $(, $arg:ident: $t:ty)*) -> $r:ty = $e:expr;
    )*) => {
        $($(#[$attr])*
        #[inline(always)]
        fn $name $(<const $n: $nt>)? ($me $(, $arg: $t)*) -> $r {
            // SAFETY: `self` exists only where the features are there; pointers come from references of the right size.
            #[allow(unused_unsafe)] // NEON itself is part of the target: some intrinsics are safe here
            unsafe { $e }
        })*
    };
}

macro_rules! helpers {
    ($($(#[$attr:meta])* fn $name:ident($($arg:ident: $t:ty),*) -> $r:ty = $e:expr;)*) => {
        $($(#[$attr])*
        #[inline(always)]
        fn $name($($arg: $t),*) -> $r {
            // SAFETY: only operations of `Neon` call this, and its value exists only where the features are there.
            #[allow(unused_unsafe)] // as in `ops`
            unsafe { $e }
        })*
    };
}

pub(super) use {each, helpers, ops};

impl Simd for Neon {
    type F = F;
    type Bytes = B;
    type Acc = I;
    /// High and low limbs: the sum is 128 high + low.
    type WideAcc = [I; 2];
    type Segments = [uint8x16_t; 2];
    const K_UNSIGNED: bool = false;
    const WIDE_OFFSET: i32 = 0;
    const PAIRS: bool = false;
    const WEIGHT_MOST: f32 = 127.0;
    const WIDE_HEADS: usize = 2;

    ops! {
        fn splat(self, x: f32) -> F = [vdupq_n_f32(x); 4];
        fn load(self, p: &[f32; 16]) -> F = [
            vld1q_f32(p.as_ptr()),
            vld1q_f32(p[4..].as_ptr()),
            vld1q_f32(p[8..].as_ptr()),
            vld1q_f32(p[12..].as_ptr()),
        ];
        fn f32_bytes(self, p: &[u8; 64]) -> F = each!(x in self.bytes(p) => vreinterpretq_f32_u8(x));
        fn f16_bytes(self, p: &[u8; 32]) -> F = {
            let halves = [vld1q_u8(p.as_ptr()), vld1q_u8(p[16..].as_ptr())];
            [widen_low(halves[0]), widen_high(halves[0]), widen_low(halves[1]), widen_high(halves[1])]
        };
        fn bf16_bytes(self, p: &[u8; 64]) -> [F; 2] = {
            let pairs = each!(x in self.bytes(p) => vreinterpretq_u32_u8(x));
            [
                each!(x in pairs => vreinterpretq_f32_u32(vshlq_n_u32::<16>(x))),
                each!(x in pairs => vreinterpretq_f32_u32(vandq_u32(x, vdupq_n_u32(0xffff_0000)))),
            ]
        };
        fn add(self, a: F, b: F) -> F = each!(x, y in a, b => vaddq_f32(x, y));
        fn sub(self, a: F, b: F) -> F = each!(x, y in a, b => vsubq_f32(x, y));
        fn mul(self, a: F, b: F) -> F = each!(x, y in a, b => vmulq_f32(x, y));
        fn fma(self, a: F, b: F, c: F) -> F = [
            vfmaq_f32(c[0], a[0], b[0]),
            vfmaq_f32(c[1], a[1], b[1]),
            vfmaq_f32(c[2], a[2], b[2]),
            vfmaq_f32(c[3], a[3], b[3]),
        ];
        fn max(self, a: F, b: F) -> F = each!(x, y in a, b => vmaxq_f32(x, y));
        fn round(self, x: F) -> F = each!(x in x => vrndnq_f32(x));
        fn scale2(self, x: F, n: F) -> F = each!(x, n in x, n => {
            let power = vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)));
            vmulq_f32(x, vreinterpretq_f32_s32(power))
        });
        fn within(self, from: i32, to: i32, a: F, b: F) -> F = [
            within4(from, to, a[0], b[0]),
            within4(from - 4, to - 4, a[1], b[1]),
            within4(from - 8, to - 8, a[2], b[2]),
            within4(from - 12, to - 12, a[3], b[3]),
        ];
        fn keep_from(self, x: F, limit: F, a: F) -> F = {
            let keep = each!(x, limit in x, limit => vcgeq_f32(x, limit));
            each!(keep, a in keep, a => vreinterpretq_f32_u32(vandq_u32(keep, vreinterpretq_u32_f32(a))))
        };
        fn swap<const H: usize>(self, x: F) -> F = match H {
            1 => each!(x in x => vrev64q_f32(x)),
            2 => each!(x in x => vextq_f32::<2>(x, x)),
            4 => [x[1], x[0], x[3], x[2]],
            _ => [x[2], x[3], x[0], x[1]],
        };
        fn reverse(self, x: F) -> F = {
            let x = each!(x in x => vrev64q_f32(x));
            each!(x in [x[3], x[2], x[1], x[0]] => vextq_f32::<2>(x, x))
        };
        fn sum(self, x: F) -> f32 = {
            let x = vaddq_f32(vaddq_f32(x[0], x[2]), vaddq_f32(x[1], x[3]));
            let x = vaddq_f32(x, vextq_f32::<2>(x, x));
            vgetq_lane_f32::<0>(x) + vgetq_lane_f32::<1>(x)
        };
        fn max_lane(self, x: F) -> f32 = vmaxvq_f32(vmaxq_f32(vmaxq_f32(x[0], x[2]), vmaxq_f32(x[1], x[3])));
        fn prefetch(self, p: *const u8) -> () = asm!(
            "prfm pldl2keep, [{}]",
            in(reg) p,
            options(nostack, readonly, preserves_flags)
        );

        fn bytes(self, p: &[u8; 64]) -> B = [
            vld1q_u8(p.as_ptr()),
            vld1q_u8(p[16..].as_ptr()),
            vld1q_u8(p[32..].as_ptr()),
            vld1q_u8(p[48..].as_ptr()),
        ];
        fn unfold(self, p: &[u8; 32]) -> B = {
            let low = [vld1q_u8(p.as_ptr()), vld1q_u8(p[16..].as_ptr())];
            [low[0], low[1], vshrq_n_u8::<4>(low[0]), vshrq_n_u8::<4>(low[1])]
        };
        fn upper(self, x: B) -> B = each!(x in x => vshrq_n_u8::<4>(x));
        fn shl<const N: i32>(self, x: B) -> B =
            each!(x in x => vreinterpretq_u8_u32(vshlq_n_u32::<N>(vreinterpretq_u32_u8(x))));
        fn shr<const N: i32>(self, x: B) -> B =
            each!(x in x => vreinterpretq_u8_u32(vshrq_n_u32::<N>(vreinterpretq_u32_u8(x))));
        fn xor(self, a: B, b: B) -> B = each!(a, b in a, b => veorq_u8(a, b));
        fn or(self, a: B, b: B) -> B = each!(a, b in a, b => vorrq_u8(a, b));
        fn not(self, x: B) -> B = each!(x in x => vmvnq_u8(x));
        fn select(self, mask: u32, a: B, b: B) -> B = {
            let mask = vreinterpretq_u8_u32(vdupq_n_u32(mask));
            each!(a, b in a, b => vbslq_u8(mask, a, b))
        };
        fn add_bytes(self, a: B, b: B) -> B = each!(a, b in a, b => vaddq_u8(a, b));
        fn sub_bytes(self, a: B, b: B) -> B = each!(a, b in a, b => vsubq_u8(a, b));
        fn increment(self, x: B, ones: B) -> B = {
            let one = vdupq_n_u8(1);
            each!(x, ones in x, ones => vqaddq_u8(x, vandq_u8(ones, one)))
        };
        fn lanes_before<const N: i32>(self, x: B, before: B) -> B =
            each!(before, x in [before[3], x[0], x[1], x[2]], x => match N {
                1 => vextq_u8::<12>(before, x),
                2 => vextq_u8::<8>(before, x),
                _ => vextq_u8::<4>(before, x),
            });
        fn is_clear(self, x: B, bit: usize) -> B = {
            let bit = vdupq_n_u8(1 << bit);
            each!(x in x => vmvnq_u8(vtstq_u8(x, bit)))
        };
        /// Bases and slopes.
        fn segments(self, segments: &RaisedSegments) -> [uint8x16_t; 2] =
            [vld1q_u8(segments.base.as_ptr()), vld1q_u8(segments.slope.as_ptr())];
        fn integers(self, segments: [uint8x16_t; 2], x: B) -> B = each!(x in x => {
            let [base, slope] = segments;
            let (piece, l) = (vshrq_n_u8::<4>(x), vandq_u8(x, vdupq_n_u8(15)));
            let slope = vqtbl1q_u8(slope, piece);
            let low = vshrn_n_u16::<5>(vmull_u8(vget_low_u8(slope), vget_low_u8(l)));
            let high = vshrn_n_u16::<5>(vmull_high_u8(slope, l));
            vaddq_u8(vqtbl1q_u8(base, piece), vcombine_u8(low, high))
        });
        fn acc(self) -> I = [vdupq_n_s32(0); 4];
        fn dot_k(self, acc: I, codes: B, q: u32) -> I = {
            let q = vreinterpretq_u8_u32(vdupq_n_u32(q));
            each!(acc, codes in acc, codes => sdot(acc, codes, q))
        };
        /// Weights up to 127 are the same as i8.
        fn dot_v(self, acc: I, codes: B, w: u32) -> I = self.dot_k(acc, codes, w);
        fn acc_f32(self, acc: I, bias: i32) -> F =
            each!(acc in acc => vcvtq_f32_s32(vaddq_s32(acc, vdupq_n_s32(bias))));
        fn wide_acc(self) -> [I; 2] = [[vdupq_n_s32(0); 4]; 2];
        fn dot_wide(self, acc: [I; 2], codes: B, w: u64) -> [I; 2] =
            [self.dot_k(acc[0], codes, w as u32), self.dot_k(acc[1], codes, (w >> 32) as u32)];
        fn wide_f32(self, acc: [I; 2], bias: i32) -> F =
            self.acc_f32(each!(high, low in acc[0], acc[1] => vaddq_s32(vshlq_n_s32::<7>(high), low)), bias);
        fn to_u8(self, x: F) -> [u32; 4] = {
            let mut words = [0; 4];
            vst1q_u32(words.as_mut_ptr(), narrow(each!(x in x => vcvtnq_s32_f32(x))));
            words
        };
        /// The low bytes are the same.
        fn to_i8(self, x: F) -> [u32; 4] = self.to_u8(x);
        /// Four high limbs, then four low ones; the integer is 128 high + low.
        fn to_wide(self, x: F) -> [u64; 4] = {
            let v = each!(x in x => vcvtnq_s32_f32(x));
            let high = each!(v in v => vshrq_n_s32::<7>(vaddq_s32(v, vdupq_n_s32(64))));
            let low = each!(v, high in v, high => vsubq_s32(v, vshlq_n_s32::<7>(high)));
            let (high, low) = (narrow(high), narrow(low));
            let mut words = [0u64; 4];
            vst1q_u64(words.as_mut_ptr(), vreinterpretq_u64_u32(vzip1q_u32(high, low)));
            vst1q_u64(words[2..].as_mut_ptr(), vreinterpretq_u64_u32(vzip2q_u32(high, low)));
            words
        };
    }

    #[inline(always)]
    fn store_bytes(self, p: &mut [u8; 64], x: B) {
        for (p, x) in p.as_chunks_mut::<16>().0.iter_mut().zip(x) {
            // SAFETY: NEON is part of the target; `p` is 16 bytes.
            unsafe { vst1q_u8(p.as_mut_ptr(), x) }
        }
    }

    #[inline(always)]
    fn store(self, p: &mut [f32; 16], x: F) {
        for (p, x) in p.as_chunks_mut::<4>().0.iter_mut().zip(x) {
            // SAFETY: NEON is part of the target; `p` is 16 bytes.
            unsafe { vst1q_f32(p.as_mut_ptr(), x) }
        }
    }
}

helpers! {
    /// acc + sum over 4 bytes of i8 a times i8 b. The intrinsic is not stable yet.
    fn sdot(acc: int32x4_t, a: uint8x16_t, b: uint8x16_t) -> int32x4_t = {
        let mut acc = acc;
        asm!(
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
        acc
    };
    /// The first four of eight f16 as f32.
    fn widen_low(x: uint8x16_t) -> float32x4_t = {
        let out: float32x4_t;
        asm!("fcvtl {out:v}.4s, {x:v}.4h", out = lateout(vreg) out, x = in(vreg) x, options(pure, nomem, nostack));
        out
    };
    /// The last four of eight f16 as f32.
    fn widen_high(x: uint8x16_t) -> float32x4_t = {
        let out: float32x4_t;
        asm!("fcvtl2 {out:v}.4s, {x:v}.8h", out = lateout(vreg) out, x = in(vreg) x, options(pure, nomem, nostack));
        out
    };
    fn within4(from: i32, to: i32, a: float32x4_t, b: float32x4_t) -> float32x4_t = {
        let lane = vld1q_s32([0, 1, 2, 3].as_ptr());
        let inside = vandq_u32(vcgeq_s32(lane, vdupq_n_s32(from)), vcltq_s32(lane, vdupq_n_s32(to)));
        vbslq_f32(inside, a, b)
    };
    /// The low bytes of 16 integers.
    fn narrow(v: I) -> uint32x4_t = {
        let low = vcombine_s16(vmovn_s32(v[0]), vmovn_s32(v[1]));
        let high = vcombine_s16(vmovn_s32(v[2]), vmovn_s32(v[3]));
        vreinterpretq_u32_s8(vcombine_s8(vmovn_s16(low), vmovn_s16(high)))
    };
}

steps!(
    #[target_feature(enable = "neon,dotprod")]
    Neon,
    Neon(()),
    1,
    1,
    1,
    1
);
