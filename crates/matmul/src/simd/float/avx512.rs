//! AVX-512: the 16 lanes are one register.

use std::arch::x86_64::*;

use super::{AHEAD, Acc, MicroTile, MicroTileInput, OutputColumns, PassRows, multiply, padded};
use crate::ACCUMULATORS;
use crate::float_element::{ElementF32, FloatElement, FloatFormat};

/// Computes what [`super::dots`] computes, for the rows of one pass.
///
/// # Safety
/// [`super::dots`] has checked instructions and lengths. There are at most 8 rows of `x`.
pub(super) unsafe fn dots<E: FloatElement>(x: PassRows<'_>, w: &[u8], to: OutputColumns) {
    // SAFETY: the caller's promise; M is the number of rows. M * N accumulators, N weights and a row fit the 32
    // registers.
    unsafe {
        match to.rows.len() {
            1 => multiply::<Avx512, E, 1, 6>(x, w, to),
            2 => multiply::<Avx512, E, 2, 6>(x, w, to),
            3 => multiply::<Avx512, E, 3, 6>(x, w, to),
            4 => multiply::<Avx512, E, 4, 6>(x, w, to),
            5 => multiply::<Avx512, E, 5, 4>(x, w, to),
            6 => multiply::<Avx512, E, 6, 4>(x, w, to),
            7 => multiply::<Avx512, E, 7, 3>(x, w, to),
            _ => multiply::<Avx512, E, 8, 3>(x, w, to),
        }
    }
}

struct Avx512;

impl MicroTile for Avx512 {
    unsafe fn accumulate<E: FloatElement, const M: usize, const N: usize>(input: MicroTileInput, acc: &mut Acc<M, N>) {
        // SAFETY: the caller's promise.
        unsafe { accumulate::<E, M, N>(input, acc) }
    }

    unsafe fn reduce(acc: &[f32; ACCUMULATORS]) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { reduce(acc) }
    }
}

/// Does [`MicroTile::accumulate`].
///
/// # Safety
/// The contract is that of [`MicroTile::accumulate`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
unsafe fn accumulate<E: FloatElement, const M: usize, const N: usize>(input: MicroTileInput, acc: &mut Acc<M, N>) {
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    let steps = input.len / ACCUMULATORS;
    // SAFETY: every step lies within the columns.
    unsafe {
        for i in 0..M {
            for j in 0..N {
                sums[i][j] = _mm512_loadu_ps(acc[i][j].as_ptr());
            }
        }
        for step in 0..steps {
            let at = step * ACCUMULATORS;
            let mut w = [_mm512_setzero_ps(); N];
            for j in 0..N {
                let from = input.w.add(j * input.w_stride + at * E::BYTES);
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD).cast());
                w[j] = load::<E>(from);
            }
            for i in 0..M {
                let x = _mm512_loadu_ps(input.x.add(i * input.x_stride + at));
                for j in 0..N {
                    sums[i][j] = _mm512_fmadd_ps(x, w[j], sums[i][j]);
                }
            }
        }
        let (at, tail) = (steps * ACCUMULATORS, input.len % ACCUMULATORS);
        if tail > 0 {
            for i in 0..M {
                let x = padded::<ElementF32>(input.x.add(i * input.x_stride + at).cast(), tail);
                let x = _mm512_loadu_ps(x.as_ptr());
                for j in 0..N {
                    let w = padded::<E>(input.w.add(j * input.w_stride + at * E::BYTES), tail);
                    sums[i][j] = _mm512_fmadd_ps(x, _mm512_loadu_ps(w.as_ptr()), sums[i][j]);
                }
            }
        }
        for i in 0..M {
            for j in 0..N {
                _mm512_storeu_ps(acc[i][j].as_mut_ptr(), sums[i][j]);
            }
        }
    }
}

/// Loads 16 elements as f32.
///
/// # Safety
/// `from` must be readable for 16 elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
unsafe fn load<E: FloatElement>(from: *const u8) -> __m512 {
    // SAFETY: the caller's promise; the loads need no alignment.
    unsafe {
        match E::FORMAT {
            FloatFormat::F32 => _mm512_loadu_ps(from.cast()),
            FloatFormat::F16 => _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())),
            FloatFormat::Bf16 => {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            }
        }
    }
}

/// Adds up the lanes in the order of `scalar::reduce`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn reduce(acc: &[f32; ACCUMULATORS]) -> f32 {
    // SAFETY: 16 floats are a register.
    let acc = unsafe { _mm512_loadu_ps(acc.as_ptr()) };
    let half = _mm256_add_ps(_mm512_castps512_ps256(acc), _mm512_extractf32x8_ps::<1>(acc));
    let four = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}
