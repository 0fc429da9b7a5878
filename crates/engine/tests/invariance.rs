//! What a request answers depends on the request alone, bit by bit: chunks, company and preemption do not show.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{Driver, Setup, alone};
use testkit::Golden;
use turboquant::{Format, Format::*};

const MODEL: &str = "models/demo";
const OUTPUT: usize = 24;

fn prompts() -> Vec<Vec<u32>> {
    let golden = Golden::read("demo");
    let base: Vec<u32> = golden.prompts.iter().flat_map(|p| p.ids.clone()).collect();
    // Lengths around block and chunk edges.
    [150, 1, 15, 16, 17, 31, 33, 47, 64, 65, 80, 5, 100, 128, 129, 7]
        .iter()
        .map(|n| base.iter().cycle().skip(n % 11).take(*n).copied().collect())
        .collect()
}

fn check(k: Format, v: Format) {
    let setup = || Setup::new(MODEL, k, v);
    let prompts = prompts();
    let want = alone(&setup(), &prompts[0], OUTPUT);
    assert_eq!(want.tokens.len(), OUTPUT);

    let chunks = alone(&Setup { budget: 7, ..setup() }, &prompts[0], OUTPUT);
    assert_eq!(want, chunks, "{k:?}/{v:?} in chunks of 7");

    let mut batch = Driver::new(&Setup { budget: 96, ..setup() });
    for (key, prompt) in prompts.iter().enumerate() {
        batch.add(key as u64, prompt, OUTPUT);
    }
    batch.run();
    assert_eq!(want, batch.trace(0), "{k:?}/{v:?} with 15 others");

    // An older request that grows takes the blocks of the newer one.
    let mut preempted = Driver::new(&Setup { num_blocks: 19, budget: 64, ..setup() });
    preempted.add(0, &prompts[13], OUTPUT * 3);
    preempted.add(1, &prompts[0], OUTPUT);
    preempted.run();
    assert!(preempted.scheduler.num_preemptions() > 0, "the pool was not too small");
    let got = preempted.trace(1);
    assert_eq!(want.tokens, got.tokens, "{k:?}/{v:?} after a preemption");
    // Recomputation keeps the logits of tokens drawn before, and must come to the same ones after.
    assert_eq!(want.logits, got.logits, "{k:?}/{v:?} after a preemption");
}

#[test]
fn with_exact_caches() {
    for format in [F32, F16, Bf16] {
        check(format, format);
    }
}

#[test]
fn with_compressed_caches() {
    for (k, v) in [
        (Tq8, Tq8),
        (Tq5, Tq5),
        (Tq4, Tq4),
        (Tq4, Tq3),
        (Tq3, Tq3),
        (Tq2, Tq2),
        (Tq8, Tq4),
        (Affine8, Lloyd3),
        (Affine5, Lloyd4),
        (Affine4, Int8),
    ] {
        check(k, v);
    }
}
