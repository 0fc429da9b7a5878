//! AVX-512 VNNI: a panel's 16 rows are the 16 lanes of a register.

use std::arch::x86_64::*;
use std::ops::Range;

use super::quant::Rows;
use crate::quant::{self, BLOCK, Block, PANEL, Panel, Row, STRIPE, Stripe};

/// Most rows of `x` that share a pass over the panel.
pub(super) const MAX_ROWS: usize = 8;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn quantize_row(x: &[f32], group: usize, offset: i32, row: &mut Row<'_>) {
    quant::quantize_row(x, group, offset, row);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn unpack_stripe<B: Block>(
    rows: &[&[u8]; PANEL],
    columns: Range<usize>,
    stripe: &mut Stripe,
    scales: &mut [[f32; PANEL]],
    mins: &mut [[f32; PANEL]],
) {
    quant::unpack_stripe::<B>(rows, columns, stripe, scales, mins);
}

/// As `scalar::transpose`, 32 columns at a time: 8 x 8 double words in each half of eight registers. Signed codes move up by 128.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn transpose<B: Block>(stripe: &Stripe, codes: &mut [[[u8; 4]; PANEL]]) {
    assert!(codes.len() <= STRIPE / 4);
    let up = _mm512_set1_epi8(if B::SIGNED { -128 } else { 0 });
    let even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    let odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    for (c, codes) in codes.chunks_exact_mut(8).enumerate() {
        // SAFETY: columns 32c..32c + 32 are within the stripe's rows, and `codes` is eight registers long.
        unsafe {
            let row = |r: usize| _mm256_loadu_si256(stripe[r].as_ptr().add(c * 32).cast());
            let rows: [__m512i; 8] = std::array::from_fn(|r| {
                _mm512_xor_si512(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(row(r)), row(r + 8)), up)
            });
            let pairs: [__m512i; 8] = std::array::from_fn(|r| {
                let (a, b) = (rows[r & !1], rows[r | 1]);
                if r % 2 == 0 { _mm512_unpacklo_epi32(a, b) } else { _mm512_unpackhi_epi32(a, b) }
            });
            // fours[0..4]: rows 0..4 (and 8..12), columns q and q + 4 of the eight; fours[4..8]: the other rows.
            let fours: [__m512i; 8] = std::array::from_fn(|r| {
                let (a, b) = (pairs[r & 4 | r >> 1 & 1], pairs[r & 4 | 2 | r >> 1 & 1]);
                if r % 2 == 0 { _mm512_unpacklo_epi64(a, b) } else { _mm512_unpackhi_epi64(a, b) }
            });
            let to = codes.as_mut_ptr().cast::<__m512i>();
            for q in 0..4 {
                _mm512_storeu_si512(to.add(q), _mm512_permutex2var_epi64(fours[q], even, fours[q + 4]));
                _mm512_storeu_si512(to.add(q + 4), _mm512_permutex2var_epi64(fours[q], odd, fours[q + 4]));
            }
        }
    }
}

/// # Safety
/// Features of `Isa::Avx512`; `rows` are `acc.len() <= MAX_ROWS` rows of `groups` groups, and the panel has as many.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn multiply<B: Block>(panel: &Panel, rows: Rows, groups: usize, acc: &mut [[f32; PANEL]]) {
    // SAFETY: the caller's promise; M is the number of rows.
    unsafe {
        match acc.len() {
            1 => tile::<B, 1>(panel, rows, groups, acc),
            2 => tile::<B, 2>(panel, rows, groups, acc),
            3 => tile::<B, 3>(panel, rows, groups, acc),
            4 => tile::<B, 4>(panel, rows, groups, acc),
            5 => tile::<B, 5>(panel, rows, groups, acc),
            6 => tile::<B, 6>(panel, rows, groups, acc),
            7 => tile::<B, 7>(panel, rows, groups, acc),
            _ => tile::<B, 8>(panel, rows, groups, acc),
        }
    }
}

/// # Safety
/// As [`multiply`], with `acc.len() == M`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile<B: Block, const M: usize>(panel: &Panel, rows: Rows, groups: usize, acc: &mut [[f32; PANEL]]) {
    let acc: &mut [[f32; PANEL]; M] = acc.try_into().expect("M rows");
    let steps = B::GROUP / 4;
    // SAFETY: every group is within the panel and the rows.
    unsafe {
        let mut sums: [__m512; M] = std::array::from_fn(|i| _mm512_loadu_ps(acc[i].as_ptr()));
        for group in 0..groups {
            let mut dots: [__m512i; M] =
                std::array::from_fn(|i| _mm512_set1_epi32(*rows.corrections.add(i * rows.group_stride + group)));
            for step in group * steps..(group + 1) * steps {
                let w = _mm512_loadu_si512(panel.codes.as_ptr().add(step).cast());
                for i in 0..M {
                    let x = rows.codes.add(i * rows.code_stride + step * 4).cast::<i32>().read_unaligned();
                    dots[i] = _mm512_dpbusd_epi32(dots[i], w, _mm512_set1_epi32(x));
                }
            }
            let scale = _mm512_loadu_ps(panel.scales.as_ptr().add(group).cast());
            for i in 0..M {
                let x = _mm512_set1_ps(*rows.scales.add(i * rows.scale_stride + group * B::GROUP / BLOCK));
                let product = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[i]), scale);
                sums[i] = _mm512_fmadd_ps(product, x, sums[i]);
            }
            if B::MINS {
                let min = _mm512_loadu_ps(panel.mins.as_ptr().add(group).cast());
                for i in 0..M {
                    let x = _mm512_set1_ps(*rows.sums.add(i * rows.group_stride + group));
                    sums[i] = _mm512_fmadd_ps(min, x, sums[i]);
                }
            }
        }
        for i in 0..M {
            _mm512_storeu_ps(acc[i].as_mut_ptr(), sums[i]);
        }
    }
}
