//! Whole models on a Mac's GPU, every family: logits beside the CPU's.
#![cfg(all(any(target_os = "macos", metal_double), feature = "metal"))]
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use attention::{AttentionPlan, BackendHook, HookedBackend, LayerId};
use candle_core::{Device, Result, Tensor};
use common::{Driver, Setup, Trace};
use engine::{DecodeKernel, DeviceChoice, WeightQuant, select};
use std::collections::BTreeMap;
use testkit::Golden;
use turboquant::Format::{self, *};

/// Logits of all tokens of a prompt.
fn logits(setup: &Setup, prompt: &[u32]) -> BTreeMap<usize, Vec<f32>> {
    let mut driver = Driver::new(setup);
    driver.whole = true;
    driver.add(0, prompt, 1);
    driver.run();
    let trace = driver.trace(0);
    trace.logits.keys().map(|position| (*position, trace.logits_at(*position))).collect()
}

/// The distance relative to the CPU's. A GPU rounds activations to 16 bits before each product, 2^-9 in bf16: 5
/// roundings a layer that add up as a random walk are 1.2 % in 8 layers, and a layer may pass on more than it gets.
fn check(model: &str, k: Format, v: Format) {
    let prompt = &Golden::read(model).prompts[0].ids;
    let setup = Setup::new(&format!("models/{model}"), k, v);
    let want = logits(&setup, prompt);
    let got = logits(&Setup { device: DeviceChoice::Metal, ..setup }, prompt);
    let (mut off, mut all) = (0.0, 0.0);
    for (position, want) in &want {
        for (got, want) in got[position].iter().zip(want) {
            off += f64::from(got - want).powi(2);
            all += f64::from(*want).powi(2);
        }
    }
    let relative = (off / all).sqrt();
    println!("{model} {k:?}/{v:?}: {relative:.1e}");
    assert!(relative < 0.05, "{model} {k:?}/{v:?}: logits differ by {relative:.1e}");
}

#[test]
fn every_family_answers_as_on_the_cpu() {
    for model in ["demo", "eval", "tiny-llama31", "tiny-qwen2", "tiny-qwen3", "tiny-qwen3moe", "tiny-qwen35"] {
        check(model, F16, F16);
    }
    for model in ["demo", "eval", "tiny-qwen3moe"] {
        check(model, Tq8, Tq8);
    }
}

/// Waits for the GPU before each layer stores.
struct Waits(Device);

impl BackendHook for Waits {
    fn store(&self, _: LayerId, k: &Tensor, v: &Tensor, _: &AttentionPlan) -> Result<(Tensor, Tensor)> {
        self.0.synchronize()?;
        Ok((k.clone(), v.clone()))
    }
}

/// Quantised weights and a context beyond 8,192 tokens: others have seen Candle miss a dependency there, which a wait
/// cures (candle #3705).
#[test]
fn a_wait_a_layer_changes_no_bit_of_a_long_context() {
    let prompt: Vec<u32> = (0..8400).map(|i| 300 + i * 31 % 4000).collect();
    for weight_quant in [None, Some(WeightQuant::Q8_0)] {
        let setup =
            Setup { device: DeviceChoice::Metal, num_blocks: 540, weight_quant, ..Setup::new("models/demo", Tq8, Tc4) };
        let answer = |waits: bool| -> Trace {
            let mut driver = Driver::with_backend(&setup, |layout, geometry, centring, device| {
                let backend = select(layout, geometry, centring, device, DecodeKernel::Mma).unwrap();
                if waits { Box::new(HookedBackend::new(backend, Waits(device.clone()))) } else { backend }
            });
            driver.add(0, &prompt, 16);
            driver.run();
            driver.trace(0)
        };
        assert!(answer(false) == answer(true), "weights in {weight_quant:?}");
    }
}
