//! The encoder's operations in AVX-512: one register is 32 costs.
use super::Costs;
use crate::simd::avx512::{Avx512, ops};
use crate::trellis::{Aligned, MOST_LEVELS};
use core::arch::x86_64::*;

impl Costs for Avx512 {
    type C = __m512i;

    ops! {
        fn costs(self, p: &[u16; 32]) -> __m512i = _mm512_loadu_si512(p.as_ptr().cast());
        fn costs_twice(self, p: &[u16; 16]) -> __m512i =
            _mm512_broadcast_i64x4(_mm256_loadu_si256(p.as_ptr().cast()));
        fn splat_cost(self, x: u16) -> __m512i = _mm512_set1_epi16(x as i16);
        fn splat_twice(self, x: u32) -> __m512i = _mm512_set1_epi32(x as i32);
        /// Costs of 32 states stay: one permutation a level does all. Of 64, lane 4 s + c gets what lane 16 c + s held,
        /// but in the second row lane 4 s + (c ^ 2): so one permutation of each row and two blends are enough.
        fn spread<const ROWS: usize>(self, x: [__m512i; 2]) -> [__m512i; 2] = if ROWS == 1 { x } else {
            let a = _mm512_permutexvar_epi16(self.costs(&ZIP.0[0]), x[0]);
            let b = _mm512_permutexvar_epi16(self.costs(&ZIP.0[1]), x[1]);
            [_mm512_mask_blend_epi16(0xcccc_cccc, a, b), _mm512_mask_blend_epi16(0xcccc_cccc, b, a)]
        };
        fn reach<const ROWS: usize>(self, spread: [__m512i; 2], level: usize) -> [__m512i; 2] = if ROWS == 1 {
            [_mm512_permutexvar_epi16(self.costs(&BEFORE.0[level % MOST_LEVELS]), spread[0]), spread[1]]
        } else {
            [
                _mm512_permutexvar_epi16(self.costs(&XOR_LANES.0[level % 4]), spread[0]),
                _mm512_permutexvar_epi16(self.costs(&XOR_LANES.0[(level % 4) ^ 2]), spread[1]),
            ]
        };
        fn distance(self, x: __m512i, v: __m512i, number: __m512i) -> __m512i = {
            let d = _mm512_sub_epi16(x, v);
            _mm512_ternarylogic_epi32::<0xba>(_mm512_mulhrs_epi16(d, d), _mm512_set1_epi16(3), number)
        };
        fn without_number(self, x: __m512i) -> __m512i = _mm512_andnot_si512(_mm512_set1_epi16(3), x);
        fn before(self, x: __m512i, turns: &[u8; 16], home: __m512i) -> __m512i = {
            let turns = _mm512_broadcast_i32x4(_mm_loadu_si128(turns.as_ptr().cast()));
            _mm512_xor_si512(_mm512_permutexvar_epi8(x, turns), home)
        };
        fn add_costs(self, x: __m512i, y: __m512i) -> __m512i = _mm512_adds_epu16(x, y);
        fn sub_costs(self, x: __m512i, y: __m512i) -> __m512i = _mm512_subs_epu16(x, y);
        fn min_costs(self, x: __m512i, y: __m512i) -> __m512i = _mm512_min_epu16(x, y);
        fn count(self, x: __m512i, v: __m512i, limit: __m512i) -> __m512i =
            _mm512_mask_add_epi16(x, _mm512_cmpge_epi16_mask(v, limit), x, _mm512_set1_epi16(1));
        fn min_cost(self, x: __m512i) -> u16 = {
            let x = _mm256_min_epu16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64::<1>(x));
            let x = _mm_min_epu16(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            _mm_cvtsi128_si32(_mm_minpos_epu16(x)) as u16
        };
    }

    #[inline(always)]
    fn store_costs(self, p: &mut [u16; 32], x: __m512i) {
        // SAFETY: `self` exists only where AVX-512 is there; `p` is 64 bytes.
        unsafe { _mm512_storeu_si512(p.as_mut_ptr().cast(), x) }
    }
}

/// The state before each of 32 states, for each level.
static BEFORE: Aligned<[[u16; 32]; MOST_LEVELS]> = {
    let (mut lanes, mut i) = ([[0; 32]; MOST_LEVELS], 0);
    while i < 32 * MOST_LEVELS {
        lanes[i / 32][i % 32] = (((i / 32) ^ i) % 16 * 2 + i % 32 / 16) as u16;
        i += 1;
    }
    Aligned(lanes)
};
/// Lane i ^ y, for each y.
static XOR_LANES: Aligned<[[u16; 32]; 4]> = {
    let (mut lanes, mut i) = ([[0; 32]; 4], 0);
    while i < 128 {
        lanes[i / 32][i % 32] = ((i / 32) ^ (i % 32)) as u16;
        i += 1;
    }
    Aligned(lanes)
};
/// Where `spread` finds the lanes of each of two rows.
static ZIP: Aligned<[[u16; 32]; 2]> = {
    let (mut lanes, mut i) = ([[0; 32]; 2], 0);
    while i < 32 {
        // Lanes 4 s + c with c < 2 of the first row, with c >= 2 of the second.
        lanes[0][i] = (i % 2 * 16 + i % 4 / 2 * 8 + i / 4) as u16;
        lanes[1][i ^ 2] = lanes[0][i];
        i += 1;
    }
    Aligned(lanes)
};
