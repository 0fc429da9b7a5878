//! The encoder's operations in AVX2: two registers are 32 costs.
use super::Costs;
use crate::simd::avx2::{Avx2, I, both, helpers, ops};
use core::arch::x86_64::*;

impl Costs for Avx2 {
    type C = I;

    ops! {
        fn costs(self, p: &[u16; 32]) -> I =
            [_mm256_loadu_si256(p.as_ptr().cast()), _mm256_loadu_si256(p[16..].as_ptr().cast())];
        fn costs_twice(self, p: &[u16; 16]) -> I = [_mm256_loadu_si256(p.as_ptr().cast()); 2];
        fn splat_cost(self, x: u16) -> I = [_mm256_set1_epi16(x as i16); 2];
        fn splat_twice(self, x: u32) -> I = [_mm256_set1_epi32(x as i32); 2];
        /// Costs of 32 states become those of the even lanes, then of the odd ones, both with their middle quarters
        /// exchanged; of 64, lane 4 s + c gets what lane 16 c + s held.
        fn spread<const ROWS: usize>(self, x: [I; 2]) -> [I; 2] = if ROWS == 1 {
            let order = _mm256_broadcastsi128_si256(_mm_loadu_si128(EVEN_ODD.as_ptr().cast()));
            let [a, b] = both!(x[0], x => _mm256_shuffle_epi8(x, order));
            [[_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)], x[1]]
        } else {
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
        fn reach<const ROWS: usize>(self, spread: [I; 2], level: usize) -> [I; 2] = {
            let lanes = _mm256_broadcastsi128_si256(_mm_loadu_si128(XOR_LANES[level % 4].as_ptr().cast()));
            if ROWS == 1 {
                let quarters = _mm256_loadu_si256(XOR_QUARTERS[level / 4 % 4].as_ptr().cast());
                let x = both!(spread[0], x => _mm256_permutevar8x32_epi32(x, quarters));
                [both!(x, x => _mm256_shuffle_epi8(x, lanes)), spread[1]]
            } else {
                let [a, b] = spread;
                [both!(a, x => _mm256_shuffle_epi8(x, lanes)), both!(b, x => _mm256_shuffle_epi8(x, lanes))]
            }
        };
        fn without_number(self, x: I) -> I = both!(x, x => _mm256_andnot_si256(_mm256_set1_epi16(3), x));
        fn before(self, x: I, turns: &[u8; 16], home: I) -> I = {
            let turns = _mm256_broadcastsi128_si256(_mm_loadu_si128(turns.as_ptr().cast()));
            let x = both!(x, x => _mm256_shuffle_epi8(turns, _mm256_and_si256(x, _mm256_set1_epi16(3))));
            [_mm256_xor_si256(x[0], home[0]), _mm256_xor_si256(x[1], home[1])]
        };
        fn min_costs(self, x: I, y: I) -> I = [_mm256_min_epu16(x[0], y[0]), _mm256_min_epu16(x[1], y[1])];
        fn add_costs(self, x: I, y: I) -> I = [_mm256_adds_epu16(x[0], y[0]), _mm256_adds_epu16(x[1], y[1])];
        fn sub_costs(self, x: I, y: I) -> I = [_mm256_subs_epu16(x[0], y[0]), _mm256_subs_epu16(x[1], y[1])];
        fn min_cost(self, x: I) -> u16 = {
            let x = _mm256_min_epu16(x[0], x[1]);
            let x = _mm_min_epu16(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            _mm_cvtsi128_si32(_mm_minpos_epu16(x)) as u16
        };
    }

    #[inline(always)]
    fn distance(self, x: I, v: I, number: I) -> I {
        [distance(x[0], v[0], number[0]), distance(x[1], v[1], number[1])]
    }

    #[inline(always)]
    fn count(self, x: I, v: I, limit: I) -> I {
        [count(x[0], v[0], limit[0]), count(x[1], v[1], limit[1])]
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

/// The bytes of the even lanes of a register half, then those of the odd ones.
static EVEN_ODD: [u8; 16] = {
    let (mut bytes, mut i) = ([0; 16], 0);
    while i < 16 {
        bytes[i] = (i / 2 % 4 * 4 + i / 8 * 2 + i % 2) as u8;
        i += 1;
    }
    bytes
};
/// The words of quarter i ^ y of a register, for each y, where the two middle quarters are exchanged.
static XOR_QUARTERS: [[u32; 8]; 4] = {
    let (mut words, mut i) = ([[0; 8]; 4], 0);
    while i < 32 {
        let quarter = [0, 2, 1, 3][(i / 8) ^ (i / 2 % 4)];
        words[i / 8][i % 8] = quarter * 2 + (i % 2) as u32;
        i += 1;
    }
    words
};
/// The bytes of lane i ^ y of a register half, for each y.
static XOR_LANES: [[u8; 16]; 4] = {
    let (mut bytes, mut i) = ([[0; 16]; 4], 0);
    while i < 64 {
        bytes[i / 16][i % 16] = ((i % 16) ^ (i / 16 * 2)) as u8;
        i += 1;
    }
    bytes
};

helpers! {
    fn distance(x: __m256i, v: __m256i, number: __m256i) -> __m256i = {
        let d = _mm256_sub_epi16(x, v);
        let square = _mm256_andnot_si256(_mm256_set1_epi16(3), _mm256_mulhrs_epi16(d, d));
        _mm256_or_si256(square, number)
    };
    /// x + 1 where v is at least `limit`, else x.
    fn count(x: __m256i, v: __m256i, limit: __m256i) -> __m256i = {
        let below = _mm256_cmpgt_epi16(limit, v);
        _mm256_add_epi16(x, _mm256_andnot_si256(below, _mm256_set1_epi16(1)))
    };
}
