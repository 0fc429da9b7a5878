//! What each weight type's products, rows and quantiser are: one implementation for floats, one for quantisation
//! blocks.

use std::marker::PhantomData;

use crate::block_product::{self, PanelScratch};
use crate::float_element::{ElementBf16, ElementF16, ElementF32, FloatElement};
use crate::quant::{self, Activations, AffineBlock, BlockLayout, PANEL_ROWS, PANELS};
use crate::simd::float::{self, ArrangedRows};
use crate::{HalfFloat, Isa, Weight, WeightType};

/// The rows of `x` as the kernels of a type take them.
pub(crate) enum Operand<'a> {
    /// For float weights.
    Floats(ArrangedRows<'a>),
    /// For block-quantised weights.
    Codes(Activations),
}

/// A kind of weight: everything that depends on how its elements are stored.
trait WeightKind {
    /// The rows of a weight in a task are a multiple of this, so that only the last task meets a partial micro-tile.
    const ROW_ALIGN: usize;

    /// Prepares the rows of `x`, each of `k` elements.
    fn operand<'a>(isa: Isa, x: &'a [f32], k: usize) -> Operand<'a>;

    /// Whether an operand that was made for another type serves this one.
    fn takes(isa: Isa, x: &Operand<'_>) -> bool;

    /// Computes `out[i][j] = sum_k x[i][k] * w[j][k]`. `out` has a row for each row of `x`, and this kind takes `x`.
    fn multiply(isa: Isa, x: &Operand<'_>, w: Weight<'_>, out: &mut [&mut [f32]], scratch: &mut PanelScratch);

    /// Writes the elements of a row to `out`.
    fn dequantize(row: &[u8], out: &mut [f32]);

    /// Returns the bytes of `values`; `None` for a type that values are not quantised to.
    fn encode(values: &[f32]) -> Option<Vec<u8>>;
}

/// Evaluates `$work` with `$kind` the [`WeightKind`] of a weight type.
macro_rules! dispatch {
    ($ty:expr, $kind:ident => $work:expr) => {
        match $ty {
            WeightType::F32 => dispatch!(@ $kind = FloatKind<ElementF32>, $work),
            WeightType::F16 => dispatch!(@ $kind = FloatKind<ElementF16>, $work),
            WeightType::Bf16 => dispatch!(@ $kind = FloatKind<ElementBf16>, $work),
            WeightType::Q8_0 => dispatch!(@ $kind = BlockKind<quant::Q8_0>, $work),
            WeightType::Q4_0 => dispatch!(@ $kind = BlockKind<quant::Q4_0>, $work),
            WeightType::Q4_1 => dispatch!(@ $kind = BlockKind<quant::Q4_1>, $work),
            WeightType::Q5_0 => dispatch!(@ $kind = BlockKind<quant::Q5_0>, $work),
            WeightType::Q5_1 => dispatch!(@ $kind = BlockKind<quant::Q5_1>, $work),
            WeightType::Q2_K => dispatch!(@ $kind = BlockKind<quant::Q2K>, $work),
            WeightType::Q3_K => dispatch!(@ $kind = BlockKind<quant::Q3K>, $work),
            WeightType::Q4_K => dispatch!(@ $kind = BlockKind<quant::Q4K>, $work),
            WeightType::Q5_K => dispatch!(@ $kind = BlockKind<quant::Q5K>, $work),
            WeightType::Q6_K => dispatch!(@ $kind = BlockKind<quant::Q6K>, $work),
            WeightType::IQ4_NL => dispatch!(@ $kind = BlockKind<quant::IQ4NL>, $work),
            WeightType::IQ4_XS => dispatch!(@ $kind = BlockKind<quant::IQ4XS>, $work),
            WeightType::Mxfp4 => dispatch!(@ $kind = BlockKind<quant::MXFP4>, $work),
            WeightType::IQ3_S => dispatch!(@ $kind = BlockKind<quant::IQ3S>, $work),
            WeightType::IQ3_XXS => dispatch!(@ $kind = BlockKind<quant::IQ3XXS>, $work),
            WeightType::IQ2_S => dispatch!(@ $kind = BlockKind<quant::IQ2S>, $work),
            WeightType::IQ2_XS => dispatch!(@ $kind = BlockKind<quant::IQ2XS>, $work),
            WeightType::IQ2_XXS => dispatch!(@ $kind = BlockKind<quant::IQ2XXS>, $work),
            WeightType::TQ2_0 => dispatch!(@ $kind = BlockKind<quant::TQ2_0>, $work),
            WeightType::TQ1_0 => dispatch!(@ $kind = BlockKind<quant::TQ1_0>, $work),
            WeightType::Nvfp4 => dispatch!(@ $kind = BlockKind<quant::NVFP4>, $work),
            WeightType::Affine(of) => match of.bits() {
                2 => dispatch!(@affine of, 2, $kind => $work),
                3 => dispatch!(@affine of, 3, $kind => $work),
                4 => dispatch!(@affine of, 4, $kind => $work),
                5 => dispatch!(@affine of, 5, $kind => $work),
                6 => dispatch!(@affine of, 6, $kind => $work),
                _ => dispatch!(@affine of, 8, $kind => $work),
            },
        }
    };
    (@affine $of:ident, $bits:literal, $kind:ident => $work:expr) => {
        match ($of.group(), $of.scales()) {
            (32, HalfFloat::F16) => dispatch!(@ $kind = BlockKind<AffineBlock<$bits, 32, false>>, $work),
            (32, HalfFloat::Bf16) => dispatch!(@ $kind = BlockKind<AffineBlock<$bits, 32, true>>, $work),
            (64, HalfFloat::F16) => dispatch!(@ $kind = BlockKind<AffineBlock<$bits, 64, false>>, $work),
            (64, HalfFloat::Bf16) => dispatch!(@ $kind = BlockKind<AffineBlock<$bits, 64, true>>, $work),
            (_, HalfFloat::F16) => dispatch!(@ $kind = BlockKind<AffineBlock<$bits, 128, false>>, $work),
            (_, HalfFloat::Bf16) => dispatch!(@ $kind = BlockKind<AffineBlock<$bits, 128, true>>, $work),
        }
    };
    (@ $kind:ident = $ty:ty, $work:expr) => {{
        type $kind = $ty;
        $work
    }};
}

/// Returns the index of the operand in `operands` that weights of type `ty` take, which is added if there is none, and
/// the number that a task's rows are a multiple of.
pub(crate) fn prepare<'a>(
    ty: WeightType,
    isa: Isa,
    x: &'a [f32],
    k: usize,
    operands: &mut Vec<Operand<'a>>,
) -> (usize, usize) {
    dispatch!(ty, T => {
        let operand = operands.iter().position(|x| T::takes(isa, x)).unwrap_or_else(|| {
            operands.push(T::operand(isa, x, k));
            operands.len() - 1
        });
        (operand, T::ROW_ALIGN)
    })
}

/// Computes `out[i][j] = sum_k x[i][k] * w[j][k]`, with an operand that the weight's type takes.
pub(crate) fn multiply(isa: Isa, x: &Operand<'_>, w: Weight<'_>, out: &mut [&mut [f32]], scratch: &mut PanelScratch) {
    dispatch!(w.weight_type(), T => T::multiply(isa, x, w, out, scratch))
}

/// Writes row `row` of a weight to `out`.
pub(crate) fn dequantize(w: Weight<'_>, row: usize, out: &mut [f32]) {
    dispatch!(w.weight_type(), T => T::dequantize(w.row(row), out))
}

/// Returns the bytes of `values` in type `ty`; `None` for a type that values are not quantised to.
pub(crate) fn encode(ty: WeightType, values: &[f32]) -> Option<Vec<u8>> {
    dispatch!(ty, T => T::encode(values))
}

/// f32, f16 and bf16 weights.
struct FloatKind<E>(PhantomData<E>);

impl<E: FloatElement> WeightKind for FloatKind<E> {
    const ROW_ALIGN: usize = 24;

    fn operand<'a>(isa: Isa, x: &'a [f32], k: usize) -> Operand<'a> {
        Operand::Floats(ArrangedRows::new(isa, x, k))
    }

    fn takes(_: Isa, x: &Operand<'_>) -> bool {
        matches!(x, Operand::Floats(_))
    }

    fn multiply(isa: Isa, x: &Operand<'_>, w: Weight<'_>, out: &mut [&mut [f32]], _: &mut PanelScratch) {
        let Operand::Floats(x) = x else { unreachable!("an operand that is taken") };
        float::dots::<E>(isa, x, w.bytes(), out);
    }

    fn dequantize(row: &[u8], out: &mut [f32]) {
        for (to, from) in out.iter_mut().zip(row.chunks_exact(E::BYTES)) {
            *to = E::to_f32(from);
        }
    }

    fn encode(values: &[f32]) -> Option<Vec<u8>> {
        Some(values.iter().flat_map(|value| E::from_f32(*value)).collect())
    }
}

/// Weights of quantisation blocks.
struct BlockKind<B>(PhantomData<B>);

impl<B: BlockLayout> WeightKind for BlockKind<B> {
    const ROW_ALIGN: usize = PANEL_ROWS * PANELS;

    fn operand<'a>(isa: Isa, x: &'a [f32], k: usize) -> Operand<'a> {
        Operand::Codes(block_product::quantize_activations::<B>(isa, x, k))
    }

    fn takes(isa: Isa, x: &Operand<'_>) -> bool {
        matches!(x, Operand::Codes(x) if block_product::takes::<B>(isa, x))
    }

    fn multiply(isa: Isa, x: &Operand<'_>, w: Weight<'_>, out: &mut [&mut [f32]], scratch: &mut PanelScratch) {
        let Operand::Codes(x) = x else { unreachable!("an operand that is taken") };
        block_product::multiply::<B>(isa, x, w, out, scratch);
    }

    fn dequantize(row: &[u8], out: &mut [f32]) {
        quant::dequantize::<B>(row, out);
    }

    fn encode(values: &[f32]) -> Option<Vec<u8>> {
        quant::encode::<B>(values)
    }
}
