//! The encoder's operations in AVX2: two registers are 32 costs.
use super::Costs;
use crate::simd::avx2::{Avx2, I, both, helpers, ops};
use core::arch::x86_64::*;

impl Costs for Avx2 {
    type C = I;

    ops! {
        fn costs(self, p: &[u16; 32]) -> I =
            [_mm256_loadu_si256(p.as_ptr().cast()), _mm256_loadu_si256(p[16..].as_ptr().cast())];
        fn splat_cost(self, x: u16) -> I = [_mm256_set1_epi16(x as i16); 2];
        fn xor_lanes(self, x: I, y: usize) -> I = {
            let pairs = _mm256_loadu_si256(XOR_PAIRS[y / 2 % 8].as_ptr().cast());
            let halves = _mm256_broadcastsi128_si256(_mm_loadu_si128(SWAP_HALVES[y % 2].as_ptr().cast()));
            both!(x, x => _mm256_shuffle_epi8(_mm256_permutevar8x32_epi32(x, pairs), halves))
        };
        fn unzip(self, x: I) -> I = {
            let low = _mm256_set1_epi32(0xffff);
            let even = _mm256_packus_epi32(_mm256_and_si256(x[0], low), _mm256_and_si256(x[1], low));
            let odd = _mm256_packus_epi32(_mm256_srli_epi32::<16>(x[0]), _mm256_srli_epi32::<16>(x[1]));
            both!([even, odd], x => _mm256_permute4x64_epi64::<0b11_01_10_00>(x))
        };
        fn zip(self, x: [I; 2]) -> [I; 2] = {
            let [[x0, x1], [x2, x3]] = x;
            // Each inside halves of registers.
            let [a, b] = [_mm256_unpacklo_epi16(x0, x1), _mm256_unpackhi_epi16(x0, x1)];
            let [c, d] = [_mm256_unpacklo_epi16(x2, x3), _mm256_unpackhi_epi16(x2, x3)];
            let [e, f] = [_mm256_unpacklo_epi32(a, c), _mm256_unpackhi_epi32(a, c)];
            let [g, h] = [_mm256_unpacklo_epi32(b, d), _mm256_unpackhi_epi32(b, d)];
            [
                [_mm256_permute2x128_si256::<0x20>(e, f), _mm256_permute2x128_si256::<0x20>(g, h)],
                [_mm256_permute2x128_si256::<0x31>(e, f), _mm256_permute2x128_si256::<0x31>(g, h)],
            ]
        };
        fn add_costs(self, x: I, y: I) -> I = [_mm256_adds_epu16(x[0], y[0]), _mm256_adds_epu16(x[1], y[1])];
        fn sub_costs(self, x: I, y: I) -> I = [_mm256_subs_epu16(x[0], y[0]), _mm256_subs_epu16(x[1], y[1])];
        fn min_cost(self, x: I) -> u16 = {
            let x = _mm256_min_epu16(x[0], x[1]);
            let x = _mm_min_epu16(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            _mm_cvtsi128_si32(_mm_minpos_epu16(x)) as u16
        };
    }

    #[inline(always)]
    fn distance(self, x: I, v: I) -> I {
        [distance(x[0], v[0]), distance(x[1], v[1])]
    }

    #[inline(always)]
    fn count(self, x: I, v: I, limit: I) -> I {
        [count(x[0], v[0], limit[0]), count(x[1], v[1], limit[1])]
    }

    #[inline(always)]
    fn better(self, best: I, best_edge: I, cost: I, edge: I) -> (I, I) {
        let (cost_a, edge_a) = better(best[0], best_edge[0], cost[0], edge[0]);
        let (cost_b, edge_b) = better(best[1], best_edge[1], cost[1], edge[1]);
        ([cost_a, cost_b], [edge_a, edge_b])
    }

    #[inline(always)]
    fn store_costs(self, p: &mut [u16; 32], x: I) {
        let (a, b) = p.split_at_mut(16);
        // SAFETY: `self` exists only where AVX2 is there; each half is 32 bytes.
        unsafe {
            _mm256_storeu_si256(a.as_mut_ptr().cast(), x[0]);
            _mm256_storeu_si256(b.as_mut_ptr().cast(), x[1]);
        }
    }
}

/// Pair i ^ y of 16-bit lanes, for each y.
static XOR_PAIRS: [[u32; 8]; 8] = {
    let (mut pairs, mut i) = ([[0; 8]; 8], 0);
    while i < 64 {
        pairs[i / 8][i % 8] = ((i / 8) ^ (i % 8)) as u32;
        i += 1;
    }
    pairs
};
/// The bytes of a register half in order, and with the lanes of each pair exchanged.
static SWAP_HALVES: [[u8; 16]; 2] = {
    let (mut bytes, mut i) = ([[0; 16]; 2], 0);
    while i < 32 {
        bytes[i / 16][i % 16] = ((i % 16) ^ (i / 16 * 2)) as u8;
        i += 1;
    }
    bytes
};

helpers! {
    fn distance(x: __m256i, v: __m256i) -> __m256i = {
        let d = _mm256_max_epi16(_mm256_subs_epi16(x, v), _mm256_subs_epi16(v, x));
        let d = _mm256_adds_epi16(d, d);
        _mm256_mulhrs_epi16(d, d)
    };
    fn better(best: __m256i, best_edge: __m256i, cost: __m256i, edge: __m256i) -> (__m256i, __m256i) = {
        let least = _mm256_min_epu16(best, cost);
        (least, _mm256_blendv_epi8(edge, best_edge, _mm256_cmpeq_epi16(least, best)))
    };
    /// x + 1 where v is at least `limit`, else x.
    fn count(x: __m256i, v: __m256i, limit: __m256i) -> __m256i = {
        let below = _mm256_cmpgt_epi16(limit, v);
        _mm256_add_epi16(x, _mm256_andnot_si256(below, _mm256_set1_epi16(1)))
    };
}
