//! AVX-512: the 16 lanes are one register.

use std::arch::x86_64::*;

use super::{Tile, padded, rows};
use crate::LANES;
use crate::weight::{Element, ElementF32, Format};

/// # Safety
/// As [`super::dots`] checks; at most 8 rows of `x`.
pub(super) unsafe fn dots<E: Element>(x: &[f32], k: usize, w: &[u8], out: &mut [&mut [f32]]) {
    // SAFETY: the caller's promise; M is the number of rows. M * N accumulators, N weights and a row fit the 32 registers.
    unsafe {
        match out.len() {
            1 => rows::<Avx512, E, 1, 6>(x, k, w, out),
            2 => rows::<Avx512, E, 2, 6>(x, k, w, out),
            3 => rows::<Avx512, E, 3, 6>(x, k, w, out),
            4 => rows::<Avx512, E, 4, 6>(x, k, w, out),
            5 => rows::<Avx512, E, 5, 4>(x, k, w, out),
            6 => rows::<Avx512, E, 6, 4>(x, k, w, out),
            7 => rows::<Avx512, E, 7, 3>(x, k, w, out),
            _ => rows::<Avx512, E, 8, 3>(x, k, w, out),
        }
    }
}

struct Avx512;

impl Tile for Avx512 {
    unsafe fn tile<E: Element, const M: usize, const N: usize>(
        x: *const f32,
        w: *const u8,
        stride: usize,
        k: usize,
    ) -> [[f32; N]; M] {
        // SAFETY: the caller's promise.
        unsafe { tile::<E, M, N>(x, w, stride, k) }
    }
}

/// # Safety
/// As [`Tile::tile`], and the features of `Isa::Avx512`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
unsafe fn tile<E: Element, const M: usize, const N: usize>(x: *const f32, w: *const u8, stride: usize, k: usize) -> [[f32; N]; M] {
    let mut acc = [[_mm512_setzero_ps(); N]; M];
    let steps = k / LANES;
    // SAFETY: every step lies within the rows.
    unsafe {
        for step in 0..steps {
            let at = step * LANES;
            let ws: [__m512; N] = std::array::from_fn(|j| load::<E>(w.add(j * stride + at * E::BYTES)));
            for i in 0..M {
                let x = _mm512_loadu_ps(x.add(i * k + at));
                for j in 0..N {
                    acc[i][j] = _mm512_fmadd_ps(x, ws[j], acc[i][j]);
                }
            }
        }
        let (at, tail) = (steps * LANES, k % LANES);
        if tail > 0 {
            for i in 0..M {
                let x = padded::<ElementF32>(x.add(i * k + at).cast(), tail);
                let x = _mm512_loadu_ps(x.as_ptr());
                for j in 0..N {
                    let w = padded::<E>(w.add(j * stride + at * E::BYTES), tail);
                    acc[i][j] = _mm512_fmadd_ps(x, _mm512_loadu_ps(w.as_ptr()), acc[i][j]);
                }
            }
        }
    }
    let mut sums = [[0f32; N]; M];
    for i in 0..M {
        for j in 0..N {
            sums[i][j] = reduce(acc[i][j]);
        }
    }
    sums
}

/// 16 elements as f32.
///
/// # Safety
/// `from` must be readable for 16 elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
unsafe fn load<E: Element>(from: *const u8) -> __m512 {
    // SAFETY: the caller's promise; the loads need no alignment.
    unsafe {
        match E::FORMAT {
            Format::F32 => _mm512_loadu_ps(from.cast()),
            Format::F16 => _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())),
            Format::Bf16 => {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            }
        }
    }
}

/// As `scalar::reduce`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn reduce(acc: __m512) -> f32 {
    let half = _mm256_add_ps(_mm512_castps512_ps256(acc), _mm512_extractf32x8_ps::<1>(acc));
    let four = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}
