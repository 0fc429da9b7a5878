//! AVX-512 VNNI: a panel's 16 rows are the 16 lanes of a register.

use std::arch::x86_64::*;
use std::ops::{Add, BitAnd, BitOr, BitXor, Mul, Neg, Range, Shl, Shr};

use super::{ActivationRange, PanelLanes, unpack_with};
use crate::quant::lanes::{Lanes, SIGNED_MIDDLE};
use crate::quant::{self, ACTIVATION_BLOCK, ActivationRow, BlockLayout, PanelForm};
use crate::quant::{PANEL_ROWS, PANELS, Panel, PanelSums};

/// The most rows of `x` that share a pass over the panels.
pub(super) const MAX_ROWS: usize = 6;

/// Quantises one row of `x`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn quantize_row(x: &[f32], scale_group: usize, offset: i32, row: &mut ActivationRow<'_>) {
    quant::quantize_row(x, scale_group, offset, row);
}

/// Does what `scalar::unpack` does.
///
/// # Safety
/// The features of `Isa::Avx512` must be there, and blocks `blocks` readable in each of the 16 rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn unpack<B: BlockLayout>(rows: &[u8], blocks: Range<usize>, panel: &mut Panel) {
    // SAFETY: the caller's promise.
    unsafe { unpack_with::<Words, B>(rows, blocks, panel) }
}

/// A word of each of the 16 rows. Its operations are only reached from functions with the features of `Isa::Avx512`,
/// into which they are inlined.
#[derive(Clone, Copy)]
struct Words(__m512i);

/// An f32 of each of the 16 rows.
#[derive(Clone, Copy)]
struct Floats(__m512);

macro_rules! operator {
    ($operator:ident, $method:ident, $of:ty, $by:ty, |$a:ident, $b:ident| $result:expr) => {
        impl $operator<$by> for $of {
            type Output = Self;

            #[inline(always)]
            fn $method(self, $b: $by) -> Self {
                let $a = self;
                // SAFETY: `multiply` and `unpack`, the only users, are called with the features.
                Self(unsafe { $result })
            }
        }
    };
}

operator!(BitAnd, bitand, Words, u32, |a, mask| _mm512_and_si512(a.0, _mm512_set1_epi32(mask as i32)));
operator!(BitXor, bitxor, Words, u32, |a, mask| _mm512_xor_si512(a.0, _mm512_set1_epi32(mask as i32)));
operator!(Add, add, Words, Words, |a, b| _mm512_add_epi32(a.0, b.0));
operator!(BitOr, bitor, Words, Words, |a, b| _mm512_or_si512(a.0, b.0));
operator!(Shl, shl, Words, u32, |a, by| _mm512_sll_epi32(a.0, _mm_cvtsi32_si128(by as i32)));
operator!(Shr, shr, Words, u32, |a, by| _mm512_srl_epi32(a.0, _mm_cvtsi32_si128(by as i32)));
operator!(Mul, mul, Floats, Floats, |a, b| _mm512_mul_ps(a.0, b.0));

impl Neg for Floats {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: the features are there, as for the operators.
        Self(unsafe { _mm512_xor_ps(self.0, _mm512_set1_ps(-0.)) })
    }
}

impl Lanes<PANEL_ROWS> for Words {
    type Float = Floats;

    const SIGNED_FLIP: u32 = 0x8080_8080;

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: the features are there, as for the operators.
        Self(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    fn store(self, to: &mut [u32; PANEL_ROWS]) {
        // SAFETY: 16 words are a register, and the features are there.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn store_float(value: Floats, to: &mut [f32; PANEL_ROWS]) {
        // SAFETY: as for `store`.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value.0) }
    }

    #[inline(always)]
    fn f16(self) -> Floats {
        // SAFETY: the features are there, as for the operators.
        Floats(unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(self.0)) })
    }

    #[inline(always)]
    fn float_of_bits(self) -> Floats {
        // SAFETY: the features are there, as for the operators.
        Floats(unsafe { _mm512_castsi512_ps(self.0) })
    }

    #[inline(always)]
    fn float(self, offset: i32) -> Floats {
        // SAFETY: the features are there, as for the operators.
        Floats(unsafe { _mm512_cvtepi32_ps(_mm512_sub_epi32(self.0, _mm512_set1_epi32(offset))) })
    }

    #[inline(always)]
    fn power_of_two(self) -> Floats {
        // SAFETY: the features are there, as for the operators.
        Floats(unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.), self.float(128).0) })
    }

    #[inline(always)]
    fn same(value: f32) -> Floats {
        // SAFETY: the features are there, as for the operators.
        Floats(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn bytes_of(self, table: &[i8; 16]) -> Self {
        // SAFETY: the features are there, as for the operators; 16 bytes are a register's quarter.
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            Self(_mm512_shuffle_epi8(table, self.0))
        }
    }

    #[inline(always)]
    fn entries_of<const N: usize>(self, table: &[u32; N]) -> Self {
        const { assert!(N.is_power_of_two()) };
        // SAFETY: the features are there, as for the operators; every index is below N.
        Self(unsafe { _mm512_i32gather_epi32::<4>((self & (N as u32 - 1)).0, table.as_ptr().cast()) })
    }

    #[inline(always)]
    fn with_signs(self, signs: Self, at: u32) -> Self {
        let bits = if at.is_multiple_of(8) { 0x0804_0201u32 } else { 0x8040_2010 };
        // SAFETY: the features are there, as for the operators.
        unsafe {
            // The byte that has the signs, four times, of each word of a register's quarter.
            let words = _mm512_set4_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0);
            let from = _mm512_add_epi32(words, _mm512_set1_epi32((at as i32 / 8) * 0x0101_0101));
            let signs = _mm512_shuffle_epi8(signs.0, from);
            let negative = _mm512_test_epi8_mask(signs, _mm512_set1_epi32(bits as i32));
            let middle = _mm512_set1_epi8(SIGNED_MIDDLE as i8);
            Self(_mm512_mask_sub_epi8(_mm512_add_epi8(middle, self.0), negative, middle, self.0))
        }
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
        unsafe { four_words(from, stride) }
    }
}

/// Loads four words of each of the 16 rows, by four 4 x 4 transpositions, one in each quarter of the registers.
///
/// # Safety
/// 16 bytes must be readable in each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn four_words(from: *const u8, stride: usize) -> [Words; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let row = |r: usize| _mm_loadu_si128(from.add(r * stride).cast());
        let quarters = |r: usize| {
            let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(row(r)), row(r + 4));
            let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(row(r + 8)), row(r + 12));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        };
        let (a, b, c, d) = (quarters(0), quarters(1), quarters(2), quarters(3));
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        [
            Words(_mm512_unpacklo_epi64(ab, cd)),
            Words(_mm512_unpackhi_epi64(ab, cd)),
            Words(_mm512_unpacklo_epi64(ab_high, cd_high)),
            Words(_mm512_unpackhi_epi64(ab_high, cd_high)),
        ]
    }
}

/// Adds to `sums` the products of some rows of `x` with the panels, over `groups` scale groups.
///
/// # Safety
/// The features of `Isa::Avx512` must be there, `rows` must have `sums.len() <= MAX_ROWS` rows of `groups` scale
/// groups, and the panels as many scale groups.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn multiply<F: PanelForm>(
    panels: &[Panel; PANELS],
    rows: ActivationRange,
    groups: usize,
    sums: &mut [PanelSums],
) {
    // SAFETY: the caller's promise; M is the number of rows.
    unsafe {
        match sums.len() {
            1 => micro_tile::<F, 1>(panels, rows, groups, sums),
            2 => micro_tile::<F, 2>(panels, rows, groups, sums),
            3 => micro_tile::<F, 3>(panels, rows, groups, sums),
            4 => micro_tile::<F, 4>(panels, rows, groups, sums),
            5 => micro_tile::<F, 5>(panels, rows, groups, sums),
            _ => micro_tile::<F, 6>(panels, rows, groups, sums),
        }
    }
}

/// Does [`multiply`] for `M` rows: a micro-tile of `M` x [`PANELS`] x [`PANEL_ROWS`] elements.
///
/// # Safety
/// The contract is that of [`multiply`], with `sums.len() == M`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn micro_tile<F: PanelForm, const M: usize>(
    panels: &[Panel; PANELS],
    rows: ActivationRange,
    groups: usize,
    sums: &mut [PanelSums],
) {
    let sums: &mut [PanelSums; M] = sums.try_into().expect("M rows");
    let steps = F::SCALE_GROUP / 4;
    // SAFETY: every group is within the panels and the rows.
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); PANELS]; M];
        for i in 0..M {
            for p in 0..PANELS {
                acc[i][p] = _mm512_loadu_ps(sums[i][p].as_ptr());
            }
        }
        for group in 0..groups {
            let mut dots = [[_mm512_setzero_si512(); PANELS]; M];
            for i in 0..M {
                dots[i] = [_mm512_set1_epi32(*rows.corrections.add(i * rows.group_stride + group)); PANELS];
            }
            for step in group * steps..(group + 1) * steps {
                let mut w = [_mm512_setzero_si512(); PANELS];
                for p in 0..PANELS {
                    w[p] = _mm512_loadu_si512(panels[p].codes.as_ptr().add(step).cast());
                }
                for i in 0..M {
                    let x = rows.codes.add(i * rows.code_stride + step * 4).cast::<i32>().read_unaligned();
                    for p in 0..PANELS {
                        dots[i][p] = _mm512_dpbusd_epi32(dots[i][p], w[p], _mm512_set1_epi32(x));
                    }
                }
            }
            for p in 0..PANELS {
                let scale = _mm512_loadu_ps(panels[p].scales.as_ptr().add(group).cast());
                for i in 0..M {
                    let x = _mm512_set1_ps(
                        *rows.scales.add(i * rows.scale_stride + group * F::SCALE_GROUP / ACTIVATION_BLOCK),
                    );
                    let product = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[i][p]), scale);
                    acc[i][p] = _mm512_fmadd_ps(product, x, acc[i][p]);
                }
                if F::MINS {
                    let min = _mm512_loadu_ps(panels[p].mins.as_ptr().add(group).cast());
                    for i in 0..M {
                        let x = _mm512_set1_ps(*rows.sums.add(i * rows.group_stride + group));
                        acc[i][p] = _mm512_fmadd_ps(min, x, acc[i][p]);
                    }
                }
            }
        }
        for i in 0..M {
            for p in 0..PANELS {
                _mm512_storeu_ps(sums[i][p].as_mut_ptr(), acc[i][p]);
            }
        }
    }
}
