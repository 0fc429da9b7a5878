//! The encoder's operations in plain Rust.
use super::Costs;
use crate::simd::portable::Portable;

impl<const LIMITS: u8> Costs for Portable<LIMITS> {
    type C = [u16; 32];

    fn costs(self, p: &[u16; 32]) -> [u16; 32] {
        *p
    }
    fn store_costs(self, p: &mut [u16; 32], x: [u16; 32]) {
        *p = x;
    }
    fn splat_cost(self, x: u16) -> [u16; 32] {
        [x; 32]
    }
    fn xor_lanes(self, x: [u16; 32], y: usize) -> [u16; 32] {
        std::array::from_fn(|i| x[i ^ (y % 16)])
    }
    fn unzip(self, x: [u16; 32]) -> [u16; 32] {
        std::array::from_fn(|i| x[i % 16 * 2 + i / 16])
    }
    fn zip(self, x: [[u16; 32]; 2]) -> [[u16; 32]; 2] {
        let x = x.as_flattened();
        [0, 32].map(|first| std::array::from_fn(|i| x[i % 4 * 16 + (first + i) / 4]))
    }
    fn distance(self, x: [u16; 32], v: [u16; 32]) -> [u16; 32] {
        std::array::from_fn(|i| {
            let most = i32::from(i16::MAX);
            let d = (i32::from(x[i] as i16) - i32::from(v[i] as i16)).abs().min(most);
            let d = (2 * d).min(most);
            ((d * d + (1 << 14)) >> 15) as u16
        })
    }
    fn add_costs(self, x: [u16; 32], y: [u16; 32]) -> [u16; 32] {
        std::array::from_fn(|i| x[i].saturating_add(y[i]))
    }
    fn sub_costs(self, x: [u16; 32], y: [u16; 32]) -> [u16; 32] {
        std::array::from_fn(|i| x[i].saturating_sub(y[i]))
    }
    fn better(self, best: [u16; 32], best_edge: [u16; 32], cost: [u16; 32], edge: [u16; 32]) -> ([u16; 32], [u16; 32]) {
        let less: [bool; 32] = std::array::from_fn(|i| cost[i] < best[i]);
        let of = |new: [u16; 32], old: [u16; 32]| std::array::from_fn(|i| if less[i] { new[i] } else { old[i] });
        (of(cost, best), of(edge, best_edge))
    }
    fn count(self, x: [u16; 32], v: [u16; 32], limit: [u16; 32]) -> [u16; 32] {
        std::array::from_fn(|i| x[i] + u16::from(v[i] as i16 >= limit[i] as i16))
    }
    fn min_cost(self, x: [u16; 32]) -> u16 {
        x.into_iter().fold(u16::MAX, u16::min)
    }
}
