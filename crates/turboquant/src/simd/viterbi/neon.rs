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
        fn splat_cost(self, x: u16) -> C = [vdupq_n_u16(x); 4];
        fn xor_lanes(self, x: C, y: usize) -> C = {
            let table = vld1q_u8(XOR_LANES[y % 8].as_ptr());
            let x = each!(x in x => vreinterpretq_u16_u8(vqtbl1q_u8(vreinterpretq_u8_u16(x), table)));
            if y / 8 % 2 == 1 { [x[1], x[0], x[3], x[2]] } else { x }
        };
        fn unzip(self, x: C) -> C =
            [vuzp1q_u16(x[0], x[1]), vuzp1q_u16(x[2], x[3]), vuzp2q_u16(x[0], x[1]), vuzp2q_u16(x[2], x[3])];
        fn zip(self, x: [C; 2]) -> [C; 2] = {
            let [[a0, a1, b0, b1], [c0, c1, d0, d1]] = x;
            [zip8([a0, b0, c0, d0]), zip8([a1, b1, c1, d1])]
        };
        fn distance(self, x: C, v: C) -> C = each!(x, v in x, v => {
            let (x, v) = (vreinterpretq_s16_u16(x), vreinterpretq_s16_u16(v));
            let d = vmaxq_s16(vqsubq_s16(x, v), vqsubq_s16(v, x));
            let d = vqaddq_s16(d, d);
            vreinterpretq_u16_s16(vqrdmulhq_s16(d, d))
        });
        fn add_costs(self, x: C, y: C) -> C = each!(x, y in x, y => vqaddq_u16(x, y));
        fn sub_costs(self, x: C, y: C) -> C = each!(x, y in x, y => vqsubq_u16(x, y));
        fn better(self, best: C, best_edge: C, cost: C, edge: C) -> (C, C) = {
            let less = each!(cost, best in cost, best => vcltq_u16(cost, best));
            let kept = each!(less, old in less, best_edge => vbicq_u16(old, less));
            let new = each!(less, edge in less, edge => vandq_u16(edge, less));
            (
                each!(best, cost in best, cost => vminq_u16(best, cost)),
                each!(kept, new in kept, new => vorrq_u16(kept, new)),
            )
        };
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
