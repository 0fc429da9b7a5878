//! AVX2: a panel's 16 rows are the lanes of two registers.

use std::arch::x86_64::*;
use std::ops::{Add, BitAnd, BitOr, BitXor, Mul, Neg, Range, Shl, Shr};

use super::{ActivationRange, PanelLanes, unpack_with};
use crate::quant::lanes::{Lanes, SIGNED_MIDDLE};
use crate::quant::{self, ACTIVATION_BLOCK, ActivationRow, BlockLayout, PanelForm};
use crate::quant::{PANEL_ROWS, PANELS, Panel, PanelSums};

/// The most rows of `x` that share a pass over the panel.
pub(super) const MAX_ROWS: usize = 2;

/// Quantises one row of `x`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn quantize_row(x: &[f32], scale_group: usize, offset: i32, row: &mut ActivationRow<'_>) {
    quant::quantize_row(x, scale_group, offset, row);
}

/// Does what `scalar::unpack` does.
///
/// # Safety
/// The features of `Isa::Avx2` must be there, and blocks `blocks` readable in each of the 16 rows.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn unpack<B: BlockLayout>(rows: &[u8], blocks: Range<usize>, panel: &mut Panel) {
    // SAFETY: the caller's promise.
    unsafe { unpack_with::<Words, B>(rows, blocks, panel) }
}

/// A word of each of the 16 rows. Its operations are only reached from functions with the features of `Isa::Avx2`, into
/// which they are inlined.
#[derive(Clone, Copy)]
struct Words(__m256i, __m256i);

/// An f32 of each of the 16 rows.
#[derive(Clone, Copy)]
struct Floats(__m256, __m256);

macro_rules! operator {
    ($operator:ident, $method:ident, |$half:ident, $by:ident| $result:expr) => {
        impl $operator<u32> for Words {
            type Output = Self;

            #[inline(always)]
            fn $method(self, by: u32) -> Self {
                let ($by, mut halves) = (by as i32, [self.0, self.1]);
                for half in &mut halves {
                    let $half = *half;
                    // SAFETY: `unpack`, the only user, is called with the features.
                    *half = unsafe { $result };
                }
                Self(halves[0], halves[1])
            }
        }
    };
}

operator!(BitAnd, bitand, |half, mask| _mm256_and_si256(half, _mm256_set1_epi32(mask)));
operator!(BitXor, bitxor, |half, mask| _mm256_xor_si256(half, _mm256_set1_epi32(mask)));
operator!(Shl, shl, |half, by| _mm256_sll_epi32(half, _mm_cvtsi32_si128(by)));
operator!(Shr, shr, |half, by| _mm256_srl_epi32(half, _mm_cvtsi32_si128(by)));

impl BitOr for Words {
    type Output = Self;

    #[inline(always)]
    fn bitor(self, by: Self) -> Self {
        // SAFETY: the features are there, as for the operators.
        unsafe { Self(_mm256_or_si256(self.0, by.0), _mm256_or_si256(self.1, by.1)) }
    }
}

impl Add for Words {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: the features are there, as for the operators.
        unsafe { Self(_mm256_add_epi32(self.0, other.0), _mm256_add_epi32(self.1, other.1)) }
    }
}

impl Mul for Floats {
    type Output = Self;

    #[inline(always)]
    fn mul(self, by: Self) -> Self {
        // SAFETY: the features are there, as for the operators.
        unsafe { Self(_mm256_mul_ps(self.0, by.0), _mm256_mul_ps(self.1, by.1)) }
    }
}

impl Neg for Floats {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: the features are there, as for the operators.
        unsafe {
            let sign = _mm256_set1_ps(-0.);
            Self(_mm256_xor_ps(self.0, sign), _mm256_xor_ps(self.1, sign))
        }
    }
}

impl Lanes<PANEL_ROWS> for Words {
    type Float = Floats;

    const SIGNED_FLIP: u32 = 0;

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: the features are there, as for the operators.
        unsafe { Self(_mm256_setzero_si256(), _mm256_setzero_si256()) }
    }

    #[inline(always)]
    fn store(self, to: &mut [u32; PANEL_ROWS]) {
        let to = to.as_mut_ptr().cast::<__m256i>();
        // SAFETY: 16 words are two registers, and the features are there.
        unsafe {
            _mm256_storeu_si256(to, self.0);
            _mm256_storeu_si256(to.add(1), self.1);
        }
    }

    #[inline(always)]
    fn store_float(value: Floats, to: &mut [f32; PANEL_ROWS]) {
        let to = to.as_mut_ptr();
        // SAFETY: as for `store`.
        unsafe {
            _mm256_storeu_ps(to, value.0);
            _mm256_storeu_ps(to.add(8), value.1);
        }
    }

    #[inline(always)]
    fn f16(self) -> Floats {
        let low = self & 0xffff;
        // SAFETY: the features are there, as for the operators.
        unsafe {
            // Packing goes by halves of registers: words 0..4, 8..12, then 4..8, 12..16.
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low.0, low.1));
            let (first, second) = (_mm256_castsi256_si128(packed), _mm256_extracti128_si256::<1>(packed));
            Floats(_mm256_cvtph_ps(first), _mm256_cvtph_ps(second))
        }
    }

    #[inline(always)]
    fn float_of_bits(self) -> Floats {
        // SAFETY: the features are there, as for the operators.
        unsafe { Floats(_mm256_castsi256_ps(self.0), _mm256_castsi256_ps(self.1)) }
    }

    #[inline(always)]
    fn float(self, offset: i32) -> Floats {
        // SAFETY: the features are there, as for the operators.
        unsafe {
            let offset = _mm256_set1_epi32(offset);
            let (low, high) = (_mm256_sub_epi32(self.0, offset), _mm256_sub_epi32(self.1, offset));
            Floats(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    fn power_of_two(self) -> Floats {
        // The two least are below the normal numbers, so that none comes from its bits alone: it is a product of two.
        let power = |of: __m256i| {
            // SAFETY: the features are there, as for the operators.
            unsafe {
                let first = _mm256_srli_epi32::<1>(of);
                let bias = _mm256_set1_epi32(127 - 64);
                let bits = [first, _mm256_sub_epi32(of, first)].map(|of| _mm256_add_epi32(of, bias));
                let [first, second] = bits.map(|of| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(of)));
                _mm256_mul_ps(first, second)
            }
        };
        Floats(power(self.0), power(self.1))
    }

    #[inline(always)]
    fn same(value: f32) -> Floats {
        // SAFETY: the features are there, as for the operators.
        let half = unsafe { _mm256_set1_ps(value) };
        Floats(half, half)
    }

    #[inline(always)]
    fn bytes_of(self, table: &[i8; 16]) -> Self {
        // SAFETY: the features are there, as for the operators; 16 bytes are half of a register.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            Self(_mm256_shuffle_epi8(table, self.0), _mm256_shuffle_epi8(table, self.1))
        }
    }

    #[inline(always)]
    fn entries_of<const N: usize>(self, table: &[u32; N]) -> Self {
        const { assert!(N.is_power_of_two()) };
        let (index, table) = (self & (N as u32 - 1), table.as_ptr().cast());
        // SAFETY: the features are there, as for the operators; every index is below N.
        unsafe { Self(_mm256_i32gather_epi32::<4>(table, index.0), _mm256_i32gather_epi32::<4>(table, index.1)) }
    }

    #[inline(always)]
    fn with_signs(self, signs: Self, at: u32) -> Self {
        let bits = if at.is_multiple_of(8) { 0x0804_0201u32 } else { 0x8040_2010 };
        let with_signs = |of: __m256i, signs: __m256i| {
            // SAFETY: the features are there, as for the operators.
            unsafe {
                // The byte that has the signs, four times, of each word of half a register.
                let words = _mm256_set_epi32(
                    0x0c0c_0c0c,
                    0x0808_0808,
                    0x0404_0404,
                    0,
                    0x0c0c_0c0c,
                    0x0808_0808,
                    0x0404_0404,
                    0,
                );
                let from = _mm256_add_epi32(words, _mm256_set1_epi32((at as i32 / 8) * 0x0101_0101));
                let bits = _mm256_set1_epi32(bits as i32);
                let negative = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(signs, from), bits), bits);
                let middle = _mm256_sub_epi8(_mm256_set1_epi8(SIGNED_MIDDLE as i8), negative);
                _mm256_add_epi8(_mm256_xor_si256(of, negative), middle)
            }
        };
        Self(with_signs(self.0, signs.0), with_signs(self.1, signs.1))
    }
}

impl PanelLanes for Words {
    #[inline(always)]
    fn prefetch(at: *const u8) {
        // SAFETY: the features are there, as for the operators; a prefetch of any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn four_words(from: *const u8, stride: usize) -> [Self; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let (low, high) = (four_words(from, stride), four_words(from.add(8 * stride), stride));
            [Self(low[0], high[0]), Self(low[1], high[1]), Self(low[2], high[2]), Self(low[3], high[3])]
        }
    }
}

/// Loads four words of each of eight rows, by two 4 x 4 transpositions, one in each half of the registers.
///
/// # Safety
/// 16 bytes must be readable in each row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn four_words(from: *const u8, stride: usize) -> [__m256i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let row = |r: usize| _mm_loadu_si128(from.add(r * stride).cast());
        let pair = |r: usize| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(row(r)), row(r + 4));
        let (a, b, c, d) = (pair(0), pair(1), pair(2), pair(3));
        let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
        [
            _mm256_unpacklo_epi64(ab, cd),
            _mm256_unpackhi_epi64(ab, cd),
            _mm256_unpacklo_epi64(ab_high, cd_high),
            _mm256_unpackhi_epi64(ab_high, cd_high),
        ]
    }
}

/// Adds to `sums` the products of some rows of `x` with the panels, over `groups` scale groups.
///
/// # Safety
/// The features of `Isa::Avx2` must be there, `rows` must have `sums.len() <= MAX_ROWS` rows of `groups` scale groups,
/// and the panels as many scale groups.
#[target_feature(enable = "avx2,fma,f16c")]
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
                _ => unreachable!("at most MAX_ROWS"),
            }
        }
    }
}

/// Does [`multiply`] for `M` rows and one panel: a micro-tile of `M` x [`PANEL_ROWS`] elements.
///
/// # Safety
/// The contract is that of [`multiply`], with `M` rows.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn micro_tile<F: PanelForm, const M: usize>(
    panel: &Panel,
    rows: ActivationRange,
    groups: usize,
    sums: [&mut [f32; PANEL_ROWS]; M],
) {
    let steps = F::SCALE_GROUP / 4;
    // SAFETY: every group is within the panel and the rows.
    unsafe {
        let mut acc = [[_mm256_setzero_ps(); 2]; M];
        for i in 0..M {
            for half in 0..2 {
                acc[i][half] = _mm256_loadu_ps(sums[i].as_ptr().add(8 * half));
            }
        }
        for group in 0..groups {
            let mut dots = [[_mm256_setzero_si256(); 2]; M];
            for i in 0..M {
                dots[i] = [_mm256_set1_epi32(*rows.corrections.add(i * rows.group_stride + group)); 2];
            }
            for step in group * steps..(group + 1) * steps {
                let w = panel.codes.as_ptr().add(step).cast::<__m256i>();
                let w = [_mm256_loadu_si256(w), _mm256_loadu_si256(w.add(1))];
                for i in 0..M {
                    let x = rows.codes.add(i * rows.code_stride + step * 4).cast::<i32>().read_unaligned();
                    for half in 0..2 {
                        dots[i][half] = dot_add::<F>(dots[i][half], w[half], _mm256_set1_epi32(x));
                    }
                }
            }
            for half in 0..2 {
                let scale = _mm256_loadu_ps(panel.scales.as_ptr().add(group).cast::<f32>().add(8 * half));
                for i in 0..M {
                    let x = _mm256_set1_ps(
                        *rows.scales.add(i * rows.scale_stride + group * F::SCALE_GROUP / ACTIVATION_BLOCK),
                    );
                    let product = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[i][half]), scale);
                    acc[i][half] = _mm256_fmadd_ps(product, x, acc[i][half]);
                    if F::MINS {
                        let min = _mm256_loadu_ps(panel.mins.as_ptr().add(group).cast::<f32>().add(8 * half));
                        let x = _mm256_set1_ps(*rows.sums.add(i * rows.group_stride + group));
                        acc[i][half] = _mm256_fmadd_ps(min, x, acc[i][half]);
                    }
                }
            }
        }
        for i in 0..M {
            for half in 0..2 {
                _mm256_storeu_ps(sums[i].as_mut_ptr().add(8 * half), acc[i][half]);
            }
        }
    }
}

/// Adds the products of four codes to each lane. `maddubs` wants its first side unsigned and saturates the sum of two
/// products at 2^15. Unsigned codes give at most 2 * 127 * 127 = 32,258; signed ones, whose signs are moved to `x`, at
/// most 2 * 128 * 127 = 32,512.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_add<F: PanelForm>(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
    let pairs = if F::SIGNED {
        _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
    } else {
        _mm256_maddubs_epi16(w, x)
    };
    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}
