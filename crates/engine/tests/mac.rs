//! Whole models on a Mac's GPU, every family: logits beside the CPU's.
#![cfg(all(target_os = "macos", feature = "metal"))]
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{Driver, Setup};
use engine::DeviceChoice;
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
