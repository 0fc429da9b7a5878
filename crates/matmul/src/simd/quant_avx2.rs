//! AVX2: a panel's 16 rows are the lanes of two registers.

use std::arch::x86_64::*;
use std::ops::Range;

use super::quant::Rows;
use crate::quant::{self, BLOCK, Block, PANEL, Panel, Row, STRIPE, Stripe};

/// Most rows of `x` that share a pass over the panel.
pub(super) const MAX_ROWS: usize = 2;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn quantize_row(x: &[f32], group: usize, offset: i32, row: &mut Row<'_>) {
    quant::quantize_row(x, group, offset, row);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn unpack_stripe<B: Block>(
    rows: &[&[u8]; PANEL],
    columns: Range<usize>,
    stripe: &mut Stripe,
    scales: &mut [[f32; PANEL]],
    mins: &mut [[f32; PANEL]],
) {
    quant::unpack_stripe::<B>(rows, columns, stripe, scales, mins);
}

/// As `scalar::transpose`, 8 rows and 32 columns at a time: 8 x 8 double words in eight registers.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn transpose(stripe: &Stripe, codes: &mut [[[u8; 4]; PANEL]]) {
    assert!(codes.len() <= STRIPE / 4);
    for (c, codes) in codes.chunks_exact_mut(8).enumerate() {
        for half in 0..2 {
            // SAFETY: columns 32c..32c + 32 are within the stripe's rows, and each step of `codes` is two registers long.
            unsafe {
                let rows: [__m256i; 8] = std::array::from_fn(|r| {
                    _mm256_loadu_si256(stripe[8 * half + r].as_ptr().add(c * 32).cast())
                });
                let pairs: [__m256i; 8] = std::array::from_fn(|r| {
                    let (a, b) = (rows[r & !1], rows[r | 1]);
                    if r % 2 == 0 { _mm256_unpacklo_epi32(a, b) } else { _mm256_unpackhi_epi32(a, b) }
                });
                let fours: [__m256i; 8] = std::array::from_fn(|r| {
                    let (a, b) = (pairs[r & 4 | r >> 1 & 1], pairs[r & 4 | 2 | r >> 1 & 1]);
                    if r % 2 == 0 { _mm256_unpacklo_epi64(a, b) } else { _mm256_unpackhi_epi64(a, b) }
                });
                for q in 0..4 {
                    let (a, b) = (fours[q], fours[q + 4]);
                    let low = codes[q][8 * half..].as_mut_ptr();
                    _mm256_storeu_si256(low.cast(), _mm256_permute2x128_si256::<0x20>(a, b));
                    let high = codes[q + 4][8 * half..].as_mut_ptr();
                    _mm256_storeu_si256(high.cast(), _mm256_permute2x128_si256::<0x31>(a, b));
                }
            }
        }
    }
}

/// # Safety
/// Features of `Isa::Avx2`; `rows` are `acc.len() <= MAX_ROWS` rows of `groups` groups, and the panel has as many.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn multiply<B: Block>(panel: &Panel, rows: Rows, groups: usize, acc: &mut [[f32; PANEL]]) {
    // SAFETY: the caller's promise; M is the number of rows.
    unsafe {
        match acc.len() {
            1 => tile::<B, 1>(panel, rows, groups, acc),
            _ => tile::<B, 2>(panel, rows, groups, acc),
        }
    }
}

/// # Safety
/// As [`multiply`], with `acc.len() == M`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<B: Block, const M: usize>(panel: &Panel, rows: Rows, groups: usize, acc: &mut [[f32; PANEL]]) {
    let acc: &mut [[f32; PANEL]; M] = acc.try_into().expect("M rows");
    let steps = B::GROUP / 4;
    // SAFETY: every group is within the panel and the rows.
    unsafe {
        let mut sums: [[__m256; 2]; M] =
            std::array::from_fn(|i| std::array::from_fn(|half| _mm256_loadu_ps(acc[i].as_ptr().add(8 * half))));
        for group in 0..groups {
            let mut dots: [[__m256i; 2]; M] =
                std::array::from_fn(|i| [_mm256_set1_epi32(*rows.corrections.add(i * rows.group_stride + group)); 2]);
            for step in group * steps..(group + 1) * steps {
                let w = panel.codes.as_ptr().add(step).cast::<__m256i>();
                let w = [_mm256_loadu_si256(w), _mm256_loadu_si256(w.add(1))];
                for i in 0..M {
                    let x = rows.codes.add(i * rows.code_stride + step * 4).cast::<i32>().read_unaligned();
                    for half in 0..2 {
                        dots[i][half] = dot_add::<B>(dots[i][half], w[half], _mm256_set1_epi32(x));
                    }
                }
            }
            for half in 0..2 {
                let scale = _mm256_loadu_ps(panel.scales[group].as_ptr().add(8 * half));
                for i in 0..M {
                    let x = _mm256_set1_ps(*rows.scales.add(i * rows.scale_stride + group * B::GROUP / BLOCK));
                    let product = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[i][half]), scale);
                    sums[i][half] = _mm256_fmadd_ps(product, x, sums[i][half]);
                    if B::MINS {
                        let min = _mm256_loadu_ps(panel.mins[group].as_ptr().add(8 * half));
                        let x = _mm256_set1_ps(*rows.sums.add(i * rows.group_stride + group));
                        sums[i][half] = _mm256_fmadd_ps(min, x, sums[i][half]);
                    }
                }
            }
        }
        for i in 0..M {
            for half in 0..2 {
                _mm256_storeu_ps(acc[i].as_mut_ptr().add(8 * half), sums[i][half]);
            }
        }
    }
}

/// Adds the products of four codes to each lane. `maddubs` wants its first side unsigned and saturates sums of two products
/// at 2^15: two of 63 * 127, or with the signs moved to `x` two of 128 * 127, stay below.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_add<B: Block>(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
    let pairs = if B::SIGNED {
        _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
    } else {
        _mm256_maddubs_epi16(w, x)
    };
    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}
