//! Instruction sets and the table of a kernel's steps.
use super::portable::{BYTES, Portable};
use super::{
    CorrectionTile, HeadQuery, Place, Scratch, Tile, accumulate, correction, query, scores, softmax, state, store,
};
use crate::format::{Format, Side};
use crate::key_mean::CorrectionQuery;
use crate::layout::RecordLayout;
use crate::layout::TILE;
use crate::rotation::Rotation;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Isa {
    Scalar,
    /// AVX2, FMA, F16C.
    Avx2,
    /// AVX-512 F, BW, VL, DQ, VNNI, VBMI (Zen 4, Ice Lake and later).
    Avx512,
    /// NEON with the dot product extension.
    Neon,
}

impl Isa {
    /// The fastest one of this machine.
    pub fn best() -> Isa {
        Isa::available().pop().unwrap_or(Isa::Scalar)
    }

    /// Every one that this machine has, slowest first.
    pub fn available() -> Vec<Isa> {
        [Isa::Scalar, Isa::Neon, Isa::Avx2, Isa::Avx512].into_iter().filter(|isa| isa.is_available()).collect()
    }

    fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => super::avx2::is_available(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => super::avx512::is_available(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => super::neon::is_available(),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }
}

pub(super) type ScoresFn = unsafe fn(&Tile<'_>, &[HeadQuery<'_>], &mut [[f32; TILE]; super::CHUNK]);
pub(super) type SoftmaxFn = unsafe fn(&Tile<'_>, &[Place], &mut Scratch, &mut [f32]);
pub(super) type AccumulateFn = unsafe fn(&Tile<'_>, &[Place], &Scratch, &mut [f32]);
pub(super) type PrepareFn = unsafe fn(&CorrectionQuery, usize, &mut super::State);
pub(super) type CorrectFn = unsafe fn(&CorrectionTile<'_>, &mut [[f32; TILE]; super::CHUNK]);
pub(super) type QuantizeFn = unsafe fn(&[f32], &mut Vec<u32>, &mut Vec<u64>) -> (i32, f32);
pub(super) type MergeFn = unsafe fn(&mut [f32], &[f32], usize);
pub(super) type RotateFn = unsafe fn(&Rotation, &mut [f32]);
pub(super) type StoreFn = unsafe fn(&RecordLayout, Option<&Rotation>, &mut [u8], usize, Side, &[f32]);
pub(super) type DecodeFn = unsafe fn(&RecordLayout, &[u8], usize, (usize, usize), Side, &mut [u8]);

/// The steps of one pair of formats on one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    pub(super) scores: ScoresFn,
    pub(super) softmax: SoftmaxFn,
    pub(super) accumulate: AccumulateFn,
    pub(super) prepare: PrepareFn,
    pub(super) correct: CorrectFn,
    pub(super) merge: MergeFn,
    pub(super) rotate: RotateFn,
    pub(super) unrotate: RotateFn,
    pub(super) store: StoreFn,
    pub(super) decode: DecodeFn,
    pub(super) quantize: QuantizeFn,
}

/// The steps of an instruction set: `$attr` compiles them for it, `$token` proves that it is there, `$n`, `$m` strips
/// and `$c` columns (`$w` with 15-bit weights) are treated at a time.
macro_rules! steps {
    ($(#[$attr:meta])* $simd:ty, $token:expr, $n:literal, $m:literal, $c:literal, $w:literal) => {
        $(#[$attr])*
        fn scores<const FORMAT: u8>(tile: &Tile<'_>, heads: &[HeadQuery<'_>], out: &mut [[f32; TILE]; CHUNK]) {
            scores::scores::<$simd, FORMAT, $n, $m>($token, tile, heads, out)
        }
        $(#[$attr])*
        fn softmax<const FORMAT: u8>(tile: &Tile<'_>, places: &[Place], scratch: &mut Scratch, parts: &mut [f32]) {
            softmax::softmax::<$simd, FORMAT>($token, tile, places, scratch, parts)
        }
        $(#[$attr])*
        fn accumulate<const FORMAT: u8>(tile: &Tile<'_>, places: &[Place], scratch: &Scratch, parts: &mut [f32]) {
            accumulate::accumulate::<$simd, FORMAT, $c, $w>($token, tile, places, scratch, parts)
        }
        $(#[$attr])*
        fn prepare(query: &CorrectionQuery, position: usize, states: &mut State) {
            correction::prepare($token, query, position, states)
        }
        $(#[$attr])*
        fn add_correction(tile: &CorrectionTile<'_>, out: &mut [[f32; TILE]; CHUNK]) {
            correction::add($token, tile, out)
        }
        $(#[$attr])*
        fn quantize<const FORMAT: u8>(q: &[f32], words: &mut Vec<u32>, wide: &mut Vec<u64>) -> (i32, f32) {
            query::quantize::<$simd, FORMAT>($token, q, words, wide)
        }
        $(#[$attr])*
        fn merge(into: &mut [f32], other: &[f32], group: usize) {
            state::merge($token, into, other, group)
        }
        $(#[$attr])*
        fn rotate(rotation: &Rotation, x: &mut [f32]) {
            store::rotate($token, rotation, x)
        }
        $(#[$attr])*
        fn unrotate(rotation: &Rotation, x: &mut [f32]) {
            store::unrotate($token, rotation, x)
        }
        $(#[$attr])*
        fn store(
            layout: &RecordLayout,
            rotation: Option<&Rotation>,
            record: &mut [u8],
            slot: usize,
            side: Side,
            x: &[f32],
        ) {
            store::store($token, layout, rotation, record, slot, side, x)
        }
        $(#[$attr])*
        fn decode(
            layout: &RecordLayout,
            record: &[u8],
            strip: usize,
            tokens: (usize, usize),
            side: Side,
            out: &mut [u8],
        ) {
            store::decode_strip(layout, record, strip, tokens, side, out)
        }
        /// The steps for two formats. To be called only where the instruction set is available.
        pub(super) fn steps(k: crate::format::Format, v: crate::format::Format) -> Steps {
            Steps {
                scores: crate::format::for_direct_format!(k, scores),
                softmax: crate::format::for_direct_format!(v, softmax),
                accumulate: crate::format::for_direct_format!(v, accumulate),
                prepare,
                correct: add_correction,
                merge,
                rotate,
                unrotate,
                store,
                decode,
                quantize: crate::format::for_direct_format!(k, quantize),
            }
        }
    };
}
pub(super) use steps;

mod scalar {
    use super::super::{CHUNK, State};
    use super::*;
    steps!(Portable<BYTES>, Portable::<BYTES>, 1, 1, 1, 1);
}

impl Steps {
    /// `None` if the machine lacks `isa`.
    pub(crate) fn new(isa: Isa, k: Format, v: Format) -> Option<Steps> {
        match isa {
            _ if !isa.is_available() => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(super::avx2::steps(k, v)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(super::avx512::steps(k, v)),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(super::neon::steps(k, v)),
            _ => Some(scalar::steps(k, v)),
        }
    }

    /// Appends the integer form of one head's query; returns the integers' sum and their unit.
    pub(crate) fn quantize(&self, q: &[f32], words: &mut Vec<u32>, wide: &mut Vec<u64>) -> (i32, f32) {
        // SAFETY: as in `scores`.
        unsafe { (self.quantize)(q, words, wide) }
    }

    pub(crate) fn scores(&self, tile: &Tile<'_>, heads: &[HeadQuery<'_>], out: &mut [[f32; TILE]; super::CHUNK]) {
        // SAFETY: `new` gives steps only for an instruction set that the machine has.
        unsafe { (self.scores)(tile, heads, out) }
    }

    pub(crate) fn softmax(&self, tile: &Tile<'_>, places: &[Place], scratch: &mut Scratch, parts: &mut [f32]) {
        // SAFETY: as in `scores`.
        unsafe { (self.softmax)(tile, places, scratch, parts) }
    }

    pub(crate) fn accumulate(&self, tile: &Tile<'_>, places: &[Place], scratch: &Scratch, parts: &mut [f32]) {
        // SAFETY: as in `scores`.
        unsafe { (self.accumulate)(tile, places, scratch, parts) }
    }

    /// States of a query's heads for the partition that starts at `position`.
    pub(crate) fn prepare(&self, query: &CorrectionQuery, position: usize, states: &mut super::State) {
        // SAFETY: as in `scores`.
        unsafe { (self.prepare)(query, position, states) }
    }

    pub(crate) fn correct(&self, tile: &CorrectionTile<'_>, out: &mut [[f32; TILE]; super::CHUNK]) {
        // SAFETY: as in `scores`.
        unsafe { (self.correct)(tile, out) }
    }

    pub(crate) fn merge(&self, into: &mut [f32], other: &[f32], group: usize) {
        // SAFETY: as in `scores`.
        unsafe { (self.merge)(into, other, group) }
    }

    pub(crate) fn rotate(&self, rotation: &Rotation, x: &mut [f32]) {
        // SAFETY: as in `scores`.
        unsafe { (self.rotate)(rotation, x) }
    }

    pub(crate) fn unrotate(&self, rotation: &Rotation, z: &mut [f32]) {
        // SAFETY: as in `scores`.
        unsafe { (self.unrotate)(rotation, z) }
    }

    pub(crate) fn store(
        &self,
        layout: &RecordLayout,
        rotation: Option<&Rotation>,
        record: &mut [u8],
        slot: usize,
        side: Side,
        x: &[f32],
    ) {
        // SAFETY: as in `scores`.
        unsafe { (self.store)(layout, rotation, record, slot, side, x) }
    }

    /// Decodes tokens `tokens` (0..16) of a record's strip into a strip of f32.
    pub(crate) fn decode(
        &self,
        layout: &RecordLayout,
        record: &[u8],
        strip: usize,
        tokens: (usize, usize),
        side: Side,
        out: &mut [u8],
    ) {
        // SAFETY: as in `scores`.
        unsafe { (self.decode)(layout, record, strip, tokens, side, out) }
    }
}

/// Decodes one slot; rotated formats stay rotated.
pub(crate) fn load(layout: &RecordLayout, record: &[u8], slot: usize, side: Side, out: &mut [f32]) {
    store::load(layout, record, slot, side, out)
}
