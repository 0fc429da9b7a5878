//! Keys stored without their mean, and what attention adds for it.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod common;
use common::*;
use turboquant::{
    CorrectionTables, DEFAULT_HIGH_PAIRS, Format, Isa, KeyMean, LOW_FREQUENCY, RecordLayout, Rope, Side, apply_rope,
};

struct Model {
    d: usize,
    /// RoPE's factor of cosines and sines.
    factor: f32,
    frequencies: Vec<f32>,
    mean: Vec<f32>,
}

impl Model {
    fn new(rng: &mut Rng, d: usize, rotary: usize, base: f32, factor: f32, size: f32) -> Model {
        let frequencies = (0..rotary / 2).map(|i| base.powf(-(2.0 * i as f32) / rotary as f32)).collect();
        Model { d, factor, frequencies, mean: rng.vector(d).iter().map(|x| x * size).collect() }
    }

    fn rope(&self) -> Rope {
        Rope::new(self.frequencies.clone(), self.factor).unwrap()
    }

    fn key_mean(&self, high_pairs: usize) -> KeyMean {
        let tables = CorrectionTables::new(&self.rope(), self.d).unwrap();
        KeyMean::new(&tables, &self.mean, high_pairs).unwrap()
    }

    /// A key as it is stored: without its mean, after RoPE.
    fn centred(&self, mean: &KeyMean, k: &[f32], t: usize) -> Vec<f32> {
        let mut k: Vec<f32> = k.iter().zip(mean.subtracted()).map(|(k, mean)| k - mean).collect();
        apply_rope(&mut k, &self.rope().angles(&[t as u32]));
        k
    }

    /// x at position t after RoPE, in f64 from its definition.
    fn rope_of(&self, x: &[f32], t: usize) -> Vec<f64> {
        let n = self.frequencies.len();
        let mut out: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
        for (i, theta) in self.frequencies.iter().enumerate() {
            let (sin, cos) = (f64::from(*theta) * t as f64).sin_cos();
            let (x, y, factor) = (out[i], out[i + n], f64::from(self.factor));
            (out[i], out[i + n]) = (factor * (x * cos - y * sin), factor * (x * sin + y * cos));
        }
        out
    }

    /// The mean of only the elements that are subtracted: low-frequency pairs, the `high` others of largest mean, those
    /// without RoPE.
    fn subtracted(&self, high: usize) -> Vec<f32> {
        let n = self.frequencies.len();
        let size = |i: usize| self.mean[i].hypot(self.mean[i + n]);
        let mut others: Vec<usize> = (0..n).filter(|i| self.frequencies[*i] > LOW_FREQUENCY).collect();
        others.sort_by(|a, b| size(*b).total_cmp(&size(*a)));
        let mut out = self.mean.clone();
        for i in others.into_iter().skip(high) {
            (out[i], out[i + n]) = (0.0, 0.0);
        }
        out
    }
}

fn models(rng: &mut Rng) -> Vec<Model> {
    vec![
        Model::new(rng, 128, 128, 1e6, 1.0, 2.0),
        // YaRN multiplies cosines and sines.
        Model::new(rng, 64, 64, 1e4, 1.3, 1.0),
        Model::new(rng, 64, 16, 1e4, 1.0, 1.0),
        Model::new(rng, 80, 32, 5e5, 1.0, 1.0),
    ]
}

#[test]
fn low_frequency_pairs_and_the_largest_others_are_subtracted() {
    let mut rng = Rng(3);
    for model in models(&mut rng) {
        for high in [0, 3, DEFAULT_HIGH_PAIRS] {
            assert_eq!(model.key_mean(high).subtracted(), model.subtracted(high), "head_dim {}", model.d);
        }
    }
}

/// Without RoPE a mean shifts every logit of a query alike: all of it is subtracted, and attention needs no correction.
#[test]
fn without_rope_the_whole_mean_is_subtracted_and_softmax_hides_it() {
    let mut rng = Rng(7);
    let model = Model { d: 64, factor: 1.0, frequencies: Vec::new(), mean: rng.vector(64) };
    let mean = model.key_mean(DEFAULT_HIGH_PAIRS);
    assert_eq!(mean.subtracted(), model.mean);
    let layout = RecordLayout::new(Format::F32, Format::F32, 64, 32).unwrap();
    let (mut exact, mut centred) = (Cache::new(layout, Isa::Scalar), Cache::new(layout, Isa::Scalar));
    for t in 0..100 {
        let k: Vec<f32> = rng.vector(64).iter().zip(&model.mean).map(|(a, b)| a + b).collect();
        let v = rng.vector(64);
        exact.push(&k, &v);
        centred.push(&model.centred(&mean, &k, t), &v);
    }
    let q = rng.vector(64);
    let want = reference(&exact, &q, f64::from(logit_scale(64)), 0, 100, |_, _| 0.0);
    for isa in Isa::available() {
        let cache = centred.with_isa(isa);
        let got = cache.attend(&query(&cache.kernel, &q, 1, Some(&mean)), 0, 100);
        assert!(relative(&got, &want) < 2e-5, "{isa:?}");
    }
}

/// The identity that centring rests on, in f64: q · R_t mean = sum of A cos(t theta) + B sin(t theta).
#[test]
fn amplitudes_give_the_product() {
    let mut rng = Rng(4);
    for model in models(&mut rng) {
        let (q, n) = (rng.vector(model.d), model.frequencies.len());
        for t in [0, 5, 1000, 100_003] {
            let product: f64 = q.iter().zip(model.rope_of(&model.mean, t)).map(|(q, k)| f64::from(*q) * k).sum();
            let mut sum: f64 = (2 * n..model.d).map(|i| f64::from(q[i]) * f64::from(model.mean[i])).sum();
            for (i, theta) in model.frequencies.iter().enumerate() {
                let [qx, qy, mx, my] = [q[i], q[i + n], model.mean[i], model.mean[i + n]].map(f64::from);
                let (sin, cos) = (f64::from(*theta) * t as f64).sin_cos();
                sum += f64::from(model.factor) * ((qx * mx + qy * my) * cos + (qy * mx - qx * my) * sin);
            }
            assert!((product - sum).abs() < 1e-10, "{product} {sum}");
        }
    }
}

/// Attention over exact centred keys against f64 attention over the keys as they were.
///
/// The logits' error: quadratics are off by up to .03 of the amplitude for a frequency at `LOW_FREQUENCY`, and with the
/// cube of the frequency below it (bounded here pair by pair, all at once); f32 adds 1e-5. An error e of logits changes
/// the output by less than 2 e of the values' size.
#[test]
fn attention_gives_back_what_was_taken_out() {
    let mut rng = Rng(5);
    for model in models(&mut rng) {
        let (d, group, tokens, first) = (model.d, 3, 700, 5 * 512);
        let mean = model.key_mean(DEFAULT_HIGH_PAIRS);
        let layout = RecordLayout::new(Format::F32, Format::F32, d, 32).unwrap();
        let (mut exact, mut centred) = (Cache::new(layout, Isa::Scalar), Cache::new(layout, Isa::Scalar));
        centred.first_position = first;
        let constant: Vec<f32> = model.mean.clone();
        for t in 0..tokens {
            let noise = rng.vector(d);
            let kappa: Vec<f32> = noise.iter().zip(&constant).map(|(a, b)| a + b).collect();
            let k: Vec<f32> = model.rope_of(&kappa, first + t).iter().map(|v| *v as f32).collect();
            let v = rng.vector(d);
            exact.push(&k, &v);
            centred.push(&model.centred(&mean, &kappa, first + t), &v);
        }
        let q = rng.vector(group * d);
        let want = reference(&exact, &q, f64::from(logit_scale(d)), 0, tokens, |_, _| 0.0);
        let n = model.frequencies.len();
        let amplitude = |q: &[f32], i: usize| {
            let size = q[i].hypot(q[i + n]) * model.mean[i].hypot(model.mean[i + n]);
            f64::from(size * model.factor * logit_scale(d))
        };
        let error = |q: &[f32]| -> f64 {
            let slow = model.frequencies.iter().enumerate().filter(|(_, theta)| **theta <= LOW_FREQUENCY);
            slow.map(|(i, theta)| {
                let span = if *theta <= 0.003 { theta / 0.003 } else { theta / LOW_FREQUENCY };
                0.03 * f64::from(span).powi(3) * amplitude(q, i)
            })
            .sum()
        };
        for isa in Isa::available() {
            let cache = centred.with_isa(isa);
            let got = cache.attend(&query(&cache.kernel, &q, group, Some(&mean)), 0, tokens);
            for ((got, want), q) in got.chunks(d).zip(want.chunks(d)).zip(q.chunks(d)) {
                let (off, bound) = (relative(got, want), 2.0 * error(q) + 2e-5);
                assert!(off < bound, "{isa:?} d {d}: {off:.1e}, allowed {bound:.1e}");
            }
            let plain = cache.attend(&query(&cache.kernel, &q, group, None), 0, tokens);
            let lost = relative(&plain, &want);
            // Where no pair turns slowly enough to matter the mean still shows.
            assert!(lost > 0.1, "{isa:?} d {d}: the mean must matter to be tested, {lost:.1e}");
        }
    }
}

/// A planted key bias of Qwen2.5's kind, in a few pairs and far larger than the rest: at 4 bits it ruins the logits,
/// unless it is taken out.
#[test]
fn planted_bias() {
    let mut rng = Rng(6);
    let (d, tokens) = (128, 256);
    let mut model = Model::new(&mut rng, d, d, 1e6, 1.0, 0.0);
    for (pair, size) in [(60, 90.0), (55, 60.0), (40, 40.0), (3, 30.0)] {
        (model.mean[pair], model.mean[pair + d / 2]) = (size, -0.7 * size);
    }
    let layout = RecordLayout::new(Format::Tq4, Format::Tq4, d, 32).unwrap();
    let mean = model.key_mean(DEFAULT_HIGH_PAIRS);
    let (mut plain, mut centred) = (Cache::new(layout, Isa::best()), Cache::new(layout, Isa::best()));
    let mut keys = Vec::new();
    for t in 0..tokens {
        let kappa: Vec<f32> = rng.vector(d).iter().zip(&model.mean).map(|(a, b)| a + b).collect();
        let k: Vec<f32> = model.rope_of(&kappa, t).iter().map(|v| *v as f32).collect();
        plain.push(&k, &k);
        keys.push(k);
        let k = model.centred(&mean, &kappa, t);
        centred.push(&k, &k);
    }
    let q = rng.vector(d);
    let dot = |k: &[f32]| q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / (d as f64).sqrt();
    let rms =
        |error: &dyn Fn(usize) -> f64| ((0..tokens).map(|t| error(t).powi(2)).sum::<f64>() / tokens as f64).sqrt();
    let without = rms(&|t| dot(&plain.row(t, Side::K)) - dot(&keys[t]));
    let with = rms(&|t| {
        let corrected: Vec<f32> = model.rope_of(mean.subtracted(), t).iter().map(|v| *v as f32).collect();
        dot(&centred.row(t, Side::K)) + dot(&corrected) - dot(&keys[t])
    });
    assert!(with < 0.25 && without > 1.0, "logit rms {with:.3} with removal, {without:.3} without");
}

#[test]
fn errors_name_the_value() {
    let rope = |pairs| Rope::new(vec![0.5; pairs], 1.0).unwrap();
    assert!(CorrectionTables::new(&rope(33), 64).unwrap_err().to_string().contains("33"));
    let tables = CorrectionTables::new(&rope(32), 64).unwrap();
    assert!(KeyMean::new(&tables, &[0.0; 63], 8).unwrap_err().to_string().contains("63"));
    let mut mean = vec![0.0; 64];
    mean[9] = f32::NAN;
    assert!(KeyMean::new(&tables, &mean, 8).unwrap_err().to_string().contains("element 9"));
}
