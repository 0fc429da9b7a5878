//! The encoder's operations in AVX-512: one register is 32 costs.
use super::Costs;
use crate::simd::avx512::{Avx512, ops};
use core::arch::x86_64::*;

impl Costs for Avx512 {
    type C = __m512i;

    ops! {
        fn costs(self, p: &[u16; 32]) -> __m512i = _mm512_loadu_si512(p.as_ptr().cast());
        fn splat_cost(self, x: u16) -> __m512i = _mm512_set1_epi16(x as i16);
        fn xor_lanes(self, x: __m512i, y: usize) -> __m512i =
            _mm512_permutexvar_epi16(self.costs(&XOR_LANES[y % 16]), x);
        fn unzip(self, x: __m512i) -> __m512i = _mm512_permutexvar_epi16(self.costs(&UNZIP), x);
        fn zip(self, x: [__m512i; 2]) -> [__m512i; 2] = [
            _mm512_permutex2var_epi16(x[0], self.costs(&ZIP[0]), x[1]),
            _mm512_permutex2var_epi16(x[0], self.costs(&ZIP[1]), x[1]),
        ];
        fn distance(self, x: __m512i, v: __m512i) -> __m512i = {
            let d = _mm512_max_epi16(_mm512_subs_epi16(x, v), _mm512_subs_epi16(v, x));
            let d = _mm512_adds_epi16(d, d);
            _mm512_mulhrs_epi16(d, d)
        };
        fn add_costs(self, x: __m512i, y: __m512i) -> __m512i = _mm512_adds_epu16(x, y);
        fn sub_costs(self, x: __m512i, y: __m512i) -> __m512i = _mm512_subs_epu16(x, y);
        fn better(self, best: __m512i, best_edge: __m512i, cost: __m512i, edge: __m512i) -> (__m512i, __m512i) = {
            let less = _mm512_cmplt_epu16_mask(cost, best);
            (_mm512_min_epu16(best, cost), _mm512_mask_mov_epi16(best_edge, less, edge))
        };
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

/// Lane i ^ y, for each y.
static XOR_LANES: [[u16; 32]; 16] = {
    let (mut lanes, mut i) = ([[0; 32]; 16], 0);
    while i < 512 {
        lanes[i / 32][i % 32] = ((i / 32) ^ (i % 32)) as u16;
        i += 1;
    }
    lanes
};
/// Where `unzip` finds its lanes.
const UNZIP: [u16; 32] = {
    let (mut lanes, mut i) = ([0; 32], 0);
    while i < 32 {
        lanes[i] = (2 * (i % 16) + i / 16) as u16;
        i += 1;
    }
    lanes
};
/// Where `zip` finds its lanes.
const ZIP: [[u16; 32]; 2] = {
    let (mut lanes, mut i) = ([[0; 32]; 2], 0);
    while i < 64 {
        lanes[i / 32][i % 32] = (i % 4 * 16 + i / 4) as u16;
        i += 1;
    }
    lanes
};
