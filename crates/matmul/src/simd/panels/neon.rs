//! NEON with `dotprod`: a panel's 16 rows are the lanes of four registers.

use std::arch::aarch64::*;
use std::ops::{Add, BitAnd, BitOr, BitXor, Mul, Neg, Range, Shl, Shr};

use super::{ActivationRange, PanelLanes, unpack_with};
use crate::quant::lanes::{Lanes, SIGNED_MIDDLE};
use crate::quant::{ACTIVATION_BLOCK, BlockLayout, PanelForm};
use crate::quant::{PANEL_ROWS, PANELS, Panel, PanelSums};
use crate::simd::f16::f16_to_f32;

/// The most rows of `x` that share a pass over a panel.
pub(super) const MAX_ROWS: usize = 3;

/// Does what `scalar::unpack` does.
///
/// # Safety
/// The features of `Isa::Neon` must be there, and blocks `blocks` readable in each of the 16 rows.
#[target_feature(enable = "neon")]
pub(super) unsafe fn unpack<B: BlockLayout>(rows: &[u8], blocks: Range<usize>, panel: &mut Panel) {
    // SAFETY: the caller's promise.
    unsafe { unpack_with::<Words, B>(rows, blocks, panel) }
}

/// A word of each of the 16 rows. Every aarch64 processor that the crate is built for has NEON.
#[derive(Clone, Copy)]
struct Words([uint32x4_t; 4]);

/// An f32 of each of the 16 rows.
#[derive(Clone, Copy)]
struct Floats([float32x4_t; 4]);

macro_rules! operator {
    ($operator:ident, $method:ident, |$quarter:ident, $by:ident| $result:expr) => {
        impl $operator<u32> for Words {
            type Output = Self;

            #[inline(always)]
            fn $method(mut self, $by: u32) -> Self {
                for quarter in &mut self.0 {
                    let $quarter = *quarter;
                    // SAFETY: NEON is there.
                    *quarter = unsafe { $result };
                }
                self
            }
        }
    };
}

operator!(BitAnd, bitand, |quarter, mask| vandq_u32(quarter, vdupq_n_u32(mask)));
operator!(BitXor, bitxor, |quarter, mask| veorq_u32(quarter, vdupq_n_u32(mask)));
operator!(Shl, shl, |quarter, by| vshlq_u32(quarter, vdupq_n_s32(by as i32)));
operator!(Shr, shr, |quarter, by| vshlq_u32(quarter, vdupq_n_s32(-(by as i32))));

impl BitOr for Words {
    type Output = Self;

    #[inline(always)]
    fn bitor(mut self, by: Self) -> Self {
        for q in 0..4 {
            // SAFETY: NEON is there.
            self.0[q] = unsafe { vorrq_u32(self.0[q], by.0[q]) };
        }
        self
    }
}

impl Add for Words {
    type Output = Self;

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for q in 0..4 {
            // SAFETY: NEON is there.
            self.0[q] = unsafe { vaddq_u32(self.0[q], other.0[q]) };
        }
        self
    }
}

impl Mul for Floats {
    type Output = Self;

    #[inline(always)]
    fn mul(mut self, by: Self) -> Self {
        for q in 0..4 {
            // SAFETY: NEON is there.
            self.0[q] = unsafe { vmulq_f32(self.0[q], by.0[q]) };
        }
        self
    }
}

impl Neg for Floats {
    type Output = Self;

    #[inline(always)]
    fn neg(mut self) -> Self {
        for quarter in &mut self.0 {
            // SAFETY: NEON is there.
            *quarter = unsafe { vnegq_f32(*quarter) };
        }
        self
    }
}

impl Lanes<PANEL_ROWS> for Words {
    type Float = Floats;

    const SIGNED_FLIP: u32 = 0;

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: NEON is there.
        Self([unsafe { vdupq_n_u32(0) }; 4])
    }

    #[inline(always)]
    fn store(self, to: &mut [u32; PANEL_ROWS]) {
        for q in 0..4 {
            // SAFETY: NEON is there; 16 words are four registers.
            unsafe { vst1q_u32(to.as_mut_ptr().add(4 * q), self.0[q]) }
        }
    }

    #[inline(always)]
    fn store_float(value: Floats, to: &mut [f32; PANEL_ROWS]) {
        for q in 0..4 {
            // SAFETY: as for `store`.
            unsafe { vst1q_f32(to.as_mut_ptr().add(4 * q), value.0[q]) }
        }
    }

    #[inline(always)]
    fn f16(self) -> Floats {
        // SAFETY: NEON is there.
        unsafe { Floats([f16_to_f32(self.0[0]), f16_to_f32(self.0[1]), f16_to_f32(self.0[2]), f16_to_f32(self.0[3])]) }
    }

    #[inline(always)]
    fn float_of_bits(self) -> Floats {
        // SAFETY: NEON is there.
        Floats(self.0.map(|of| unsafe { vreinterpretq_f32_u32(of) }))
    }

    #[inline(always)]
    fn float(self, offset: i32) -> Floats {
        // SAFETY: NEON is there.
        unsafe {
            let mut floats = [vdupq_n_f32(0.); 4];
            for q in 0..4 {
                floats[q] = vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(self.0[q]), vdupq_n_s32(offset)));
            }
            Floats(floats)
        }
    }

    #[inline(always)]
    fn power_of_two(self) -> Floats {
        // The two least are below the normal numbers, so that none comes from its bits alone: it is a product of two.
        Floats(self.0.map(|of| {
            // SAFETY: NEON is there.
            unsafe {
                let first = vshrq_n_u32::<1>(of);
                let bits = [first, vsubq_u32(of, first)].map(|of| vaddq_u32(of, vdupq_n_u32(127 - 64)));
                let [first, second] = bits.map(|of| vreinterpretq_f32_u32(vshlq_n_u32::<23>(of)));
                vmulq_f32(first, second)
            }
        }))
    }

    #[inline(always)]
    fn same(value: f32) -> Floats {
        // SAFETY: NEON is there.
        Floats([unsafe { vdupq_n_f32(value) }; 4])
    }

    #[inline(always)]
    fn bytes_of(self, table: &[i8; 16]) -> Self {
        Self(self.0.map(|of| {
            // SAFETY: NEON is there; 16 bytes are a register.
            unsafe {
                let table = vreinterpretq_u8_s8(vld1q_s8(table.as_ptr()));
                vreinterpretq_u32_u8(vqtbl1q_u8(table, vreinterpretq_u8_u32(of)))
            }
        }))
    }

    #[inline(always)]
    fn entries_of<const N: usize>(self, table: &[u32; N]) -> Self {
        const { assert!(N.is_power_of_two()) };
        let mut words = [0; PANEL_ROWS];
        self.store(&mut words);
        for word in &mut words {
            *word = table[*word as usize & (N - 1)];
        }
        // SAFETY: NEON is there; 16 words are four registers.
        Self([0, 1, 2, 3].map(|q| unsafe { vld1q_u32(words.as_ptr().add(4 * q)) }))
    }

    #[inline(always)]
    fn with_signs(mut self, signs: Self, at: u32) -> Self {
        // The byte that has the signs, four times, of each word of a register; and the bit in each of the four.
        let from = [0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c].map(|word| word + at / 8 * 0x0101_0101);
        let bits = if at.is_multiple_of(8) { 0x0804_0201 } else { 0x8040_2010 };
        for q in 0..4 {
            // SAFETY: NEON is there; `from` is a register.
            unsafe {
                let from = vreinterpretq_u8_u32(vld1q_u32(from.as_ptr()));
                let signs = vqtbl1q_u8(vreinterpretq_u8_u32(signs.0[q]), from);
                let negative = vtstq_u8(signs, vreinterpretq_u8_u32(vdupq_n_u32(bits)));
                let flipped = veorq_u8(vreinterpretq_u8_u32(self.0[q]), negative);
                let middle = vsubq_u8(vdupq_n_u8(SIGNED_MIDDLE), negative);
                self.0[q] = vreinterpretq_u32_u8(vaddq_u8(flipped, middle));
            }
        }
        self
    }
}

impl PanelLanes for Words {
    #[inline(always)]
    fn prefetch(at: *const u8) {
        // SAFETY: a prefetch of any address is allowed.
        unsafe { std::arch::asm!("prfm pldl2keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn four_words(from: *const u8, stride: usize) -> [Self; 4] {
        // SAFETY: the caller's promise.
        unsafe { four_words(from, stride) }
    }
}

/// Loads four words of each of the 16 rows, by 4 x 4 transpositions.
///
/// # Safety
/// 16 bytes must be readable in each row.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn four_words(from: *const u8, stride: usize) -> [Words; 4] {
    let mut words = [Words::zero(); 4];
    for q in 0..4 {
        let r = 4 * q;
        // SAFETY: the caller's promise.
        unsafe {
            let a = vreinterpretq_u32_u8(vld1q_u8(from.add(r * stride)));
            let b = vreinterpretq_u32_u8(vld1q_u8(from.add((r + 1) * stride)));
            let c = vreinterpretq_u32_u8(vld1q_u8(from.add((r + 2) * stride)));
            let d = vreinterpretq_u32_u8(vld1q_u8(from.add((r + 3) * stride)));
            let (ab, ab_odd) = (vreinterpretq_u64_u32(vtrn1q_u32(a, b)), vreinterpretq_u64_u32(vtrn2q_u32(a, b)));
            let (cd, cd_odd) = (vreinterpretq_u64_u32(vtrn1q_u32(c, d)), vreinterpretq_u64_u32(vtrn2q_u32(c, d)));
            words[0].0[q] = vreinterpretq_u32_u64(vtrn1q_u64(ab, cd));
            words[1].0[q] = vreinterpretq_u32_u64(vtrn1q_u64(ab_odd, cd_odd));
            words[2].0[q] = vreinterpretq_u32_u64(vtrn2q_u64(ab, cd));
            words[3].0[q] = vreinterpretq_u32_u64(vtrn2q_u64(ab_odd, cd_odd));
        }
    }
    words
}

/// Adds to `sums` the products of some rows of `x` with the panels, over `groups` scale groups.
///
/// # Safety
/// The features of `Isa::Neon` must be there, `rows` must have `sums.len() <= MAX_ROWS` rows of `groups` scale groups,
/// and the panels as many scale groups.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn multiply<F: PanelForm>(
    panels: &[Panel; PANELS],
    rows: ActivationRange,
    groups: usize,
    sums: &mut [PanelSums],
) {
    for (p, panel) in panels.iter().enumerate() {
        // SAFETY: the caller's promise; M is the number of rows.
        unsafe {
            match sums {
                [a] => micro_tile::<F, 1>(panel, rows, groups, [&mut a[p]]),
                [a, b] => micro_tile::<F, 2>(panel, rows, groups, [&mut a[p], &mut b[p]]),
                [a, b, c] => micro_tile::<F, 3>(panel, rows, groups, [&mut a[p], &mut b[p], &mut c[p]]),
                _ => unreachable!("at most MAX_ROWS"),
            }
        }
    }
}

/// Does [`multiply`] for `M` rows and one panel: a micro-tile of `M` x [`PANEL_ROWS`] elements.
///
/// # Safety
/// The contract is that of [`multiply`], with `M` rows.
#[target_feature(enable = "neon,dotprod")]
unsafe fn micro_tile<F: PanelForm, const M: usize>(
    panel: &Panel,
    rows: ActivationRange,
    groups: usize,
    sums: [&mut [f32; PANEL_ROWS]; M],
) {
    let steps = F::SCALE_GROUP / 4;
    // SAFETY: every group is within the panel and the rows.
    unsafe {
        let mut acc = [[vdupq_n_f32(0.); 4]; M];
        for i in 0..M {
            for q in 0..4 {
                acc[i][q] = vld1q_f32(sums[i].as_ptr().add(4 * q));
            }
        }
        for group in 0..groups {
            let mut dots = [[vdupq_n_s32(0); 4]; M];
            for i in 0..M {
                dots[i] = [vdupq_n_s32(*rows.corrections.add(i * rows.group_stride + group)); 4];
            }
            for step in group * steps..(group + 1) * steps {
                let w = panel.codes.as_ptr().add(step).cast::<i8>();
                for i in 0..M {
                    let x = rows.codes.add(i * rows.code_stride + step * 4).cast::<i32>().read_unaligned();
                    let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
                    for q in 0..4 {
                        dots[i][q] = dot(dots[i][q], vld1q_s8(w.add(16 * q)), x);
                    }
                }
            }
            for q in 0..4 {
                let scale = vld1q_f32(panel.scales.as_ptr().add(group).cast::<f32>().add(4 * q));
                for i in 0..M {
                    let x = vdupq_n_f32(
                        *rows.scales.add(i * rows.scale_stride + group * F::SCALE_GROUP / ACTIVATION_BLOCK),
                    );
                    acc[i][q] = vfmaq_f32(acc[i][q], vmulq_f32(vcvtq_f32_s32(dots[i][q]), scale), x);
                    if F::MINS {
                        let min = vld1q_f32(panel.mins.as_ptr().add(group).cast::<f32>().add(4 * q));
                        let x = vdupq_n_f32(*rows.sums.add(i * rows.group_stride + group));
                        acc[i][q] = vfmaq_f32(acc[i][q], min, x);
                    }
                }
            }
        }
        for i in 0..M {
            for q in 0..4 {
                vst1q_f32(sums[i].as_mut_ptr().add(4 * q), acc[i][q]);
            }
        }
    }
}

/// Adds the products of four codes to each lane by `sdot`, for which Rust has no stable function.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction is there and touches registers only.
    unsafe {
        std::arch::asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {x:v}.16b",
            sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
