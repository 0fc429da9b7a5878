//! AVX2 with FMA and F16C: the 16 lanes are two registers.

use std::arch::x86_64::*;

use super::{Tile, padded, rows};
use crate::LANES;
use crate::weight::{Element, ElementF32, Format};

/// # Safety
/// As [`super::dots`] checks; at most 4 rows of `x`.
pub(super) unsafe fn dots<E: Element>(x: &[f32], k: usize, w: &[u8], out: &mut [&mut [f32]]) {
    // SAFETY: the caller's promise; M is the number of rows. M * N accumulators, N weights and a row fit the 16 registers.
    unsafe {
        match out.len() {
            1 => rows::<Avx2, E, 1, 6>(x, k, w, out),
            2 => rows::<Avx2, E, 2, 4>(x, k, w, out),
            3 => rows::<Avx2, E, 3, 4>(x, k, w, out),
            _ => rows::<Avx2, E, 4, 3>(x, k, w, out),
        }
    }
}

struct Avx2;

impl Tile for Avx2 {
    unsafe fn tile<E: Element, const M: usize, const N: usize>(
        x: *const f32,
        w: *const u8,
        stride: usize,
        k: usize,
    ) -> [[f32; N]; M] {
        // SAFETY: the caller's promise.
        unsafe {
            let low = half::<E, M, N>(x, w, stride, k, 0);
            let high = half::<E, M, N>(x, w, stride, k, 8);
            std::array::from_fn(|i| std::array::from_fn(|j| reduce(low[i][j], high[i][j])))
        }
    }
}

/// Lanes `lane..lane + 8` of a tile. The lanes do not meet before the reduction, so a pass for each half lets a larger
/// tile fit the registers.
///
/// # Safety
/// As [`Tile::tile`], and the features of `Isa::Avx2`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn half<E: Element, const M: usize, const N: usize>(
    x: *const f32,
    w: *const u8,
    stride: usize,
    k: usize,
    lane: usize,
) -> [[__m256; N]; M] {
    let mut acc = [[_mm256_setzero_ps(); N]; M];
    let steps = k / LANES;
    // SAFETY: every step lies within the rows.
    unsafe {
        for step in 0..steps {
            let at = step * LANES + lane;
            let ws: [__m256; N] = std::array::from_fn(|j| load::<E>(w.add(j * stride + at * E::BYTES)));
            for i in 0..M {
                let x = _mm256_loadu_ps(x.add(i * k + at));
                for j in 0..N {
                    acc[i][j] = _mm256_fmadd_ps(x, ws[j], acc[i][j]);
                }
            }
        }
        let (at, tail) = (steps * LANES, k % LANES);
        if tail > 0 {
            for i in 0..M {
                let x = padded::<ElementF32>(x.add(i * k + at).cast(), tail);
                let x = _mm256_loadu_ps(x.as_ptr().add(lane));
                for j in 0..N {
                    let w = padded::<E>(w.add(j * stride + at * E::BYTES), tail);
                    acc[i][j] = _mm256_fmadd_ps(x, _mm256_loadu_ps(w.as_ptr().add(lane)), acc[i][j]);
                }
            }
        }
    }
    acc
}

/// 8 elements as f32.
///
/// # Safety
/// `from` must be readable for 8 elements.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load<E: Element>(from: *const u8) -> __m256 {
    // SAFETY: the caller's promise; the loads need no alignment.
    unsafe {
        match E::FORMAT {
            Format::F32 => _mm256_loadu_ps(from.cast()),
            Format::F16 => _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
            Format::Bf16 => {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
        }
    }
}

/// As `scalar::reduce`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn reduce(low: __m256, high: __m256) -> f32 {
    let half = _mm256_add_ps(low, high);
    let four = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}
