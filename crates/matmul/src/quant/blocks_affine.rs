//! MLX's affine quantisation: groups of 32, 64 or 128 elements with a scale `s` and a bias `b`, floats of 16 bits, and
//! unsigned codes `q` of 2 to 8 bits; an element is `s * q + b`.
//!
//! A block is one group: `s`, `b`, then the codes of each 32 elements in planes ([`super::mlx`]).

use super::lanes::{Lanes, low_bits};
use super::mlx::PLANES;
use super::{BlockLayout, Unpacked};
use crate::{Affine, HalfFloat, WeightType};

/// Blocks of `GROUP` codes of `BITS` bits, with scale and bias as bf16 where `WIDE` is set, else as f16.
pub(crate) struct AffineBlock<const BITS: usize, const GROUP: usize, const WIDE: bool>;

/// The words of 32 codes. Byte `j` of word `i` of a plane of `w` bits holds those of elements `4 i + j`,
/// `4 (i + w) + j`, `4 (i + 2 w) + j` and so on.
struct AffineGroup32<'a, V>(&'a [V]);

impl<V> AffineGroup32<'_, V> {
    /// Returns the codes of elements `4 of..4 of + 4`, a byte each.
    #[inline(always)]
    fn codes<const R: usize>(&self, bits: usize, of: usize) -> V
    where
        V: Lanes<R>,
    {
        let (mut codes, mut at) = (V::zero(), 0);
        for width in PLANES.into_iter().filter(|width| bits & width != 0) {
            let plane = self.0[at + of % width] >> (width * (of / width)) as u32 & low_bits(width as u32);
            codes = codes | plane << at as u32;
            at += width;
        }
        codes
    }
}

impl<const BITS: usize, const GROUP: usize, const WIDE: bool> BlockLayout for AffineBlock<BITS, GROUP, WIDE> {
    const TYPE: WeightType = match Affine::new(BITS, GROUP, if WIDE { HalfFloat::Bf16 } else { HalfFloat::F16 }) {
        Some(of) => WeightType::Affine(of),
        None => panic!("no such type"),
    };
    const MINS: bool = true;
    /// Codes of 8 bits are taken as signed ones, which lie 128 below.
    const SIGNED: bool = BITS == 8;
    const OFFSET: i32 = if BITS == 8 { -128 } else { 0 };

    #[inline(always)]
    fn unpack<V: Lanes<R>, const R: usize>(words: &[V], _: V, to: Unpacked<'_, R>) {
        let (scale, bias) = (words[0].half_float(WIDE), (words[0] >> 16).half_float(WIDE));
        for group in 0..GROUP / 32 {
            let words = AffineGroup32(&words[1 + group * BITS..][..BITS]);
            for of in 0..8 {
                let codes = words.codes::<R>(BITS, of);
                let codes = if Self::SIGNED { codes ^ 0x8080_8080 ^ V::SIGNED_FLIP } else { codes };
                codes.store(&mut to.codes[8 * group + of]);
            }
            V::store_float(scale, &mut to.scales[group]);
            V::store_float(bias, &mut to.mins[group]);
        }
    }
}
