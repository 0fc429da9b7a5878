//! Logits and greedy tokens against `transformers` in fp32.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{Driver, Setup, emulated};
use msl_emu::{Emulator, EmulatorExecutor};
use testkit::{Golden, golden_logits};
use turboquant::Format;

/// Largest absolute difference over all given logits of all prompts.
fn distance(model: &str, name: &str, format: Format, tokens_too: bool) -> f32 {
    distance_of(&Setup::new(model, format, format), name, tokens_too)
}

fn distance_of(setup: &Setup, name: &str, tokens_too: bool) -> f32 {
    let golden = Golden::read(name);
    let mut worst = 0f32;
    for (i, prompt) in golden.prompts.iter().enumerate() {
        let mut driver = Driver::new(setup);
        driver.whole = true;
        driver.add(0, &prompt.ids, prompt.greedy_32_ignore_eos.len());
        driver.run();
        let trace = driver.trace(0);
        let mut compare = |got: f32, want: f32| worst = worst.max((got - want).abs());
        for top in &prompt.top20 {
            let got = trace.logits_at(top.position);
            top.ids.iter().zip(&top.logits).for_each(|(id, want)| compare(got[*id as usize], *want));
        }
        if i == 0 {
            for (position, want) in golden_logits(name).iter().enumerate() {
                trace.logits_at(position).iter().zip(want).for_each(|(got, want)| compare(*got, *want));
            }
        }
        if tokens_too {
            assert_eq!(trace.tokens, prompt.greedy_32_ignore_eos, "prompt {i}, {}", golden.by);
        }
    }
    worst
}

/// f32 differs by the order of sums alone. Storing K and V in 16 bits costs .008 (f16) and .081 (bf16) by rounding,
/// measured with `transformers` and a rounded cache; the bounds leave twice that.
#[test]
fn demo_logits_are_those_of_the_reference() {
    for (format, bound, tokens) in [(Format::F32, 2e-3, true), (Format::F16, 0.02, false), (Format::Bf16, 0.15, false)]
    {
        let worst = distance("models/demo", "demo", format, tokens);
        println!("{format:?}: {worst}");
        assert!(worst <= bound, "{format:?}: logits differ by {worst}, at most {bound} is allowed");
    }
}

/// Every family, and what each of its configurations can switch.
const MODELS: [&str; 10] = [
    "eval",            // Qwen3, trained
    "tiny-llama31",    // llama3 scaling, a head of its own
    "tiny-llama-yarn", // yarn, biases everywhere, tied head
    "tiny-mistral",    // linear scaling, sliding window
    "tiny-qwen2",
    "tiny-qwen3",
    "tiny-qwen3moe",
    "tiny-qwen35",    // gated delta net, partial RoPE, output gate
    "tiny-qwen35moe", // that, and a mixture with an expert that all tokens share
    "tiny-smollm3",   // a layer without RoPE
];

#[test]
fn logits_of_every_family_are_those_of_the_reference() {
    for name in MODELS {
        let worst = distance(&format!("models/{name}"), name, Format::F32, true);
        println!("{name}: {worst}");
        assert!(worst <= 2e-3, "{name}: logits differ by {worst}");
    }
}

/// Everything beside attention as a GPU computes it: products, operations on rows, delta nets and mixtures by the
/// kernels. The emulator and Candle's CPU device stand in for the GPU. Its products round rows to halves, by up to
/// 2^-11 of an element, so logits are held to 2e-3 of the largest of them; those of tiny-qwen35, which differ by
/// 9.5e-3, and of tiny-qwen35moe to 1.2e-2. That is the model's doing, whose weights are random: on the CPU, in f32,
/// they differ by 9.3e-3 once the rows that its delta nets project are rounded to halves, and nothing else.
#[test]
fn logits_of_gpu_forms_are_those_of_the_reference() {
    let Some(emulator) = Emulator::fast() else { return };
    for name in MODELS.into_iter().filter(|name| *name != "eval") {
        let executor = EmulatorExecutor { emulator, order: 0 };
        let compute = Some(emulated(executor));
        let setup = Setup { compute, ..Setup::new(&format!("models/{name}"), Format::F32, Format::F32) };
        let worst = distance_of(&setup, name, true);
        let largest = golden_logits(name).iter().flatten().fold(0f32, |largest, x| largest.max(x.abs()));
        println!("{name}: {worst}, the largest logit {largest}");
        let bound = if name.starts_with("tiny-qwen35") { 1.2e-2 } else { 2e-3 };
        assert!(worst <= bound * largest, "{name}: logits of up to {largest} differ by {worst}");
    }
}
