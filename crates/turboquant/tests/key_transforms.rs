//! Keys stored without their mean and scaled by pair, and how attention undoes both.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod common;
use common::*;
use turboquant::{
    CorrectionTables, DEFAULT_HIGH_PAIRS, Format, HeadConstants, Isa, KeyTransform, LOW_FREQUENCY, RecordLayout, Rope,
    Side,
};

struct Model {
    d: usize,
    /// RoPE's factor of cosines and sines.
    factor: f32,
    frequencies: Vec<f32>,
    mean: Vec<f32>,
    first_mean: Vec<f32>,
    scale: Vec<f32>,
}

impl Model {
    fn new(rng: &mut Rng, d: usize, rotary: usize, base: f32, factor: f32, size: f32) -> Model {
        let frequencies = (0..rotary / 2).map(|i| base.powf(-(2.0 * i as f32) / rotary as f32)).collect();
        let mean = rng.vector(d).iter().map(|x| x * size).collect();
        let first_mean = rng.vector(d).iter().map(|x| 2.0 * x * size).collect();
        Model { d, factor, frequencies, mean, first_mean, scale: pair_scale(rng, rotary / 2, d) }
    }

    fn rope(&self) -> Rope {
        Rope::new(self.frequencies.clone(), self.factor).unwrap()
    }

    fn transform(&self, high_pairs: usize) -> KeyTransform {
        let tables = CorrectionTables::new(&self.rope(), self.d).unwrap();
        let (mean, first_mean, scale) = (&self.mean[..], &self.first_mean[..], &self.scale[..]);
        KeyTransform::new(&tables, HeadConstants { mean, first_mean, scale }, high_pairs).unwrap()
    }

    /// A key as it is stored.
    fn stored(&self, transform: &KeyTransform, k: &[f32], t: usize) -> Vec<f32> {
        let mut k = k.to_vec();
        transform.apply(&mut k, t, &self.rope().angles(&[t as u32]));
        k
    }

    /// A key before RoPE: noise beside the mean of its position.
    fn key(&self, rng: &mut Rng, t: usize) -> Vec<f32> {
        let mean = if t == 0 { &self.first_mean } else { &self.mean };
        rng.vector(self.d).iter().zip(mean).map(|(a, b)| a + b).collect()
    }

    /// x at position t after RoPE, in f64 from its definition.
    fn rope_of(&self, x: &[f64], t: usize) -> Vec<f64> {
        let n = self.frequencies.len();
        let mut out = x.to_vec();
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
            let transform = model.transform(high);
            assert_eq!(transform.subtracted(), model.subtracted(high), "head_dim {}", model.d);
            assert_eq!(transform.subtracted_at(1), transform.subtracted());
            assert_eq!(transform.subtracted_at(0), model.first_mean);
        }
    }
}

/// Without RoPE a mean shifts every logit of a query alike: all of it is subtracted, and attention needs no correction
/// but at position 0, which has another mean.
#[test]
fn without_rope_the_whole_mean_is_subtracted() {
    let mut rng = Rng(7);
    let model = Model::new(&mut rng, 64, 0, 1.0, 1.0, 1.0);
    let transform = model.transform(DEFAULT_HIGH_PAIRS);
    assert_eq!(transform.subtracted(), model.mean);
    for first in [0, 512] {
        let error = attention_error(&mut rng, &model, 1, 100, first, |_| 0.0);
        assert!(error <= 0.0, "from {first}: {error:.1e} more than f32's rounding");
    }
}

/// The identity that all of it rests on, in f64, with codes that lose nothing: the product of what is stored with the
/// query over the scale, and what is added to it, is the product of the key as it was. Beyond that all keys of a query
/// lack the same, over elements without RoPE.
#[test]
fn what_is_added_makes_up_for_what_was_taken_out() {
    let mut rng = Rng(4);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for model in models(&mut rng) {
        let (transform, n, d) = (model.transform(3), model.frequencies.len(), model.d);
        let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let (q, mean, scale) = (wide(&rng.vector(d)), wide(transform.subtracted()), wide(&model.scale));
        let scaled: Vec<f64> = q.iter().zip(&scale).map(|(q, s)| q / s).collect();
        let shift = dot(&q[2 * n..], &mean[2 * n..]);
        for t in [0, 1, 5, 1000, 100_003] {
            let key = model.key(&mut rng, t);
            let less: Vec<f64> =
                key.iter().zip(transform.subtracted_at(t)).map(|(k, mean)| f64::from(*k) - f64::from(*mean)).collect();
            let stored: Vec<f64> = model.rope_of(&less, t).iter().zip(&scale).map(|(k, s)| k * s).collect();
            let mut added = 0.0;
            for (i, theta) in model.frequencies.iter().enumerate() {
                let [qx, qy, mx, my] = [q[i], q[i + n], mean[i], mean[i + n]];
                let (sin, cos) = (f64::from(*theta) * t as f64).sin_cos();
                added += f64::from(model.factor) * ((qx * mx + qy * my) * cos + (qy * mx - qx * my) * sin);
            }
            if t == 0 {
                let first = wide(transform.first_mean());
                let difference: Vec<f64> = first.iter().zip(&mean).map(|(first, mean)| first - mean).collect();
                let difference = model.rope_of(&difference, 0);
                let rounded = wide(transform.first_difference());
                let error = rounded.iter().zip(&difference).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                // Two roundings of f32, of elements up to 20.
                assert!(error < 3e-6, "{error:.1e}");
                added += dot(&q, &difference);
            }
            let (product, want) = (dot(&scaled, &stored) + added + shift, dot(&q, &model.rope_of(&wide(&key), t)));
            assert!((product - want).abs() < 1e-10, "d {d}, position {t}: {product} for {want}");
        }
    }
}

/// How much more than f32's rounding attention over stored keys, from position `first` on, is off from f64 attention
/// over the keys as they were; `error` bounds the error of a query head's logits.
fn attention_error(
    rng: &mut Rng,
    model: &Model,
    group: usize,
    tokens: usize,
    first: usize,
    error: impl Fn(&[f32]) -> f64,
) -> f64 {
    let (d, transform) = (model.d, model.transform(DEFAULT_HIGH_PAIRS));
    let layout = RecordLayout::new(Format::F32, Format::F32, d, 32).unwrap();
    let (mut exact, mut stored) = (Cache::new(layout, Isa::Scalar), Cache::new(layout, Isa::Scalar));
    stored.first_position = first;
    for t in 0..tokens {
        let (kappa, v) = (model.key(rng, first + t), rng.vector(d));
        let wide: Vec<f64> = kappa.iter().map(|x| f64::from(*x)).collect();
        let k: Vec<f32> = model.rope_of(&wide, first + t).iter().map(|v| *v as f32).collect();
        exact.push(&k, &v);
        stored.push(&model.stored(&transform, &kappa, first + t), &v);
    }
    let q = rng.vector(group * d);
    let want = reference(&exact, &q, f64::from(logit_scale(d)), 0, tokens, |_, _| 0.0);
    let mut worst = f64::MIN;
    for isa in Isa::available() {
        let cache = stored.with_isa(isa);
        let got = cache.attend(&query(&cache.kernel, &q, group, Some(&transform)), 0, tokens);
        for ((got, want), q) in got.chunks(d).zip(want.chunks(d)).zip(q.chunks(d)) {
            worst = worst.max(relative(got, want) - 2.0 * error(q) - 2e-5);
        }
        let plain = cache.attend(&query(&cache.kernel, &q, group, None), 0, tokens);
        let lost = relative(&plain, &want);
        assert!(lost > 0.1, "{isa:?} d {d}: what was taken out must matter to be tested, {lost:.1e}");
    }
    worst
}

/// Attention over exact stored keys against f64 attention over the keys as they were.
///
/// The logits' error: quadratics are off by up to .03 of the amplitude for a frequency at `LOW_FREQUENCY`, and with the
/// cube of the frequency below it (bounded here pair by pair, all at once); f32 adds 1e-5. An error e of logits changes
/// the output by less than 2 e of the values' size.
#[test]
fn attention_gives_back_what_was_taken_out() {
    let mut rng = Rng(5);
    for model in models(&mut rng) {
        let (d, n) = (model.d, model.frequencies.len());
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
        // At a sequence's start, where the first key is unlike the others and weighs much among few, and later.
        for (tokens, first) in [(3, 0), (17, 0), (700, 0), (700, 5 * 512)] {
            let error = attention_error(&mut rng, &model, 3, tokens, first, error);
            assert!(error < 0.0, "d {d}, {tokens} tokens from {first}: {error:.1e} more than is allowed");
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
    // A bias is in the first key too, and nothing is known beside it.
    (model.first_mean, model.scale) = (model.mean.clone(), vec![1.0; d]);
    let layout = RecordLayout::new(Format::Tc4, Format::Tc4, d, 32).unwrap();
    let transform = model.transform(DEFAULT_HIGH_PAIRS);
    let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let (mut plain, mut centred) = (Cache::new(layout, Isa::best()), Cache::new(layout, Isa::best()));
    let mut keys = Vec::new();
    for t in 0..tokens {
        let kappa = model.key(&mut rng, t);
        let k: Vec<f32> = model.rope_of(&wide(&kappa), t).iter().map(|v| *v as f32).collect();
        plain.push(&k, &k);
        keys.push(k);
        let k = model.stored(&transform, &kappa, t);
        centred.push(&k, &k);
    }
    let q = rng.vector(d);
    let dot = |k: &[f32]| q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / (d as f64).sqrt();
    let rms =
        |error: &dyn Fn(usize) -> f64| ((0..tokens).map(|t| error(t).powi(2)).sum::<f64>() / tokens as f64).sqrt();
    let without = rms(&|t| dot(&plain.row(t, Side::K)) - dot(&keys[t]));
    let with = rms(&|t| {
        let corrected: Vec<f32> =
            model.rope_of(&wide(transform.subtracted_at(t)), t).iter().map(|v| *v as f32).collect();
        dot(&centred.row(t, Side::K)) + dot(&corrected) - dot(&keys[t])
    });
    assert!(with < 0.25 && without > 1.0, "logit rms {with:.3} with removal, {without:.3} without");
}

#[test]
fn errors_name_the_value() {
    let rope = |pairs| Rope::new(vec![0.5; pairs], 1.0).unwrap();
    assert!(CorrectionTables::new(&rope(33), 64).unwrap_err().to_string().contains("33"));
    let tables = CorrectionTables::new(&rope(16), 64).unwrap();
    let error = |mean: &[f32], first_mean: &[f32], scale: &[f32]| {
        KeyTransform::new(&tables, HeadConstants { mean, first_mean, scale }, 8).unwrap_err().to_string()
    };
    let (zeros, ones) = ([0.0; 64], [1.0; 64]);
    let with = |index: usize, value: f32| {
        let mut x = ones;
        x[index] = value;
        x
    };
    for (message, parts) in [
        (error(&zeros[..63], &zeros, &ones), ["mean", "63"]),
        (error(&zeros, &with(9, f32::NAN), &ones), ["first mean", "element 9"]),
        (error(&zeros, &zeros, &with(40, 0.0)), ["scale", "element 40"]),
        (error(&zeros, &zeros, &with(17, 2.0)), ["pair 1 ", "[1.0, 2.0]"]),
    ] {
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}
