//! What a request answers depends on the request alone, bit by bit: chunks, company and preemption do not show.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{Driver, Setup, alone, tiny_models};
use testkit::Golden;
use turboquant::{Format, Format::*};

const OUTPUT: usize = 24;

fn prompts(model: &str) -> Vec<Vec<u32>> {
    let golden = Golden::read(model);
    // Lengths around block and chunk edges.
    [150, 1, 15, 16, 17, 31, 33, 47, 64, 65, 80, 5, 100, 128, 129, 7].iter().map(|n| golden.text(n % 11, *n)).collect()
}

fn check(model: &str, k: Format, v: Format) {
    let setup = || Setup::new(&format!("models/{model}"), k, v);
    let prompts = prompts(model);
    let want = alone(&setup(), &prompts[0], OUTPUT);
    assert_eq!(want.tokens.len(), OUTPUT);

    let chunks = alone(&Setup { budget: 7, ..setup() }, &prompts[0], OUTPUT);
    assert_eq!(want, chunks, "{model} {k:?}/{v:?} in chunks of 7");

    let mut batch = Driver::new(&Setup { budget: 96, ..setup() });
    for (key, prompt) in prompts.iter().enumerate() {
        batch.add(key as u64, prompt, OUTPUT);
    }
    batch.run();
    assert_eq!(want, batch.trace(0), "{model} {k:?}/{v:?} with 15 others");

    // An older request that grows takes the blocks of the newer one.
    let mut preempted = Driver::new(&Setup { num_blocks: 19, budget: 64, ..setup() });
    preempted.add(0, &prompts[13], OUTPUT * 3);
    preempted.add(1, &prompts[0], OUTPUT);
    preempted.run();
    assert!(preempted.scheduler.num_preemptions() > 0, "the pool was not too small");
    let got = preempted.trace(1);
    assert_eq!(want.tokens, got.tokens, "{model} {k:?}/{v:?} after a preemption");
    // Recomputation keeps the logits of tokens drawn before, and must come to the same ones after.
    assert_eq!(want.logits, got.logits, "{model} {k:?}/{v:?} after a preemption");
}

#[test]
fn with_exact_caches() {
    for format in [F32, F16, Bf16] {
        check("demo", format, format);
    }
}

#[test]
fn with_compressed_caches() {
    for (k, v) in [
        (Tq8, Tq8),
        (Tc5, Tc5),
        (Tc4, Tc4),
        (Tc4, Tc3),
        (Tc3, Tc3),
        (Tc2, Tc2),
        (Tq8, Tc4),
        (Affine8, Lloyd3),
        (Affine5, Lloyd4),
        (Affine4, Int8),
    ] {
        check("demo", k, v);
    }
}

#[test]
fn with_every_family() {
    for model in tiny_models() {
        check(&model, F32, F32);
        check(&model, Tc4, Tc4);
    }
}

#[test]
fn with_folders_of_mlx() {
    for model in ["mlx-qwen3", "mlx-qwen35moe"] {
        check(model, F32, F32);
        check(model, Tc4, Tc4);
    }
}

/// Choices that have parted go on as the prompt and their own first token would alone: blocks and recurrent states are
/// theirs.
#[test]
fn with_choices_of_one_prompt() {
    for model in ["demo", "tiny-qwen35"] {
        let setup = Setup::new(&format!("models/{model}"), F32, F32);
        let prompt = prompts(model).remove(5);
        let mut driver = Driver::new(&setup);
        driver.add_choices(0, &prompt, OUTPUT, 3);
        driver.run();
        for choice in 0..3 {
            let got = driver.choice(0, choice);
            let longer = [&prompt[..], &got.tokens[..1]].concat();
            let want = alone(&setup, &longer, OUTPUT - 1);
            assert_eq!(got.tokens[1..], want.tokens, "{model}, choice {choice}");
            assert_eq!(got.logits.range(prompt.len()..).collect::<Vec<_>>(), want.logits.iter().collect::<Vec<_>>());
        }
    }
}
