//! AVX-512 with VNNI and VBMI: one register is 16 lanes; `vpdpbusd` multiplies unsigned by signed bytes, `vpermi2b`
//! looks up 128 bytes.
use super::Simd;
use super::steps::prelude::*;
use crate::trellis::RaisedSegments;
use core::arch::x86_64::*;

pub(super) fn is_available() -> bool {
    use std::arch::is_x86_feature_detected as has;
    let wide = has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq");
    wide && has!("avx512vnni") && has!("avx512vbmi") && has!("fma") && has!("f16c")
}

/// Exists only inside functions compiled for the features of `is_available`.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

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

pub(super) use ops;

impl Simd for Avx512 {
    type F = __m512;
    type Bytes = __m512i;
    type Acc = __m512i;
    /// High and low limbs: the sum is 128 high + low.
    type WideAcc = [__m512i; 2];
    type Segments = [__m512i; 4];
    const K_UNSIGNED: bool = true;
    const WIDE_OFFSET: i32 = 128;
    const PAIRS: bool = false;
    const WEIGHT_MOST: f32 = 255.0;
    const WIDE_HEADS: usize = 4;

    ops! {
        fn splat(self, x: f32) -> __m512 = _mm512_set1_ps(x);
        fn load(self, p: &[f32; 16]) -> __m512 = _mm512_loadu_ps(p.as_ptr());
        fn f32_bytes(self, p: &[u8; 64]) -> __m512 = _mm512_loadu_ps(p.as_ptr().cast());
        fn f16_bytes(self, p: &[u8; 32]) -> __m512 = _mm512_cvtph_ps(_mm256_loadu_si256(p.as_ptr().cast()));
        fn bf16_bytes(self, p: &[u8; 64]) -> [__m512; 2] = {
            let pairs = _mm512_loadu_si512(p.as_ptr().cast());
            let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(-65536));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(odd)]
        };
        fn add(self, a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        fn sub(self, a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        fn mul(self, a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn max(self, a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        fn round(self, x: __m512) -> __m512 =
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
        fn scale2(self, x: __m512, n: __m512) -> __m512 = _mm512_scalef_ps(x, n);
        fn within(self, from: i32, to: i32, a: __m512, b: __m512) -> __m512 = {
            let below = [from, to].map(|n| ((1u32 << n.clamp(0, 16)) - 1) as u16);
            _mm512_mask_mov_ps(b, below[1] & !below[0], a)
        };
        fn keep_from(self, x: __m512, limit: __m512, a: __m512) -> __m512 =
            _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(x, limit), a);
        fn swap<const H: usize>(self, x: __m512) -> __m512 = match H {
            1 => _mm512_permute_ps::<0b10_11_00_01>(x),
            2 => _mm512_permute_ps::<0b01_00_11_10>(x),
            4 => _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x),
            _ => _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x),
        };
        fn reverse(self, x: __m512) -> __m512 = {
            let x = _mm512_shuffle_f32x4::<0b00_01_10_11>(x, x);
            _mm512_permute_ps::<0b00_01_10_11>(x)
        };
        fn sum(self, x: __m512) -> f32 = {
            let x = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        };
        fn max_lane(self, x: __m512) -> f32 = _mm512_reduce_max_ps(x);
        fn prefetch(self, p: *const u8) -> () = _mm_prefetch::<_MM_HINT_T1>(p.cast());

        fn bytes(self, p: &[u8; 64]) -> __m512i = _mm512_loadu_si512(p.as_ptr().cast());
        fn unfold(self, p: &[u8; 32]) -> __m512i = {
            let low = _mm256_loadu_si256(p.as_ptr().cast());
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), _mm256_srli_epi16::<4>(low))
        };
        fn upper(self, x: __m512i) -> __m512i = _mm512_srli_epi16::<4>(x);
        fn shl<const N: i32>(self, x: __m512i) -> __m512i = _mm512_sllv_epi32(x, _mm512_set1_epi32(N));
        fn shr<const N: i32>(self, x: __m512i) -> __m512i = _mm512_srlv_epi32(x, _mm512_set1_epi32(N));
        fn xor(self, a: __m512i, b: __m512i) -> __m512i = _mm512_xor_si512(a, b);
        fn or(self, a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        fn not(self, x: __m512i) -> __m512i = _mm512_ternarylogic_epi32::<0x55>(x, x, x);
        fn select(self, mask: u32, a: __m512i, b: __m512i) -> __m512i =
            _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi32(mask as i32), a, b);
        fn add_bytes(self, a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi8(a, b);
        fn sub_bytes(self, a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi8(a, b);
        fn increment(self, x: __m512i, ones: __m512i) -> __m512i =
            _mm512_adds_epu8(x, _mm512_and_si512(ones, _mm512_set1_epi8(1)));
        fn lanes_before<const N: i32>(self, x: __m512i, before: __m512i) -> __m512i = match N {
            1 => _mm512_alignr_epi32::<15>(x, before),
            2 => _mm512_alignr_epi32::<14>(x, before),
            _ => _mm512_alignr_epi32::<13>(x, before),
        };
        fn is_clear(self, x: __m512i, bit: usize) -> __m512i =
            _mm512_movm_epi8(_mm512_testn_epi8_mask(x, _mm512_set1_epi8((1u8 << bit) as i8)));
        /// Two look-ups: of the lower arguments, then of the upper ones.
        fn integers(self, segments: [__m512i; 4], x: __m512i) -> __m512i = {
            let [a, b, c, d] = segments;
            let (low, high) = (_mm512_permutex2var_epi8(a, x, b), _mm512_permutex2var_epi8(c, x, d));
            _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high)
        };
        fn acc(self) -> __m512i = _mm512_setzero_si512();
        fn dot_k(self, acc: __m512i, codes: __m512i, q: u32) -> __m512i =
            _mm512_dpbusd_epi32(acc, codes, _mm512_set1_epi32(q as i32));
        fn dot_v(self, acc: __m512i, codes: __m512i, w: u32) -> __m512i =
            _mm512_dpbusd_epi32(acc, _mm512_set1_epi32(w as i32), codes);
        fn acc_f32(self, acc: __m512i, bias: i32) -> __m512 =
            _mm512_cvtepi32_ps(_mm512_add_epi32(acc, _mm512_set1_epi32(bias)));
        fn wide_acc(self) -> [__m512i; 2] = [_mm512_setzero_si512(); 2];
        fn dot_wide(self, acc: [__m512i; 2], codes: __m512i, w: u64) -> [__m512i; 2] = {
            let codes = _mm512_xor_si512(codes, _mm512_set1_epi8(-128));
            [
                _mm512_dpbusd_epi32(acc[0], codes, _mm512_set1_epi32(w as i32)),
                _mm512_dpbusd_epi32(acc[1], codes, _mm512_set1_epi32((w >> 32) as i32)),
            ]
        };
        fn wide_f32(self, acc: [__m512i; 2], bias: i32) -> __m512 = {
            let sum = _mm512_add_epi32(_mm512_slli_epi32::<7>(acc[0]), acc[1]);
            _mm512_cvtepi32_ps(_mm512_add_epi32(sum, _mm512_set1_epi32(bias)))
        };
        fn to_u8(self, x: __m512) -> [u32; 4] = {
            let mut words = [0; 4];
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x));
            _mm_storeu_si128(words.as_mut_ptr().cast(), bytes);
            words
        };
        /// Four high limbs, then four low ones; the integer is 128 high + low.
        fn to_wide(self, x: __m512) -> [u64; 4] = {
            let v = _mm512_cvtps_epi32(x);
            let high = _mm512_srai_epi32::<7>(_mm512_add_epi32(v, _mm512_set1_epi32(64)));
            let low = _mm512_sub_epi32(v, _mm512_slli_epi32::<7>(high));
            let (high, low) = (_mm512_cvtepi32_epi8(high), _mm512_cvtepi32_epi8(low));
            let mut words = [0; 4];
            _mm_storeu_si128(words.as_mut_ptr().cast(), _mm_unpacklo_epi32(high, low));
            _mm_storeu_si128(words[2..].as_mut_ptr().cast(), _mm_unpackhi_epi32(high, low));
            words
        };
    }

    #[inline(always)]
    fn store(self, p: &mut [f32; 16], x: __m512) {
        // SAFETY: `self` exists only where AVX-512 is there; `p` is 64 bytes.
        unsafe { _mm512_storeu_ps(p.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn segments(self, segments: &RaisedSegments) -> [__m512i; 4] {
        let of = segments.all.as_chunks::<64>().0;
        [self.bytes(&of[0]), self.bytes(&of[1]), self.bytes(&of[2]), self.bytes(&of[3])]
    }

    #[inline(always)]
    fn store_bytes(self, p: &mut [u8; 64], x: __m512i) {
        // SAFETY: `self` exists only where AVX-512 is there; `p` is 64 bytes.
        unsafe { _mm512_storeu_si512(p.as_mut_ptr().cast(), x) }
    }

    /// The low bytes are those of u8.
    #[inline(always)]
    fn to_i8(self, x: __m512) -> [u32; 4] {
        self.to_u8(x)
    }
}

steps!(
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,avx2,fma,f16c")]
    Avx512,
    Avx512(()),
    2,
    4,
    4,
    2
);
