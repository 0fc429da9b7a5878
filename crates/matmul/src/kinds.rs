//! What there is to do with the weights of each type.

use std::marker::PhantomData;

use crate::quant::{self, Activations, Encode, PANEL, PANELS, Scratch};
use crate::simd::{self, Arranged};
use crate::weight::{Element, ElementBf16, ElementF16, ElementF32};
use crate::{Isa, Weight, WeightType};

/// The rows of `x` as the kernels of a type take them.
pub(crate) enum Operand<'a> {
    Floats(Arranged<'a>),
    Codes(Activations),
}

/// What there is to do with the weights of a type.
trait Kind {
    /// Rows of a weight in a task are a multiple of this, so that only the last one meets a partial tile.
    const ROW_ALIGN: usize;

    fn operand<'a>(isa: Isa, x: &'a [f32], k: usize) -> Operand<'a>;

    /// Whether an operand that was made for another type is what this one takes.
    fn takes(isa: Isa, x: &Operand<'_>) -> bool;

    /// `out[i][j] = sum_k x[i][k] * w[j][k]`; `out` has a row for each of `x`, and `x` is an operand that is taken.
    fn multiply(isa: Isa, x: &Operand<'_>, w: Weight<'_>, out: &mut [&mut [f32]], scratch: &mut Scratch);

    /// The elements of a row.
    fn dequantize(row: &[u8], out: &mut [f32]);

    /// The bytes of `values`.
    fn encode(values: &[f32]) -> Vec<u8>;
}

/// `$work` with `$kind` the [`Kind`] of a weight type.
macro_rules! dispatch {
    ($ty:expr, $kind:ident => $work:expr) => {
        match $ty {
            WeightType::F32 => dispatch!(@ $kind = Floats<ElementF32>, $work),
            WeightType::F16 => dispatch!(@ $kind = Floats<ElementF16>, $work),
            WeightType::Bf16 => dispatch!(@ $kind = Floats<ElementBf16>, $work),
            WeightType::Q8_0 => dispatch!(@ $kind = Blocks<quant::Q8_0>, $work),
            WeightType::Q4_0 => dispatch!(@ $kind = Blocks<quant::Q4_0>, $work),
            WeightType::Q4_1 => dispatch!(@ $kind = Blocks<quant::Q4_1>, $work),
            WeightType::Q5_0 => dispatch!(@ $kind = Blocks<quant::Q5_0>, $work),
            WeightType::Q5_1 => dispatch!(@ $kind = Blocks<quant::Q5_1>, $work),
            WeightType::Q2_K => dispatch!(@ $kind = Blocks<quant::Q2K>, $work),
            WeightType::Q3_K => dispatch!(@ $kind = Blocks<quant::Q3K>, $work),
            WeightType::Q4_K => dispatch!(@ $kind = Blocks<quant::Q4K>, $work),
            WeightType::Q5_K => dispatch!(@ $kind = Blocks<quant::Q5K>, $work),
            WeightType::Q6_K => dispatch!(@ $kind = Blocks<quant::Q6K>, $work),
        }
    };
    (@ $kind:ident = $ty:ty, $work:expr) => {{
        type $kind = $ty;
        $work
    }};
}

/// Which of `operands` the weights of a type take, made if none is, and what their rows in a task are a multiple of.
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

/// `out[i][j] = sum_k x[i][k] * w[j][k]`, with an operand that the weight's type takes.
pub(crate) fn multiply(isa: Isa, x: &Operand<'_>, w: Weight<'_>, out: &mut [&mut [f32]], scratch: &mut Scratch) {
    dispatch!(w.weight_type(), T => T::multiply(isa, x, w, out, scratch))
}

/// Row `row` of a weight.
pub(crate) fn dequantize(w: Weight<'_>, row: usize, out: &mut [f32]) {
    dispatch!(w.weight_type(), T => T::dequantize(w.row(row), out))
}

pub(crate) fn encode(ty: WeightType, values: &[f32]) -> Vec<u8> {
    dispatch!(ty, T => T::encode(values))
}

/// f32, f16 and bf16.
struct Floats<E>(PhantomData<E>);

impl<E: Element> Kind for Floats<E> {
    const ROW_ALIGN: usize = 24;

    fn operand<'a>(isa: Isa, x: &'a [f32], k: usize) -> Operand<'a> {
        Operand::Floats(Arranged::new(isa, x, k))
    }

    fn takes(_: Isa, x: &Operand<'_>) -> bool {
        matches!(x, Operand::Floats(_))
    }

    fn multiply(isa: Isa, x: &Operand<'_>, w: Weight<'_>, out: &mut [&mut [f32]], _: &mut Scratch) {
        let Operand::Floats(x) = x else { unreachable!("an operand that is taken") };
        simd::dots::<E>(isa, x, w.bytes(), out);
    }

    fn dequantize(row: &[u8], out: &mut [f32]) {
        for (to, from) in out.iter_mut().zip(row.chunks_exact(E::BYTES)) {
            *to = E::to_f32(from);
        }
    }

    fn encode(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| E::from_f32(*value)).collect()
    }
}

/// ggml's blocks.
struct Blocks<B>(PhantomData<B>);

impl<B: Encode> Kind for Blocks<B> {
    const ROW_ALIGN: usize = PANEL * PANELS;

    fn operand<'a>(isa: Isa, x: &'a [f32], k: usize) -> Operand<'a> {
        Operand::Codes(Activations::quantize(isa, x, k, B::GROUP, simd::code_offset::<B>(isa)))
    }

    fn takes(isa: Isa, x: &Operand<'_>) -> bool {
        matches!(x, Operand::Codes(x) if x.group == B::GROUP && x.offset == simd::code_offset::<B>(isa))
    }

    fn multiply(isa: Isa, x: &Operand<'_>, w: Weight<'_>, out: &mut [&mut [f32]], scratch: &mut Scratch) {
        let Operand::Codes(x) = x else { unreachable!("an operand that is taken") };
        quant::multiply::<B>(isa, x, w, out, scratch);
    }

    fn dequantize(row: &[u8], out: &mut [f32]) {
        quant::dequantize::<B>(row, out);
    }

    fn encode(values: &[f32]) -> Vec<u8> {
        quant::encode::<B>(values)
    }
}
