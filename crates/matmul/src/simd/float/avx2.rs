//! AVX2 with FMA and F16C: the 16 lanes are two registers.

use std::arch::x86_64::*;

use super::{AHEAD, Acc, MicroTile, MicroTileInput, OutputColumns, PassRows, multiply, padded};
use crate::ACCUMULATORS;
use crate::float_element::{ElementF32, FloatElement, FloatFormat};

/// Computes what [`super::dots`] computes, for the rows of one pass.
///
/// # Safety
/// [`super::dots`] has checked instructions and lengths. There are at most 4 rows of `x`.
pub(super) unsafe fn dots<E: FloatElement>(x: PassRows<'_>, w: &[u8], to: OutputColumns) {
    // SAFETY: the caller's promise; M is the number of rows. M * N accumulators, N weights and a row fit the 16
    // registers.
    unsafe {
        match to.rows.len() {
            1 => multiply::<Avx2, E, 1, 6>(x, w, to),
            2 => multiply::<Avx2, E, 2, 4>(x, w, to),
            3 => multiply::<Avx2, E, 3, 4>(x, w, to),
            _ => multiply::<Avx2, E, 4, 3>(x, w, to),
        }
    }
}

struct Avx2;

impl MicroTile for Avx2 {
    unsafe fn accumulate<E: FloatElement, const M: usize, const N: usize>(input: MicroTileInput, acc: &mut Acc<M, N>) {
        // SAFETY: the caller's promise.
        unsafe {
            half::<E, M, N>(input, acc, 0);
            half::<E, M, N>(input, acc, 8);
        }
    }

    unsafe fn reduce(acc: &[f32; ACCUMULATORS]) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { reduce(acc) }
    }
}

/// Does lanes `lane..lane + 8` of [`MicroTile::accumulate`]. The lanes do not meet before the reduction, so going
/// through the columns once for each half of them lets a larger micro-tile fit the registers.
///
/// # Safety
/// The contract is that of [`MicroTile::accumulate`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn half<E: FloatElement, const M: usize, const N: usize>(
    input: MicroTileInput,
    acc: &mut Acc<M, N>,
    lane: usize,
) {
    let mut sums = [[_mm256_setzero_ps(); N]; M];
    let steps = input.len / ACCUMULATORS;
    // SAFETY: every step lies within the columns, and so do the eight lanes.
    unsafe {
        for i in 0..M {
            for j in 0..N {
                sums[i][j] = _mm256_loadu_ps(acc[i][j].as_ptr().add(lane));
            }
        }
        for step in 0..steps {
            let at = step * ACCUMULATORS + lane;
            let mut w = [_mm256_setzero_ps(); N];
            for j in 0..N {
                let from = input.w.add(j * input.w_stride + at * E::BYTES);
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD).cast());
                w[j] = load::<E>(from);
            }
            for i in 0..M {
                let x = _mm256_loadu_ps(input.x.add(i * input.x_stride + at));
                for j in 0..N {
                    sums[i][j] = _mm256_fmadd_ps(x, w[j], sums[i][j]);
                }
            }
        }
        let (at, tail) = (steps * ACCUMULATORS, input.len % ACCUMULATORS);
        if tail > 0 {
            for i in 0..M {
                let x = padded::<ElementF32>(input.x.add(i * input.x_stride + at).cast(), tail);
                let x = _mm256_loadu_ps(x.as_ptr().add(lane));
                for j in 0..N {
                    let w = padded::<E>(input.w.add(j * input.w_stride + at * E::BYTES), tail);
                    sums[i][j] = _mm256_fmadd_ps(x, _mm256_loadu_ps(w.as_ptr().add(lane)), sums[i][j]);
                }
            }
        }
        for i in 0..M {
            for j in 0..N {
                _mm256_storeu_ps(acc[i][j].as_mut_ptr().add(lane), sums[i][j]);
            }
        }
    }
}

/// Loads 8 elements as f32.
///
/// # Safety
/// `from` must be readable for 8 elements.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load<E: FloatElement>(from: *const u8) -> __m256 {
    // SAFETY: the caller's promise; the loads need no alignment.
    unsafe {
        match E::FORMAT {
            FloatFormat::F32 => _mm256_loadu_ps(from.cast()),
            FloatFormat::F16 => _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
            FloatFormat::Bf16 => {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
        }
    }
}

/// Adds up the lanes in the order of `scalar::reduce`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn reduce(acc: &[f32; ACCUMULATORS]) -> f32 {
    // SAFETY: 16 floats are two registers.
    let half = unsafe { _mm256_add_ps(_mm256_loadu_ps(acc.as_ptr()), _mm256_loadu_ps(acc.as_ptr().add(8))) };
    let four = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}
