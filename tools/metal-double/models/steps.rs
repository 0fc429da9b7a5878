//! Whole models, step by step: the tokens are the CPU's, a token waits once, and nothing is left behind.
#[path = "../../../crates/engine/tests/common/mod.rs"]
mod common;

use common::{Driver, Setup};
use engine::DeviceChoice;
use objc2_metal::double;
use std::sync::{Mutex, PoisonError};
use testkit::Golden;
use turboquant::Format;

fn setup(model: &str, device: DeviceChoice) -> Setup {
    Setup { device, ..Setup::new(&format!("models/{model}"), Format::F16, Format::F16) }
}

fn tokens(setup: &Setup, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut driver = Driver::new(setup);
    driver.add(0, prompt, count);
    driver.run();
    driver.trace(0).tokens
}

/// Counts are the process's, so one test runs at a time.
static ONE: Mutex<()> = Mutex::new(());

#[test]
fn a_trained_model_says_what_it_says_on_the_cpu() {
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let prompt = &Golden::read("demo").prompts[0].ids;
    let [cpu, gpu] = [DeviceChoice::Cpu, DeviceChoice::Metal].map(|device| tokens(&setup("demo", device), prompt, 12));
    assert_eq!(gpu, cpu);
}

/// The kernels of Candle that steps launch: none, but for a copy where attention has a gate on its output. A kernel
/// that nothing stands in for would end the thread.
#[test]
fn steps_launch_the_kernels_of_candle_that_are_listed_here() {
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let none: &[&str] = &[];
    for (model, expected) in [
        ("demo", none),
        ("tiny-llama31", none),
        ("tiny-qwen2", none),
        ("tiny-qwen3", none),
        ("tiny-qwen3moe", none),
        ("tiny-qwen35", &["copy_f32_strided"]),
    ] {
        let prompt = &Golden::read(model).prompts[0].ids;
        let mut driver = Driver::new(&setup(model, DeviceChoice::Metal));
        (0..2).for_each(|request| driver.add(request, prompt, 4));
        let before = double::candle_kernels();
        for largest in [false, true] {
            driver.largest = largest;
            driver.step();
            driver.step();
        }
        let after = double::candle_kernels();
        let launched = after.iter().filter(|(name, count)| before.get(*name) != Some(count));
        let launched: Vec<&String> = launched.map(|(name, _)| name).collect();
        assert_eq!(launched, expected, "{model}");
    }
}

#[test]
fn a_token_waits_once_and_leaves_nothing_behind() {
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let unpooled = objc2::double::unpooled();
    let models = ["tiny-qwen3", "tiny-qwen3moe", "tiny-qwen35"];
    for (model, largest) in models.into_iter().flat_map(|model| [(model, false), (model, true)]) {
        let prompt = &Golden::read(model).prompts[0].ids;
        let mut driver = Driver::new(&setup(model, DeviceChoice::Metal));
        driver.largest = largest;
        driver.add(0, prompt, 24);
        let mut seen = Vec::new();
        for token in 0..20 {
            let before = double::counts();
            driver.step();
            let after = double::counts();
            let counts = (after.waits - before.waits, after.empty_commits - before.empty_commits);
            // The first step has the prompt, and growing memory.
            if token > 0 {
                assert_eq!(counts, (1, 0), "{model}, token {token}: waits, command buffers without a command");
            }
            seen.push((objc2::double::live(), double::allocated()));
        }
        assert_eq!(seen[9], seen[19], "{model}: objects and bytes after 10 tokens and after 20");
        driver.run();
    }
    assert_eq!(objc2::double::unpooled(), unpooled, "objects that no pool has");
}
