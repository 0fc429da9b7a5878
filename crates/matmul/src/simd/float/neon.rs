//! NEON: the 16 lanes are four registers.

use std::arch::aarch64::*;

use super::{Acc, MicroTile, MicroTileInput, OutputColumns, PassRows, multiply, padded};
use crate::ACCUMULATORS;
use crate::float_element::{ElementF32, FloatElement, FloatFormat};

/// Computes what [`super::dots`] computes, for the rows of one pass.
///
/// # Safety
/// [`super::dots`] has checked instructions and lengths. There are at most 4 rows of `x`.
pub(super) unsafe fn dots<E: FloatElement>(x: PassRows<'_>, w: &[u8], to: OutputColumns) {
    // SAFETY: the caller's promise; M is the number of rows. M * N accumulators, N weights and a row fit the 32
    // registers.
    unsafe {
        match to.rows.len() {
            1 => multiply::<Neon, E, 1, 6>(x, w, to),
            2 => multiply::<Neon, E, 2, 6>(x, w, to),
            3 => multiply::<Neon, E, 3, 6>(x, w, to),
            _ => multiply::<Neon, E, 4, 5>(x, w, to),
        }
    }
}

struct Neon;

impl MicroTile for Neon {
    unsafe fn accumulate<E: FloatElement, const M: usize, const N: usize>(input: MicroTileInput, acc: &mut Acc<M, N>) {
        for lane in (0..ACCUMULATORS).step_by(4) {
            // SAFETY: the caller's promise.
            unsafe { quarter::<E, M, N>(input, acc, lane) }
        }
    }

    unsafe fn reduce(acc: &[f32; ACCUMULATORS]) -> f32 {
        // SAFETY: the caller's promise; 16 floats are four registers.
        unsafe {
            let [a, b, c, d] = [0, 4, 8, 12].map(|lane| vld1q_f32(acc.as_ptr().add(lane)));
            let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }
}

/// Does lanes `lane..lane + 4` of [`MicroTile::accumulate`]. The lanes do not meet before the reduction, so going
/// through the columns once for each quarter of them lets a larger micro-tile fit the registers.
///
/// # Safety
/// The contract is that of [`MicroTile::accumulate`].
#[target_feature(enable = "neon")]
unsafe fn quarter<E: FloatElement, const M: usize, const N: usize>(
    input: MicroTileInput,
    acc: &mut Acc<M, N>,
    lane: usize,
) {
    let mut sums = [[vdupq_n_f32(0.); N]; M];
    let steps = input.len / ACCUMULATORS;
    // SAFETY: every step lies within the columns, and so do the four lanes.
    unsafe {
        for i in 0..M {
            for j in 0..N {
                sums[i][j] = vld1q_f32(acc[i][j].as_ptr().add(lane));
            }
        }
        for step in 0..steps {
            let at = step * ACCUMULATORS + lane;
            let mut w = [vdupq_n_f32(0.); N];
            for j in 0..N {
                w[j] = load::<E>(input.w.add(j * input.w_stride + at * E::BYTES));
            }
            for i in 0..M {
                let x = vld1q_f32(input.x.add(i * input.x_stride + at));
                for j in 0..N {
                    sums[i][j] = vfmaq_f32(sums[i][j], x, w[j]);
                }
            }
        }
        let (at, tail) = (steps * ACCUMULATORS, input.len % ACCUMULATORS);
        if tail > 0 {
            for i in 0..M {
                let x = padded::<ElementF32>(input.x.add(i * input.x_stride + at).cast(), tail);
                let x = vld1q_f32(x.as_ptr().add(lane));
                for j in 0..N {
                    let w = padded::<E>(input.w.add(j * input.w_stride + at * E::BYTES), tail);
                    sums[i][j] = vfmaq_f32(sums[i][j], x, vld1q_f32(w.as_ptr().add(lane)));
                }
            }
        }
        for i in 0..M {
            for j in 0..N {
                vst1q_f32(acc[i][j].as_mut_ptr().add(lane), sums[i][j]);
            }
        }
    }
}

/// Loads 4 elements as f32.
///
/// # Safety
/// `from` must be readable for 4 elements.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load<E: FloatElement>(from: *const u8) -> float32x4_t {
    // SAFETY: the caller's promise; loads of bytes need no alignment.
    unsafe {
        match E::FORMAT {
            FloatFormat::F32 => vreinterpretq_f32_u8(vld1q_u8(from)),
            FloatFormat::F16 => crate::simd::f16::f16_to_f32(vmovl_u16(vreinterpret_u16_u8(vld1_u8(from)))),
            FloatFormat::Bf16 => vreinterpretq_f32_u32(vshll_n_u16::<16>(vreinterpret_u16_u8(vld1_u8(from)))),
        }
    }
}
