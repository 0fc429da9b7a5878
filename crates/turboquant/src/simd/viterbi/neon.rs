//! The encoder's operations in NEON: four registers are 32 costs.
use super::Costs;
use crate::simd::neon::{Neon, each, helpers, ops};
use core::arch::aarch64::*;

type C = [uint16x8_t; 4];

impl Costs for Neon {
    type C = C;

    ops! {
        fn costs(self, p: &[u16; 32]) -> C = [
            vld1q_u16(p.as_ptr()),
            vld1q_u16(p[8..].as_ptr()),
            vld1q_u16(p[16..].as_ptr()),
            vld1q_u16(p[24..].as_ptr()),
        ];
        fn costs_twice(self, p: &[u16; 16]) -> C = {
            let [a, b] = [vld1q_u16(p.as_ptr()), vld1q_u16(p[8..].as_ptr())];
            [a, b, a, b]
        };
        fn splat_cost(self, x: u16) -> C = [vdupq_n_u16(x); 4];
        fn splat_twice(self, x: u32) -> C = [vreinterpretq_u16_u32(vdupq_n_u32(x)); 4];
        /// Costs of 32 states become those of the even lanes, then of the odd ones; of 64, lane 4 s + c gets what lane
        /// 16 c + s held.
        fn spread<const ROWS: usize>(self, x: [C; 2]) -> [C; 2] = if ROWS == 1 {
            let [a, b, c, d] = x[0];
            [[vuzp1q_u16(a, b), vuzp1q_u16(c, d), vuzp2q_u16(a, b), vuzp2q_u16(c, d)], x[1]]
        } else {
            let [[a0, a1, b0, b1], [c0, c1, d0, d1]] = x;
            [zip8([a0, b0, c0, d0]), zip8([a1, b1, c1, d1])]
        };
        fn reach<const ROWS: usize>(self, spread: [C; 2], level: usize) -> [C; 2] = {
            let lanes = vld1q_u8(XOR_LANES[if ROWS == 1 { level % 8 } else { level % 4 }].as_ptr());
            let x = each!(x in spread[0] => vreinterpretq_u16_u8(vqtbl1q_u8(vreinterpretq_u8_u16(x), lanes)));
            if ROWS == 1 {
                [if level / 8 % 2 == 1 { [x[1], x[0], x[3], x[2]] } else { x }, spread[1]]
            } else {
                [x, each!(x in spread[1] => vreinterpretq_u16_u8(vqtbl1q_u8(vreinterpretq_u8_u16(x), lanes)))]
            }
        };
        fn distance(self, x: C, v: C, number: C) -> C = {
            let square = each!(x, v in x, v => {
                let d = vreinterpretq_s16_u16(vsubq_u16(x, v));
                vreinterpretq_u16_s16(vqrdmulhq_s16(d, d))
            });
            each!(square, number in square, number => vorrq_u16(vbicq_u16(square, vdupq_n_u16(3)), number))
        };
        fn without_number(self, x: C) -> C = each!(x in x => vbicq_u16(x, vdupq_n_u16(3)));
        fn before(self, x: C, turns: &[u8; 16], home: C) -> C = {
            let turns = vld1q_u8(turns.as_ptr());
            each!(x, home in x, home => {
                let number = vreinterpretq_u8_u16(vandq_u16(x, vdupq_n_u16(3)));
                veorq_u16(vreinterpretq_u16_u8(vqtbl1q_u8(turns, number)), home)
            })
        };
        fn min_costs(self, x: C, y: C) -> C = each!(x, y in x, y => vminq_u16(x, y));
        fn add_costs(self, x: C, y: C) -> C = each!(x, y in x, y => vqaddq_u16(x, y));
        fn sub_costs(self, x: C, y: C) -> C = each!(x, y in x, y => vqsubq_u16(x, y));
        fn count(self, x: C, v: C, limit: C) -> C = {
            let reached = each!(v, limit in v, limit =>
                vcgeq_s16(vreinterpretq_s16_u16(v), vreinterpretq_s16_u16(limit)));
            each!(x, reached in x, reached => vsubq_u16(x, reached))
        };
        fn min_cost(self, x: C) -> u16 = vminvq_u16(vminq_u16(vminq_u16(x[0], x[1]), vminq_u16(x[2], x[3])));
    }

    #[inline(always)]
    fn store_costs(self, p: &mut [u16; 32], x: C) {
        for (p, x) in p.as_chunks_mut::<8>().0.iter_mut().zip(x) {
            // SAFETY: NEON is part of the target; `p` is 16 bytes.
            unsafe { vst1q_u16(p.as_mut_ptr(), x) }
        }
    }
}

/// The bytes of the lanes i ^ y, for each y.
static XOR_LANES: [[u8; 16]; 8] = {
    let (mut bytes, mut i) = ([[0; 16]; 8], 0);
    while i < 128 {
        bytes[i / 16][i % 16] = ((i % 16) ^ (i / 16 * 2)) as u8;
        i += 1;
    }
    bytes
};

helpers! {
    /// Lane 4 s + c holds what lane s of `x[c]` held.
    fn zip8(x: C) -> C = {
        let (low, high) = (zip_words(vzip1q_u16(x[0], x[1]), vzip1q_u16(x[2], x[3])),
            zip_words(vzip2q_u16(x[0], x[1]), vzip2q_u16(x[2], x[3])));
        [low[0], low[1], high[0], high[1]]
    };
    /// Words of `a` and of `b` by turns.
    fn zip_words(a: uint16x8_t, b: uint16x8_t) -> [uint16x8_t; 2] = {
        let (a, b) = (vreinterpretq_u32_u16(a), vreinterpretq_u32_u16(b));
        [vreinterpretq_u16_u32(vzip1q_u32(a, b)), vreinterpretq_u16_u32(vzip2q_u32(a, b))]
    };
}
