//! Attention on packed bytes against f64 attention over the decoded rows.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod common;
use common::*;
use turboquant::{Format, Isa, PRESETS, RecordLayout, Side};

/// Bound of the output's relative error: twice the sum of the rms errors that apply, relative to the vector.
///
/// Float kernels sum 512 terms of f32 twice and use an exp2 of relative error 2e-7: 2.5e-6 covers it. Integer kernels
/// add, by side: a query of int8 (.64 %, AVX2 .92 %; of 15 bits .005 %), the integers in place of
/// a trellis code's values (`trellis.rs`), and weights of 8 bits, rounded to 1/w of the largest: .29 / w times the
/// largest over the rms of e^x for normal x, which is 4 to 5 (w = 255, AVX2 at most a tenth less; NEON 127).
fn bound(isa: Isa, k: Format, v: Format) -> f64 {
    use Format::*;
    let weights = 4.5 * 0.29 / if isa == Isa::Neon { 127.0 } else { 255.0 };
    let k = match k {
        Tq8 => 1e-4,
        Tc5 | Tc4 | Tc3 | Tc2 if isa == Isa::Avx2 => 0.0092 + 0.0105,
        Tc5 | Tc4 | Tc3 | Tc2 => 0.0064 + 0.0105,
        _ => 2.5e-6,
    };
    let v = match v {
        Tq8 => 1e-4,
        Tc5 | Tc4 | Tc3 | Tc2 => 0.0105 + weights,
        _ => 2.5e-6,
    };
    2.0 * (k + v)
}

fn compare(k: Format, v: Format, d: usize, block_size: usize, group: usize, tokens: usize, rng: &mut Rng) {
    let layout = RecordLayout::new(k, v, d, block_size).unwrap();
    let cache = Cache::random(layout, Isa::Scalar, tokens, rng);
    let q = rng.vector(group * d);
    for from in [0, tokens / 3] {
        let want = reference(&cache, &q, f64::from(logit_scale(d)), from, tokens, |_, _| 0.0);
        for isa in Isa::available() {
            let cache = cache.with_isa(isa);
            let got = cache.attend(&query(&cache.kernel, &q, group, None), from, tokens);
            let (error, bound) = (relative(&got, &want), bound(isa, k, v));
            let case = format!("{isa:?} {k:?}/{v:?} d {d} block {block_size} group {group} {from}..{tokens}");
            assert!(error < bound, "{case}: {error:.1e}, allowed {bound:.1e}");
        }
    }
}

/// Every format of either side, with an exact one on the other; sizes: one token, the edges of a strip, a block, a span
/// and a partition.
#[test]
fn formats_and_edges() {
    let mut rng = Rng(88_172_645_463_325_252);
    let pairs = formats(Side::K).into_iter().map(|k| (k, Format::F32));
    let pairs = pairs.chain(formats(Side::V).into_iter().map(|v| (Format::F32, v)));
    for (k, v) in pairs {
        for tokens in [1, 15, 17, 33, 127, 129, 700] {
            compare(k, v, 64, 16, 4, tokens, &mut rng);
        }
        compare(k, v, 128, 32, 4, 530, &mut rng);
    }
}

#[test]
fn presets_in_every_shape() {
    use Format::*;
    let mut rng = Rng(5);
    let pairs = PRESETS.iter().map(|preset| (preset.pair.k, preset.pair.v));
    for (k, v) in pairs.chain([(Tq8, Tc4), (Tc3, Tq8), (Tc2, Tc2)]) {
        for d in [16, 32, 80, 96, 256, 512] {
            compare(k, v, d, 32, 2, 141, &mut rng);
        }
        for group in [1, 3, 5, 7, 8, 16] {
            compare(k, v, 64, 16, group, 141, &mut rng);
        }
    }
}

#[test]
fn float_formats_take_odd_head_dims() {
    let mut rng = Rng(6);
    for (k, v) in [(Format::F32, Format::F32), (Format::F16, Format::F16), (Format::Bf16, Format::Bf16)] {
        for d in [8, 24, 72, 104] {
            compare(k, v, d, 16, 3, 77, &mut rng);
        }
    }
}

/// f32, f16 and bf16 rows come back as what rounding makes of them.
#[test]
fn float_formats_store_exactly() {
    let mut rng = Rng(7);
    let (k, v) = (rng.vector(64), rng.vector(64));
    for format in [Format::F32, Format::F16, Format::Bf16] {
        let mut cache = Cache::new(RecordLayout::new(format, format, 64, 16).unwrap(), Isa::best());
        cache.push(&k, &v);
        for (x, side) in [(&k, Side::K), (&v, Side::V)] {
            let round = |x: &f32| match format {
                Format::F16 => half::f16::from_f32(*x).to_f32(),
                Format::Bf16 => half::bf16::from_f32(*x).to_f32(),
                _ => *x,
            };
            assert_eq!(cache.row(0, side), x.iter().map(round).collect::<Vec<_>>());
        }
    }
}
