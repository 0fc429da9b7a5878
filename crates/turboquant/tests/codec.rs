//! Distortion of the formats, what the rotation preserves, and awkward input.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod common;
use common::{Cache, Rng, formats, relative};
use proptest::prelude::*;
use turboquant::{Format, Isa, Kernel, RecordLayout, Side};

/// Every format with each side that it is for.
fn sided_formats() -> impl Iterator<Item = (Format, Side)> {
    [Side::K, Side::V].into_iter().flat_map(|side| formats(side).into_iter().map(move |format| (format, side)))
}

/// A cache of one format on `side` with `rows` stored.
fn store(format: Format, side: Side, d: usize, rows: &[Vec<f32>]) -> Cache {
    let (k, v) = if side == Side::K { (format, Format::F32) } else { (Format::F32, format) };
    let mut cache = Cache::new(RecordLayout::new(k, v, d, 16).expect("a layout"), Isa::best());
    rows.iter().for_each(|row| cache.push(row, row));
    cache
}

/// Relative MSE over all rows, and the mean cosine.
fn distortion(format: Format, side: Side, rows: &[Vec<f32>]) -> (f64, f64) {
    let cache = store(format, side, rows[0].len(), rows);
    let (mut error, mut norm, mut cosine) = (0.0, 0.0, 0.0);
    for (t, x) in rows.iter().enumerate() {
        let y = cache.row(t, side);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let difference: Vec<f32> = x.iter().zip(&y).map(|(a, b)| a - b).collect();
        error += dot(&difference, &difference);
        norm += dot(x, x);
        cosine += dot(x, &y) / (dot(x, x) * dot(&y, &y)).sqrt();
    }
    (error / norm, cosine / rows.len() as f64)
}

/// Independent normal elements, rounded to bf16 as a model's activations are.
fn iid(rng: &mut Rng, d: usize, n: usize) -> Vec<Vec<f32>> {
    let round = |x: &f32| half::bf16::from_f32(*x).to_f32();
    (0..n).map(|_| rng.vector(d).iter().map(round).collect()).collect()
}

/// The codecs' table of distortions (`README.md`).
#[test]
fn distortion_on_iid_data() {
    use Format::*;
    let table = [
        (Tq8, Side::K, 6e-5, 0.99997),
        (Tc5, Side::K, 0.00149, 0.99925),
        (Tc4, Side::V, 0.0056, 0.9972),
        (Tc3, Side::V, 0.0208, 0.9895),
        (Tc2, Side::K, 0.0802, 0.9598),
        (Affine8, Side::K, 2.3e-5, 0.999989),
        (Affine5, Side::K, 0.00153, 0.99924),
        (Affine4, Side::K, 0.00655, 0.9967),
        (Int8, Side::V, 4.0e-5, 0.99998),
        (Lloyd5, Side::V, 0.00237, 0.9988),
        (Lloyd4, Side::V, 0.00893, 0.9955),
        (Lloyd3, Side::V, 0.0324, 0.9838),
        (Lloyd2, Side::V, 0.1120, 0.942),
    ];
    let mut rng = Rng(11);
    for d in [64, 80, 96, 128, 256] {
        let rows = iid(&mut rng, d, 3000);
        for (format, side, most, least) in table {
            let (error, cosine) = distortion(format, side, &rows);
            assert!(error <= most && cosine >= least, "{format:?} d {d}: {error:.3e} {cosine:.6}");
        }
    }
}

/// The mean cosines that the reference system publishes for its K formats, d = 128; ours must not be worse.
#[test]
fn published_cosines() {
    let rows = iid(&mut Rng(12), 128, 6000);
    for (name, published) in [("q8_0", 0.999989), ("q5_0", 0.999206), ("q4_0", 0.996761), ("uint2", 0.9269)] {
        let (_, cosine) = distortion(Format::parse(Side::K, name).unwrap(), Side::K, &rows);
        assert!(cosine >= published, "{name}: {cosine:.6}, published {published}");
    }
}

/// Scores on rotated vectors are scores: tq8's logits differ from the exact ones by its own error only.
#[test]
fn rotation_keeps_scores() {
    let mut rng = Rng(13);
    for d in [16, 64, 80, 96, 128, 256, 512] {
        let (x, q) = (rng.vector(d), rng.vector(d));
        let cache = store(Format::Affine8, Side::K, d, std::slice::from_ref(&x));
        let decoded = cache.row(0, Side::K);
        let dot = |a: &[f32]| a.iter().zip(&q).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        // One token: the logit is m, in base 2.
        let query = cache.kernel.query(&q, 1, 1.0, None);
        let mut part = vec![0.0; cache.kernel.part_len(1)];
        let records: Vec<&[u8]> = cache.records.iter().map(Vec::as_slice).collect();
        let rows = [turboquant::Row { query: &query, from: 0, to: 1 }];
        let job = turboquant::Job { records: &records, prefetch: &[], first_position: 0, rows: &rows };
        cache.kernel.attend(&job, &mut part);
        let logit = f64::from(part[d]) * std::f64::consts::LN_2;
        let size = (d as f64).sqrt();
        assert!((logit - dot(&decoded)).abs() < 1e-5 * size, "d {d}: {logit} {}", dot(&decoded));
    }
}

/// Un-rotating a weighted sum once equals un-rotating every vector.
#[test]
fn unrotating_once_equals_unrotating_each() {
    let mut rng = Rng(14);
    for d in [64, 80, 96, 128] {
        let rows = iid(&mut rng, d, 50);
        let cache = store(Format::Lloyd4, Side::V, d, &rows);
        let q = rng.vector(d);
        let got = cache.attend(&common::query(&cache.kernel, &q, 1, None), 0, 50);
        let want = common::reference(&cache, &q, f64::from(common::logit_scale(d)), 0, 50, |_, _| 0.0);
        assert!(relative(&got, &want) < 1e-5, "d {d}");
    }
}

/// Storing what was decoded gives the same codes, or at a tie of the refitted scale a neighbour: the row stays within a
/// tenth of the format's own error.
#[test]
fn encoding_is_stable() {
    let mut rng = Rng(15);
    for d in [64, 96, 128] {
        let rows = iid(&mut rng, d, 40);
        for (format, side) in sided_formats() {
            let (own, _) = distortion(format, side, &rows);
            let first = store(format, side, d, &rows);
            let decoded: Vec<Vec<f32>> = (0..rows.len()).map(|t| first.row(t, side)).collect();
            let (again, _) = distortion(format, side, &decoded);
            assert!(again <= 0.01 * own + 1e-9, "{format:?} d {d}: {again:.1e} beside {own:.1e}");
        }
    }
}

#[test]
fn awkward_vectors() {
    let d = 128;
    let mut rng = Rng(16);
    let noise = rng.vector(d);
    let one_hot = |x: f32| (0..d).map(|i| if i == 37 { x } else { 0.0 }).collect::<Vec<f32>>();
    for (format, side) in sided_formats() {
        let near = |x: &[f32], most: f64| {
            let cache = store(format, side, d, &[x.to_vec()]);
            let want: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
            let error = relative(&cache.row(0, side), &want);
            assert!(error <= most, "{format:?} {side}: {error:.1e}, allowed {most:.1e}");
        };
        assert!(store(format, side, d, &[vec![0.0; d]]).row(0, side).iter().all(|v| *v == 0.0), "{format:?} zero");
        let coarse = match format {
            Format::Lloyd2 => 0.6,
            Format::Tc2 => 0.45,
            Format::Lloyd3 | Format::Tc3 => 0.3,
            _ => 0.15,
        };
        near(&vec![0.7; d], coarse);
        near(&noise.iter().map(|x| 300.0 + 0.01 * x).collect::<Vec<f32>>(), coarse);
        // A one-hot vector becomes ±c everywhere: each codebook keeps it up to its scale's rounding. On a trellis path
        // neighbours cannot all have the same magnitude.
        let one_hot_most = match format {
            Format::Tc5 | Format::Tc4 | Format::Tc3 | Format::Tc2 => coarse,
            Format::Bf16 => 5e-3,
            _ => 1e-3,
        };
        near(&one_hot(6e4), one_hot_most);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// NaN counts as 0 and infinities as the largest element: any input stores, loads and attends to finite numbers.
    #[test]
    fn any_input_gives_finite_output(
        k in prop::sample::select(formats(Side::K)),
        v in prop::sample::select(formats(Side::V)),
        x in prop::collection::vec(prop_oneof![
            4 => -1e3f32..1e3,
            1 => Just(f32::NAN),
            1 => Just(f32::INFINITY),
            1 => Just(f32::NEG_INFINITY),
            1 => Just(f32::MAX),
            1 => Just(1e-42f32),
            1 => Just(-0.0f32),
        ], 64),
        isa in prop::sample::select(Isa::available()),
    ) {
        let layout = RecordLayout::new(k, v, 64, 16).unwrap();
        let mut cache = Cache::new(layout, isa);
        cache.push(&x, &x);
        let zeros: Vec<f32> = x.iter().map(|v| if v.is_nan() { 0.0 } else { *v }).collect();
        cache.push(&zeros, &zeros);
        for side in [Side::K, Side::V] {
            prop_assert!(cache.row(0, side).iter().all(|v| v.is_finite()));
            prop_assert_eq!(cache.row(0, side), cache.row(1, side), "NaN counts as 0");
        }
        let q = vec![1e-3; 64];
        let out = cache.attend(&common::query(&cache.kernel, &q, 1, None), 0, 2);
        prop_assert!(out.iter().all(|v| v.is_finite()), "{:?}", out);
    }
}

#[test]
fn a_missing_instruction_set_is_refused() {
    let all = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Neon];
    let layout = RecordLayout::new(Format::F32, Format::F32, 64, 16).unwrap();
    for isa in all.into_iter().filter(|isa| !Isa::available().contains(isa)) {
        assert!(std::panic::catch_unwind(|| Kernel::new(layout, isa)).is_err(), "{isa:?}");
    }
    assert!(Isa::available().contains(&Isa::best()));
}
