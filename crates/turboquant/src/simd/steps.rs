//! The steps of attention, compiled for one pair of formats and one instruction set.
use prelude::*;

/// Everything that [`steps`] and [`Steps`] name.
pub(super) mod prelude {
    pub(in crate::simd) use super::super::dispatch::for_direct_format;
    pub(in crate::simd) use super::super::{
        CorrectionSpan, CorrectionState, HeadQuery, Place, QUAD, Span, SpanScratch, accumulate, correction, expand,
        query, scores, softmax, state, store,
    };
    pub(in crate::simd) use super::{Steps, steps};
    pub(in crate::simd) use crate::format::{Format, Side};
    pub(in crate::simd) use crate::key_transform::CorrectionQuery;
    pub(in crate::simd) use crate::layout::{RecordLayout, SPAN};
    pub(in crate::simd) use crate::rotation::Rotation;
}

/// Declares [`Steps`]: for each step a pointer to the function that is compiled for the instruction set, and a method
/// that calls it.
macro_rules! table {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        /// The steps of one pair of formats on one instruction set.
        #[derive(Clone, Copy)]
        pub(crate) struct Steps {
            $(pub(super) $name: unsafe fn($($type),*) $(-> $result)?,)*
        }

        impl Steps {
            $($(#[$doc])*
            pub(crate) fn $name(&self, $($argument: $type),*) $(-> $result)? {
                // SAFETY: `Steps::new` gives steps only for an instruction set that the machine has.
                unsafe { (self.$name)($($argument),*) }
            })*
        }
    };
}

table! {
    /// Appends the integer form of one head's query; returns the integers' sum and their unit.
    fn quantize(q: &[f32], words: &mut Vec<u32>, wide: &mut Vec<u64>) -> (i32, f32);
    /// Logits of a quad's heads over a span, base 2.
    fn scores(span: &Span<'_>, heads: &[HeadQuery<'_>], out: &mut [[f32; SPAN]; QUAD]);
    /// Adds the mean correction to them.
    fn correct(span: &CorrectionSpan<'_>, out: &mut [[f32; SPAN]; QUAD]);
    /// Turns them into weights.
    fn softmax(span: &Span<'_>, places: &[Place], scratch: &mut SpanScratch, parts: &mut [f32]);
    /// Adds the weighted values to the partial states.
    fn accumulate(span: &Span<'_>, places: &[Place], scratch: &SpanScratch, parts: &mut [f32]);
    /// States of a query's heads for the partition that starts at `position`.
    fn prepare(query: &CorrectionQuery, position: usize, states: &mut CorrectionState);
    /// Merges the partial states of a query's heads.
    fn merge(into: &mut [f32], other: &[f32], group: usize);
    /// Expands the trellis codes of a strip of K to integers of 8 bits.
    fn expand_keys(codes: &[u8], ahead: isize, out: &mut [[u8; 64]]);
    /// Expands those of a strip of V.
    fn expand_values(codes: &[u8], ahead: isize, out: &mut [[u8; 64]]);
    fn rotate(rotation: &Rotation, x: &mut [f32]);
    fn unrotate(rotation: &Rotation, z: &mut [f32]);
    /// Codes and scales of a rotated vector.
    fn encode(format: Format, z: &[f32], codes: &mut [u8], scales: &mut [u8]);
    /// Stores one vector at a slot of a record.
    fn store(
        layout: &RecordLayout, rotation: Option<&Rotation>, record: &mut [u8], slot: usize, side: Side, x: &[f32]
    );
    /// Decodes tokens `tokens` (0..16) of a record's strip into a strip of f32.
    fn decode(
        layout: &RecordLayout, record: &[u8], strip: usize, tokens: (usize, usize), side: Side, out: &mut [u8]
    );
}

/// The steps of an instruction set: `$attr` compiles them for it, `$token` proves that it is there, `$n`, `$m` strips
/// and `$c` columns (`$w` with 15-bit weights) are treated at a time.
macro_rules! steps {
    ($(#[$attr:meta])* $simd:ty, $token:expr, $n:literal, $m:literal, $c:literal, $w:literal) => {
        $(#[$attr])*
        fn scores<const FORMAT: u8>(span: &Span<'_>, heads: &[HeadQuery<'_>], out: &mut [[f32; SPAN]; QUAD]) {
            scores::scores::<$simd, FORMAT, $n, $m>($token, span, heads, out)
        }
        $(#[$attr])*
        fn softmax<const FORMAT: u8>(span: &Span<'_>, places: &[Place], scratch: &mut SpanScratch, parts: &mut [f32]) {
            softmax::softmax::<$simd, FORMAT>($token, span, places, scratch, parts)
        }
        $(#[$attr])*
        fn accumulate<const FORMAT: u8>(span: &Span<'_>, places: &[Place], scratch: &SpanScratch, parts: &mut [f32]) {
            accumulate::accumulate::<$simd, FORMAT, $c, $w>($token, span, places, scratch, parts)
        }
        $(#[$attr])*
        fn prepare(query: &CorrectionQuery, position: usize, states: &mut CorrectionState) {
            correction::prepare($token, query, position, states)
        }
        $(#[$attr])*
        fn correct(span: &CorrectionSpan<'_>, out: &mut [[f32; SPAN]; QUAD]) {
            correction::add($token, span, out)
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
        fn expand_keys<const FORMAT: u8>(codes: &[u8], ahead: isize, out: &mut [[u8; 64]]) {
            expand::expand::<$simd, FORMAT, true>($token, codes, ahead, out)
        }
        $(#[$attr])*
        fn expand_values<const FORMAT: u8>(codes: &[u8], ahead: isize, out: &mut [[u8; 64]]) {
            expand::expand::<$simd, FORMAT, false>($token, codes, ahead, out)
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
        fn encode(format: Format, z: &[f32], codes: &mut [u8], scales: &mut [u8]) {
            store::encode($token, format, z, codes, scales)
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
        pub(super) fn steps(k: Format, v: Format) -> Steps {
            Steps {
                scores: for_direct_format!(k, scores),
                softmax: for_direct_format!(v, softmax),
                accumulate: for_direct_format!(v, accumulate),
                prepare,
                correct,
                merge,
                expand_keys: for_direct_format!(k, expand_keys),
                expand_values: for_direct_format!(v, expand_values),
                encode,
                rotate,
                unrotate,
                store,
                decode,
                quantize: for_direct_format!(k, quantize),
            }
        }
    };
}
pub(super) use steps;
