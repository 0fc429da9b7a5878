//! Keys stored without their mean, and what attention adds for it.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod common;
use common::*;
use turboquant::{DEFAULT_FAST_PAIRS, Format, Isa, KeyCentre, Pairing, RecordLayout, Rope, SLOW_PAIR, Side};

struct Model {
    d: usize,
    pairing: Pairing,
    frequencies: Vec<f32>,
    mean: Vec<f32>,
}

impl Model {
    fn new(rng: &mut Rng, d: usize, rotary: usize, base: f32, pairing: Pairing, size: f32) -> Model {
        let frequencies = (0..rotary / 2).map(|i| base.powf(-(2.0 * i as f32) / rotary as f32)).collect();
        Model { d, pairing, frequencies, mean: rng.vector(d).iter().map(|x| x * size).collect() }
    }

    fn rope(&self) -> Rope {
        Rope::new(self.d, &self.frequencies, self.pairing).unwrap()
    }

    /// R_t x in f64 from its definition.
    fn rotate(&self, x: &[f32], t: usize) -> Vec<f64> {
        let n = self.frequencies.len();
        let mut out: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
        for (i, theta) in self.frequencies.iter().enumerate() {
            let (a, b) = if self.pairing == Pairing::HalfSplit { (i, i + n) } else { (2 * i, 2 * i + 1) };
            let (sin, cos) = (f64::from(*theta) * t as f64).sin_cos();
            let (x, y) = (out[a], out[b]);
            (out[a], out[b]) = (x * cos - y * sin, x * sin + y * cos);
        }
        out
    }

    /// The mean of only the elements that a centre takes out: slow pairs, the `fast` others of largest mean, unrotated ones.
    fn taken(&self, fast: usize) -> Vec<f32> {
        let n = self.frequencies.len();
        let elements = |i: usize| if self.pairing == Pairing::HalfSplit { (i, i + n) } else { (2 * i, 2 * i + 1) };
        let size = |i: usize| self.mean[elements(i).0].hypot(self.mean[elements(i).1]);
        let mut others: Vec<usize> = (0..n).filter(|i| self.frequencies[*i] > SLOW_PAIR).collect();
        others.sort_by(|a, b| size(*b).total_cmp(&size(*a)));
        let mut out = self.mean.clone();
        for i in others.into_iter().skip(fast) {
            (out[elements(i).0], out[elements(i).1]) = (0.0, 0.0);
        }
        out
    }
}

fn models(rng: &mut Rng) -> Vec<Model> {
    vec![
        Model::new(rng, 128, 128, 1e6, Pairing::HalfSplit, 2.0),
        Model::new(rng, 64, 64, 1e4, Pairing::Interleaved, 1.0),
        Model::new(rng, 64, 16, 1e4, Pairing::HalfSplit, 1.0),
        Model::new(rng, 80, 32, 5e5, Pairing::Interleaved, 1.0),
    ]
}

/// k - subtracted = R_t mean over the elements taken out, to the rounding of the f32 result.
#[test]
fn subtract_is_the_rotated_mean() {
    let mut rng = Rng(3);
    for model in models(&mut rng) {
        let centre = KeyCentre::new(&model.rope(), &model.mean, 3).unwrap();
        for t in [0, 1, 77, 4096, 131_071, 300_000] {
            let mut k = vec![0f32; model.d];
            centre.subtract(&mut k, t);
            for (k, want) in k.iter().zip(model.rotate(&model.taken(3), t)) {
                let (got, bound) = (-f64::from(*k), f64::from(f32::EPSILON) * want.abs() + 1e-9);
                assert!((got - want).abs() <= bound, "position {t}: {got} {want}");
            }
        }
    }
}

/// The identity that centring rests on, in f64: q · R_t mean = sum of A cos(t theta) + B sin(t theta).
#[test]
fn amplitudes_give_the_product() {
    let mut rng = Rng(4);
    for model in models(&mut rng) {
        let (q, n) = (rng.vector(model.d), model.frequencies.len());
        for t in [0, 5, 1000, 100_003] {
            let product: f64 = q.iter().zip(model.rotate(&model.mean, t)).map(|(q, k)| f64::from(*q) * k).sum();
            let mut sum: f64 = (2 * n..model.d).map(|i| f64::from(q[i]) * f64::from(model.mean[i])).sum();
            for (i, theta) in model.frequencies.iter().enumerate() {
                let (x, y) = if model.pairing == Pairing::HalfSplit { (i, i + n) } else { (2 * i, 2 * i + 1) };
                let [qx, qy, mx, my] = [q[x], q[y], model.mean[x], model.mean[y]].map(f64::from);
                let (sin, cos) = (f64::from(*theta) * t as f64).sin_cos();
                sum += (qx * mx + qy * my) * cos + (qy * mx - qx * my) * sin;
            }
            assert!((product - sum).abs() < 1e-10, "{product} {sum}");
        }
    }
}

/// Attention over exact centred keys against f64 attention over the keys as they were.
///
/// The logits' error: slow pairs' parabolas are off by up to .03 of the amplitude for theta at `SLOW_PAIR`, and with the cube of
/// theta below it (bounded here pair by pair, all at once); f32 adds 1e-5. An error e of logits changes the output by less
/// than 2 e of the values' size.
#[test]
fn attention_gives_back_what_was_taken_out() {
    let mut rng = Rng(5);
    for model in models(&mut rng) {
        let (d, group, tokens, first) = (model.d, 3, 700, 5 * 512);
        let centre = KeyCentre::new(&model.rope(), &model.mean, DEFAULT_FAST_PAIRS).unwrap();
        let layout = RecordLayout::new(Format::F32, Format::F32, d, 32).unwrap();
        let (mut exact, mut centred) = (Cache::new(layout, Isa::Scalar), Cache::new(layout, Isa::Scalar));
        centred.first_position = first;
        let constant: Vec<f32> = model.mean.clone();
        for t in 0..tokens {
            let noise = rng.vector(d);
            let kappa: Vec<f32> = noise.iter().zip(&constant).map(|(a, b)| a + b).collect();
            let mut k: Vec<f32> = model.rotate(&kappa, first + t).iter().map(|v| *v as f32).collect();
            let v = rng.vector(d);
            exact.push(&k, &v);
            centre.subtract(&mut k, first + t);
            centred.push(&k, &v);
        }
        let q = rng.vector(group * d);
        let want = reference(&exact, &q, f64::from(logit_scale(d)), 0, tokens, |_, _| 0.0);
        let n = model.frequencies.len();
        let amplitude = |q: &[f32], i: usize| {
            let (x, y) = if model.pairing == Pairing::HalfSplit { (i, i + n) } else { (2 * i, 2 * i + 1) };
            f64::from(q[x].hypot(q[y]) * model.mean[x].hypot(model.mean[y]) * logit_scale(d))
        };
        let error = |q: &[f32]| -> f64 {
            let slow = model.frequencies.iter().enumerate().filter(|(_, theta)| **theta <= SLOW_PAIR);
            slow.map(|(i, theta)| {
                let span = if *theta <= 0.003 { theta / 0.003 } else { theta / SLOW_PAIR };
                0.03 * f64::from(span).powi(3) * amplitude(q, i)
            })
            .sum()
        };
        for isa in Isa::available() {
            let cache = centred.with_isa(isa);
            let got = cache.attend(&query(&cache.kernel, &q, group, Some(&centre)), 0, tokens);
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

/// A planted key bias of Qwen2.5's kind, in a few pairs and far larger than the rest: at 4 bits it ruins the logits, unless it
/// is taken out.
#[test]
fn planted_bias() {
    let mut rng = Rng(6);
    let (d, tokens) = (128, 256);
    let mut model = Model::new(&mut rng, d, d, 1e6, Pairing::HalfSplit, 0.0);
    for (pair, size) in [(60, 90.0), (55, 60.0), (40, 40.0), (3, 30.0)] {
        (model.mean[pair], model.mean[pair + d / 2]) = (size, -0.7 * size);
    }
    let layout = RecordLayout::new(Format::Tq4, Format::Tq4, d, 32).unwrap();
    let centre = KeyCentre::new(&model.rope(), &model.mean, DEFAULT_FAST_PAIRS).unwrap();
    let (mut plain, mut centred) = (Cache::new(layout, Isa::best()), Cache::new(layout, Isa::best()));
    let mut keys = Vec::new();
    for t in 0..tokens {
        let kappa: Vec<f32> = rng.vector(d).iter().zip(&model.mean).map(|(a, b)| a + b).collect();
        let mut k: Vec<f32> = model.rotate(&kappa, t).iter().map(|v| *v as f32).collect();
        keys.push(k.clone());
        plain.push(&k, &k);
        centre.subtract(&mut k, t);
        centred.push(&k, &k);
    }
    let q = rng.vector(d);
    let dot = |k: &[f32]| q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / (d as f64).sqrt();
    let rms =
        |error: &dyn Fn(usize) -> f64| ((0..tokens).map(|t| error(t).powi(2)).sum::<f64>() / tokens as f64).sqrt();
    let without = rms(&|t| dot(&plain.row(t, Side::K)) - dot(&keys[t]));
    let with = rms(&|t| {
        let mut taken = vec![0f32; d];
        centre.subtract(&mut taken, t);
        dot(&centred.row(t, Side::K)) - dot(&taken) - dot(&keys[t])
    });
    assert!(with < 0.25 && without > 1.0, "logit rms {with:.3} with removal, {without:.3} without");
}

#[test]
fn errors_name_the_value() {
    let message = Rope::new(64, &[0.5, -1.0], Pairing::HalfSplit).unwrap_err().to_string();
    assert!(message.contains("frequency 1") && message.contains("-1"), "{message}");
    assert!(Rope::new(64, &[0.1; 33], Pairing::HalfSplit).unwrap_err().to_string().contains("33"));
    let rope = Rope::new(64, &[0.5; 32], Pairing::HalfSplit).unwrap();
    assert!(KeyCentre::new(&rope, &[0.0; 63], 8).unwrap_err().to_string().contains("63"));
    let mut mean = vec![0.0; 64];
    mean[9] = f32::NAN;
    assert!(KeyCentre::new(&rope, &mean, 8).unwrap_err().to_string().contains("element 9"));
}
