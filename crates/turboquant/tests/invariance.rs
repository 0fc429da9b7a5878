//! A row's result depends on its query, its visible range and the stored bytes alone, bit for bit.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod common;
use common::{Cache, Rng, pair_scale, query};
use proptest::prelude::*;
use turboquant::{
    CorrectionTables, Format, HeadConstants, Isa, Job, Kernel, KeyTransform, PARTITION, Query, RecordLayout, Rope, Row,
};

/// One pair of each family of kernels, K and V of different families where both exist.
fn formats() -> impl Strategy<Value = (Format, Format)> {
    use Format::*;
    prop::sample::select(vec![
        (F32, F32),
        (F16, Bf16),
        (Bf16, F16),
        (Tq8, Tq8),
        (Tc5, Tc5),
        (Tc4, Tc3),
        (Tq8, Tc4),
        (Tc3, Tq8),
        (Tc2, Tc2),
        (Affine4, Lloyd3),
        (Affine8, Int8),
        (Tc4, F32),
    ])
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

fn key_transform(rng: &mut Rng, d: usize) -> KeyTransform {
    let frequencies: Vec<f32> = (0..d / 2).map(|i| 1e4f32.powf(-(2.0 * i as f32) / d as f32)).collect();
    let tables = CorrectionTables::new(&Rope::new(frequencies, 1.0).unwrap(), d).unwrap();
    let (mean, first_mean, scale) = (rng.vector(d), rng.vector(d), pair_scale(rng, d / 2, d));
    KeyTransform::new(&tables, HeadConstants { mean: &mean, first_mean: &first_mean, scale: &scale }, 5).unwrap()
}

/// The state of every row, attended together.
fn together(
    kernel: &Kernel,
    records: &[Vec<u8>],
    first: usize,
    rows: &[(Query, usize, usize)],
    ahead: bool,
) -> Vec<f32> {
    let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    let rows: Vec<Row<'_>> = rows.iter().map(|(query, from, to)| Row { query, from: *from, to: *to }).collect();
    let mut parts = vec![f32::NAN; rows.iter().map(|row| kernel.part_len(row.query.group())).sum()];
    let prefetch = if ahead { &records[..] } else { &[] };
    kernel.attend(&Job { records: &records, prefetch, first_position: first, rows: &rows }, &mut parts);
    parts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn rows_do_not_depend_on_each_other_or_on_dead_slots(
        formats in formats(),
        d in prop::sample::select(vec![16usize, 64, 80, 96, 128]),
        block_size in prop::sample::select(vec![16usize, 32]),
        group in 1usize..8,
        tokens in 1usize..=PARTITION,
        ranges in prop::collection::vec((0usize..=PARTITION, 0usize..=PARTITION), 1..12),
        centred: bool,
        partition in 0usize..3,
        seed in 1u64..u64::MAX,
    ) {
        let mut rng = Rng(seed);
        let layout = RecordLayout::new(formats.0, formats.1, d, block_size).unwrap();
        let cache = Cache::random(layout, Isa::Scalar, tokens, &mut rng);
        let transform = centred.then(|| key_transform(&mut rng, d));
        let vectors: Vec<Vec<f32>> = ranges.iter().map(|_| rng.vector(group * d)).collect();
        for isa in Isa::available() {
            let kernel = Kernel::new(layout, isa);
            let rows: Vec<(Query, usize, usize)> = vectors
                .iter()
                .zip(&ranges)
                .map(|(q, (a, b))| {
                    let (from, to) = (a.min(b) % (tokens + 1), a.max(b) % (tokens + 1));
                    (query(&kernel, q, group, transform.as_ref()), from.min(to), to.max(from))
                })
                .collect();
            let first = partition * PARTITION;
            let parts = together(&kernel, &cache.records, first, &rows, true);
            prop_assert!(parts.iter().all(|v| v.is_finite()));
            let len = kernel.part_len(group);
            for (row, part) in rows.iter().zip(parts.chunks_exact(len)) {
                let alone = together(&kernel, &cache.records, first, std::slice::from_ref(row), false);
                prop_assert_eq!(bits(&alone), bits(part), "{:?} row {}..{}", isa, row.1, row.2);
            }
            // Other bytes in the slots that nothing was stored in.
            let mut dirty = Cache::new(layout, isa);
            for record in &cache.records {
                dirty.records.push(record.iter().map(|_| rng.word() as u8).collect());
            }
            refill(&mut dirty, &cache);
            let again = together(&kernel, &dirty.records, first, &rows, true);
            prop_assert_eq!(bits(&again), bits(&parts), "{:?} dead slots", isa);
        }
    }
}

/// Stores the same tokens as in `from`, over whatever the records hold.
fn refill(into: &mut Cache, from: &Cache) {
    for (token, (k, v)) in from.stored.iter().enumerate() {
        let size = into.kernel.layout().block_size();
        into.kernel.store(&mut into.records[token / size], token % size, k, v);
    }
}
