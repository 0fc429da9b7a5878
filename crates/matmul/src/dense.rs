//! Products with f32, f16 and bf16 weights.

use std::marker::PhantomData;

use crate::products::{Kind, Operand};
use crate::quant::Scratch;
use crate::simd::{self, Arranged};
use crate::weight::Element;
use crate::{Isa, Weight};

pub(crate) struct Floats<E>(PhantomData<E>);

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
