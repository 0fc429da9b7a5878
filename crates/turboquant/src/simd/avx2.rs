//! AVX2 with FMA and F16C: two registers are 16 lanes. Without VNNI, `maddubs` adds pairs of u8 x i8 products in 16
//! bits, so queries and weights are kept small enough that a pair cannot saturate; 15-bit forms go through 16-bit
//! `madd`.
use super::Simd;
use super::steps::prelude::*;
use crate::trellis::RaisedSegments;
use core::arch::x86_64::*;

pub(super) fn is_available() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("fma") && has!("f16c")
}

/// Exists only inside functions compiled for the features of `is_available`.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

type F = [__m256; 2];
pub(super) type I = [__m256i; 2];

macro_rules! ops {
    ($(
        $(#[$attr:meta])*
        fn $name:ident $(<const $n:ident: $nt:ty>)? ($me:ident $(, $arg:ident: $t:ty)*) -> $r:ty = $e:expr;
    )*) => {
        $($(#[$attr])*
        #[inline(always)]
        fn $name $(<const $n: $nt>)? ($me $(, $arg: $t)*) -> $r {
            // SAFETY: `self` exists only where the features are there; pointers come from references of the right size.
            unsafe { $e }
        })*
    };
}

macro_rules! helpers {
    ($($(#[$attr:meta])* fn $name:ident($($arg:ident: $t:ty),*) -> $r:ty = $e:expr;)*) => {
        $($(#[$attr])*
        #[inline(always)]
        fn $name($($arg: $t),*) -> $r {
            // SAFETY: only operations of `Avx2` call this, and its value exists only where the features are there.
            unsafe { $e }
        })*
    };
}

/// An expression of each of two registers. No closures here: they would be compiled without the features.
macro_rules! both {
    ($pair:expr, $x:ident => $e:expr) => {{
        let [a, b] = $pair;
        [
            {
                let $x = a;
                $e
            },
            {
                let $x = b;
                $e
            },
        ]
    }};
}

pub(super) use {both, helpers, ops};

impl Simd for Avx2 {
    type F = F;
    type Bytes = I;
    type Acc = I;
    /// Two sums a lane, for lanes 0..4, 4..8, 8..12, 12..16.
    type WideAcc = [__m256i; 4];
    type Segments = I;
    const K_UNSIGNED: bool = true;
    const WIDE_OFFSET: i32 = 0;
    const PAIRS: bool = true;
    const WEIGHT_MOST: f32 = 255.0;
    const WIDE_HEADS: usize = 2;

    ops! {
        fn splat(self, x: f32) -> F = [_mm256_set1_ps(x); 2];
        fn load(self, p: &[f32; 16]) -> F = [_mm256_loadu_ps(p.as_ptr()), _mm256_loadu_ps(p[8..].as_ptr())];
        fn f32_bytes(self, p: &[u8; 64]) -> F =
            [_mm256_loadu_ps(p.as_ptr().cast()), _mm256_loadu_ps(p[32..].as_ptr().cast())];
        fn f16_bytes(self, p: &[u8; 32]) -> F = [
            _mm256_cvtph_ps(_mm_loadu_si128(p.as_ptr().cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(p[16..].as_ptr().cast())),
        ];
        fn bf16_bytes(self, p: &[u8; 64]) -> [F; 2] = {
            let pairs = self.bytes(p);
            let odd = _mm256_set1_epi32(-65536);
            [
                both!(pairs, x => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x))),
                both!(pairs, x => _mm256_castsi256_ps(_mm256_and_si256(x, odd))),
            ]
        };
        fn add(self, a: F, b: F) -> F = [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])];
        fn sub(self, a: F, b: F) -> F = [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])];
        fn mul(self, a: F, b: F) -> F = [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])];
        fn fma(self, a: F, b: F, c: F) -> F = [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])];
        fn max(self, a: F, b: F) -> F = [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])];
        fn round(self, x: F) -> F =
            both!(x, x => _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x));
        fn scale2(self, x: F, n: F) -> F = [_mm256_mul_ps(x[0], power(n[0])), _mm256_mul_ps(x[1], power(n[1]))];
        fn keep_from(self, x: F, limit: F, a: F) -> F = [
            _mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(x[0], limit[0]), a[0]),
            _mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(x[1], limit[1]), a[1]),
        ];
        fn swap<const H: usize>(self, x: F) -> F = match H {
            1 => both!(x, x => _mm256_permute_ps::<0b10_11_00_01>(x)),
            2 => both!(x, x => _mm256_permute_ps::<0b01_00_11_10>(x)),
            4 => both!(x, x => _mm256_permute2f128_ps::<1>(x, x)),
            _ => [x[1], x[0]],
        };
        fn reverse(self, x: F) -> F =
            both!([x[1], x[0]], x => _mm256_permute_ps::<0b00_01_10_11>(_mm256_permute2f128_ps::<1>(x, x)));
        fn sum(self, x: F) -> f32 = {
            let x = _mm256_add_ps(x[0], x[1]);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        };
        fn max_lane(self, x: F) -> f32 = {
            let x = _mm256_max_ps(x[0], x[1]);
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        };
        fn prefetch(self, p: *const u8) -> () = _mm_prefetch::<_MM_HINT_T1>(p.cast());

        fn bytes(self, p: &[u8; 64]) -> I =
            [_mm256_loadu_si256(p.as_ptr().cast()), _mm256_loadu_si256(p[32..].as_ptr().cast())];
        fn unfold(self, p: &[u8; 32]) -> I = {
            let low = _mm256_loadu_si256(p.as_ptr().cast());
            [low, _mm256_srli_epi16::<4>(low)]
        };
        fn upper(self, x: I) -> I = both!(x, x => _mm256_srli_epi16::<4>(x));
        fn shl<const N: i32>(self, x: I) -> I = both!(x, x => _mm256_slli_epi32::<N>(x));
        fn shr<const N: i32>(self, x: I) -> I = both!(x, x => _mm256_srli_epi32::<N>(x));
        fn xor(self, a: I, b: I) -> I = [_mm256_xor_si256(a[0], b[0]), _mm256_xor_si256(a[1], b[1])];
        fn or(self, a: I, b: I) -> I = [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])];
        fn not(self, x: I) -> I = both!(x, x => _mm256_xor_si256(x, _mm256_set1_epi8(-1)));
        fn select(self, mask: u32, a: I, b: I) -> I = {
            let mask = _mm256_set1_epi32(mask as i32);
            [
                _mm256_or_si256(_mm256_and_si256(mask, a[0]), _mm256_andnot_si256(mask, b[0])),
                _mm256_or_si256(_mm256_and_si256(mask, a[1]), _mm256_andnot_si256(mask, b[1])),
            ]
        };
        fn add_bytes(self, a: I, b: I) -> I = [_mm256_add_epi8(a[0], b[0]), _mm256_add_epi8(a[1], b[1])];
        fn sub_bytes(self, a: I, b: I) -> I = [_mm256_sub_epi8(a[0], b[0]), _mm256_sub_epi8(a[1], b[1])];
        fn increment(self, x: I, ones: I) -> I = {
            let one = _mm256_set1_epi8(1);
            [
                _mm256_adds_epu8(x[0], _mm256_and_si256(ones[0], one)),
                _mm256_adds_epu8(x[1], _mm256_and_si256(ones[1], one)),
            ]
        };
        fn lanes_before<const N: i32>(self, x: I, before: I) -> I = [
            four_before::<N>(x[0], _mm256_permute2x128_si256::<0x21>(before[1], x[0])),
            four_before::<N>(x[1], _mm256_permute2x128_si256::<0x21>(x[0], x[1])),
        ];
        fn is_clear(self, x: I, bit: usize) -> I = {
            let bit = _mm256_set1_epi8((1u8 << bit) as i8);
            both!(x, x => _mm256_cmpeq_epi8(_mm256_and_si256(x, bit), _mm256_setzero_si256()))
        };
        fn acc(self) -> I = [_mm256_setzero_si256(); 2];
        fn dot_k(self, acc: I, codes: I, q: u32) -> I = {
            let q = _mm256_set1_epi32(q as i32);
            [dot4(acc[0], codes[0], q), dot4(acc[1], codes[1], q)]
        };
        fn dot_v(self, acc: I, codes: I, w: u32) -> I = {
            let w = _mm256_set1_epi32(w as i32);
            [dot4(acc[0], w, codes[0]), dot4(acc[1], w, codes[1])]
        };
        fn acc_f32(self, acc: I, bias: i32) -> F =
            both!(acc, x => _mm256_cvtepi32_ps(_mm256_add_epi32(x, _mm256_set1_epi32(bias))));
        fn wide_acc(self) -> [__m256i; 4] = [_mm256_setzero_si256(); 4];
        fn dot_wide(self, acc: [__m256i; 4], codes: I, w: u64) -> [__m256i; 4] = {
            let w = _mm256_set1_epi64x(w as i64);
            [
                dot16(acc[0], _mm256_castsi256_si128(codes[0]), w),
                dot16(acc[1], _mm256_extracti128_si256::<1>(codes[0]), w),
                dot16(acc[2], _mm256_castsi256_si128(codes[1]), w),
                dot16(acc[3], _mm256_extracti128_si256::<1>(codes[1]), w),
            ]
        };
        fn wide_f32(self, acc: [__m256i; 4], bias: i32) -> F = {
            // `hadd` joins inside halves of registers, which leaves the lanes in the order 0 1 4 5 2 3 6 7.
            let joined = [_mm256_hadd_epi32(acc[0], acc[1]), _mm256_hadd_epi32(acc[2], acc[3])];
            self.acc_f32(both!(joined, x => _mm256_permute4x64_epi64::<0b11_01_10_00>(x)), bias)
        };
        fn to_u8(self, x: F) -> [u32; 4] = {
            let [a, b] = both!(x, x => _mm256_cvtps_epi32(x));
            // Packed inside halves: 0..4 8..12 4..8 12..16.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
            let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            let mut out = [0; 4];
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
            out
        };
        fn to_i8(self, x: F) -> [u32; 4] = {
            let [a, b] = both!(x, x => _mm256_cvtps_epi32(x));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            let mut out = [0; 4];
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
            out
        };
        /// Four i16.
        fn to_wide(self, x: F) -> [u64; 4] = {
            let [a, b] = both!(x, x => _mm256_cvtps_epi32(x));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
            let mut out = [0; 4];
            _mm256_storeu_si256(out.as_mut_ptr().cast(), words);
            out
        };
    }

    #[inline(always)]
    fn store(self, p: &mut [f32; 16], x: F) {
        let (a, b) = p.split_at_mut(8);
        // SAFETY: `self` exists only where AVX2 is there; each half is 32 bytes.
        unsafe {
            _mm256_storeu_ps(a.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(b.as_mut_ptr(), x[1]);
        }
    }

    /// Bases and slopes.
    #[inline(always)]
    fn segments(self, segments: &RaisedSegments) -> I {
        [sixteen_bytes(&segments.base), sixteen_bytes(&segments.slope)]
    }

    #[inline(always)]
    fn integers(self, segments: I, x: I) -> I {
        both!(x, x => integers(segments[0], segments[1], x))
    }

    #[inline(always)]
    fn store_bytes(self, p: &mut [u8; 64], x: I) {
        let (a, b) = p.split_at_mut(32);
        // SAFETY: `self` exists only where AVX2 is there; each half is 32 bytes.
        unsafe {
            _mm256_storeu_si256(a.as_mut_ptr().cast(), x[0]);
            _mm256_storeu_si256(b.as_mut_ptr().cast(), x[1]);
        }
    }

    #[inline(always)]
    fn within(self, from: i32, to: i32, a: F, b: F) -> F {
        [within8(from, to, a[0], b[0]), within8(from - 8, to - 8, a[1], b[1])]
    }
}

helpers! {
    /// Bytes to look up.
    fn sixteen_bytes(p: &[u8; 16]) -> __m256i = _mm256_broadcastsi128_si256(_mm_loadu_si128(p.as_ptr().cast()));
    /// Each byte 16 h + l becomes base[h] + (slope[h] l >> 5).
    fn integers(base: __m256i, slope: __m256i, x: __m256i) -> __m256i = {
        let piece = _mm256_and_si256(_mm256_srli_epi16::<4>(x), _mm256_set1_epi8(15));
        let (base, slope) = (_mm256_shuffle_epi8(base, piece), _mm256_shuffle_epi8(slope, piece));
        // The products of even bytes and of odd ones: the other byte of each pair is 0.
        let even = _mm256_maddubs_epi16(_mm256_and_si256(x, _mm256_set1_epi16(0x000f)), slope);
        let odd = _mm256_maddubs_epi16(_mm256_and_si256(x, _mm256_set1_epi16(0x0f00)), slope);
        let high = _mm256_and_si256(_mm256_slli_epi16::<3>(odd), _mm256_set1_epi16(0xff00_u16 as i16));
        _mm256_add_epi8(base, _mm256_or_si256(_mm256_srli_epi16::<5>(even), high))
    };
    /// acc + sum over 4 bytes of u8 a times i8 b.
    fn dot4(acc: __m256i, a: __m256i, b: __m256i) -> __m256i =
        _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
    fn dot16(acc: __m256i, codes: __m128i, w: __m256i) -> __m256i =
        _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_cvtepi8_epi16(codes), w));
    /// 2^n.
    fn power(n: __m256) -> __m256 = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(
        _mm256_cvtps_epi32(n),
        _mm256_set1_epi32(127),
    )));
    fn within8(from: i32, to: i32, a: __m256, b: __m256) -> __m256 = {
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let before = _mm256_cmpgt_epi32(_mm256_set1_epi32(from), lane);
        let inside = _mm256_andnot_si256(before, _mm256_cmpgt_epi32(_mm256_set1_epi32(to), lane));
        _mm256_blendv_ps(b, a, _mm256_castsi256_ps(inside))
    };
}

/// Lanes i - N of `x`. `before`: the last four lanes before `x`, and the first four of `x`.
#[inline(always)]
fn four_before<const N: i32>(x: __m256i, before: __m256i) -> __m256i {
    // SAFETY: only operations of `Avx2` call this.
    unsafe {
        match N {
            1 => _mm256_alignr_epi8::<12>(x, before),
            2 => _mm256_alignr_epi8::<8>(x, before),
            _ => _mm256_alignr_epi8::<4>(x, before),
        }
    }
}

steps!(
    #[target_feature(enable = "avx2,fma,f16c")]
    Avx2,
    Avx2(()),
    1,
    1,
    1,
    1
);
