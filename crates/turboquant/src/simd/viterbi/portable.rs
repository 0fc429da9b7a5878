//! The encoder's operations in plain Rust.
use super::Costs;
use crate::simd::portable::Portable;

impl<const LIMITS: u8> Costs for Portable<LIMITS> {
    type C = [u16; 32];

    fn costs(self, p: &[u16; 32]) -> [u16; 32] {
        *p
    }
    fn costs_twice(self, p: &[u16; 16]) -> [u16; 32] {
        std::array::from_fn(|i| p[i % 16])
    }
    fn store_costs(self, p: &mut [u16; 32], x: [u16; 32]) {
        *p = x;
    }
    fn splat_cost(self, x: u16) -> [u16; 32] {
        [x; 32]
    }
    fn splat_twice(self, x: u32) -> [u16; 32] {
        [x as u16; 32]
    }
    fn spread<const ROWS: usize>(self, x: [[u16; 32]; 2]) -> [[u16; 32]; 2] {
        x
    }
    fn reach<const ROWS: usize>(self, spread: [[u16; 32]; 2], level: usize) -> [[u16; 32]; 2] {
        if ROWS == 1 {
            return [std::array::from_fn(|i| spread[0][((level ^ i) & 15) << 1 | i >> 4]), spread[1]];
        }
        let x = spread.as_flattened();
        [0, 32].map(|first| std::array::from_fn(|i| x[((level ^ i) & 3) << 4 | (first + i) >> 2]))
    }
    fn distance(self, x: [u16; 32], v: [u16; 32], number: [u16; 32]) -> [u16; 32] {
        std::array::from_fn(|i| {
            let d = i32::from(x[i].wrapping_sub(v[i]) as i16);
            ((d * d + (1 << 14)) >> 15) as u16 & !3 | number[i]
        })
    }
    fn without_number(self, x: [u16; 32]) -> [u16; 32] {
        x.map(|x| x & !3)
    }
    fn before(self, x: [u16; 32], turns: &[u8; 16], home: [u16; 32]) -> [u16; 32] {
        std::array::from_fn(|i| home[i] ^ u16::from(turns[usize::from(x[i] & 3)]))
    }
    fn add_costs(self, x: [u16; 32], y: [u16; 32]) -> [u16; 32] {
        std::array::from_fn(|i| x[i].saturating_add(y[i]))
    }
    fn sub_costs(self, x: [u16; 32], y: [u16; 32]) -> [u16; 32] {
        std::array::from_fn(|i| x[i].saturating_sub(y[i]))
    }
    fn min_costs(self, x: [u16; 32], y: [u16; 32]) -> [u16; 32] {
        std::array::from_fn(|i| x[i].min(y[i]))
    }
    fn count(self, x: [u16; 32], v: [u16; 32], limit: [u16; 32]) -> [u16; 32] {
        std::array::from_fn(|i| x[i] + u16::from(v[i] as i16 >= limit[i] as i16))
    }
    fn min_cost(self, x: [u16; 32]) -> u16 {
        x.into_iter().fold(u16::MAX, u16::min)
    }
}
