//! AVX2's and NEON's integer kernels against scalar code with the same limits of queries and weights, bit by bit.
use super::dispatch::{Isa, for_direct_format};
use super::portable::Portable;
use super::{HeadQuery, Place, QUAD, Span, SpanScratch, accumulate, query, scores, softmax};
use crate::attend::{Job, Row};
use crate::format::{Format, Side};
use crate::kernel::Kernel;
use crate::layout::RecordLayout;
use crate::layout::{PARTITION, SPAN};
use proptest::prelude::*;

/// The formats whose codes are multiplied as integers.
fn coded() -> Vec<Format> {
    Format::all(Side::K).filter(|format| format.has_one_scale()).collect()
}

/// The instruction set of this architecture that multiplies smaller integers, and its limits.
#[cfg(target_arch = "aarch64")]
const NARROW: (Isa, u8) = (Isa::Neon, super::portable::SIGNED);
#[cfg(not(target_arch = "aarch64"))]
const NARROW: (Isa, u8) = (Isa::Avx2, super::portable::PAIRS);

type Narrow = Portable<{ NARROW.1 }>;

fn scores<const FORMAT: u8>(span: &Span<'_>, heads: &[HeadQuery<'_>], out: &mut [[f32; SPAN]; QUAD]) {
    scores::scores::<Narrow, FORMAT, 1, 1>(Portable, span, heads, out)
}

fn quantize<const FORMAT: u8>(q: &[f32], words: &mut Vec<u32>, wide: &mut Vec<u64>) -> (i32, f32) {
    query::quantize::<Narrow, FORMAT>(Portable, q, words, wide)
}

fn softmax<const FORMAT: u8>(span: &Span<'_>, places: &[Place], scratch: &mut SpanScratch, parts: &mut [f32]) {
    softmax::softmax::<Narrow, FORMAT>(Portable, span, places, scratch, parts)
}

fn accumulate<const FORMAT: u8>(span: &Span<'_>, places: &[Place], scratch: &SpanScratch, parts: &mut [f32]) {
    accumulate::accumulate::<Narrow, FORMAT, 1, 1>(Portable, span, places, scratch, parts)
}

/// A scalar kernel of the same limits.
fn scalar(layout: RecordLayout) -> Kernel {
    let mut kernel = Kernel::new(layout, Isa::Scalar);
    let steps = &mut kernel.steps;
    // What does not depend on the limits is the scalar code itself.
    if layout.k() != Format::Tq8 {
        (steps.quantize, steps.scores) =
            (for_direct_format!(layout.k(), quantize), for_direct_format!(layout.k(), scores));
    }
    if layout.v() != Format::Tq8 {
        (steps.softmax, steps.accumulate) =
            (for_direct_format!(layout.v(), softmax), for_direct_format!(layout.v(), accumulate));
    }
    kernel
}

/// A kernel of the narrow instruction set, where the machine has it.
fn narrow(layout: RecordLayout) -> Option<Kernel> {
    Isa::available().contains(&NARROW.0).then(|| Kernel::new(layout, NARROW.0))
}

/// The state of a query that sees tokens `from..to`.
fn attend(kernel: &Kernel, records: &[Vec<u8>], q: &[f32], group: usize, from: usize, to: usize) -> Vec<u32> {
    let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    let query = kernel.query(q, group, 0.1, None);
    let rows = [Row { query: &query, from, to }];
    let mut part = vec![f32::NAN; kernel.part_len(group)];
    kernel.attend(&Job { records: &records, prefetch: &[], first_position: 0, rows: &rows }, &mut part);
    part.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn narrow_integers_are_equal(
        k in prop::sample::select(coded()),
        v in prop::sample::select(coded()),
        d in prop::sample::select(vec![16usize, 32, 64, 80, 96, 128, 256]),
        block_size in prop::sample::select(vec![16usize, 32]),
        group in 1usize..6,
        tokens in 1usize..=PARTITION,
        from in 0usize..PARTITION,
        data in prop::collection::vec(-3f32..3.0, 4096),
        start in 0usize..4096,
    ) {
        let layout = RecordLayout::new(k, v, d, block_size).unwrap();
        let scalar = scalar(layout);
        let mut values = data.iter().copied().cycle().skip(start);
        let mut vector = |n: usize| values.by_ref().take(n).collect::<Vec<f32>>();
        let mut records = vec![vec![0; layout.bytes()]; tokens.div_ceil(block_size)];
        for token in 0..tokens {
            scalar.store(&mut records[token / block_size], token % block_size, &vector(d), &vector(d));
        }
        let q = vector(group * d);
        if let Some(narrow) = narrow(layout) {
            let [want, got] =
                [scalar, narrow].map(|kernel| attend(&kernel, &records, &q, group, from % tokens, tokens));
            prop_assert_eq!(got, want, "{:?}/{:?} d {} {}..{}", k, v, d, from % tokens, tokens);
        }
    }
}

/// Every code the same, queries and weights all at their largest: what a pair of products in 16 bits must hold.
#[test]
fn extremes_do_not_overflow() {
    for (format, code) in coded().into_iter().flat_map(|format| (0..=255u8).map(move |code| (format, code))) {
        for d in [16, 512] {
            let layout = RecordLayout::new(format, format, d, 32).unwrap();
            let (scalar, Some(narrow)) = (scalar(layout), narrow(layout)) else { return };
            let mut record = vec![code; layout.bytes()];
            for scales in [Side::K, Side::V].into_iter().flat_map(|side| [0, 1].map(|strip| layout.scales(side, strip)))
            {
                record[scales].as_chunks_mut::<2>().0.fill(half::f16::ONE.to_le_bytes());
            }
            let records = vec![record; 4];
            for sign in [1.0, -1.0] {
                let mut q = vec![sign; d];
                scalar.steps.unrotate(scalar.rotation.as_ref().unwrap(), &mut q);
                let [want, got] = [&scalar, &narrow].map(|kernel| attend(kernel, &records, &q, 1, 0, 128));
                assert_eq!(got, want, "{format:?} {code:#x} d {d} {sign}");
            }
        }
    }
}
