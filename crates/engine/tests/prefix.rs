//! A prompt that is partly in the cache gives the same bits as one that is computed whole.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{Driver, Setup, alone, tiny_models};
use testkit::Golden;
use turboquant::{Format, Format::*};

const OUTPUT: usize = 20;

fn text(model: &str, skip: usize, len: usize) -> Vec<u32> {
    Golden::read(model).text(skip, len)
}

fn setup(model: &str, k: Format, v: Format) -> Setup {
    Setup::new(&format!("models/{model}"), k, v)
}

fn with_cache(setup: Setup) -> Setup {
    Setup { prefix_cache: Some(12), ..setup }
}

/// A conversation whose second turn holds the first one's answer, then one that leaves it in the middle of a block.
fn check(model: &str, k: Format, v: Format) {
    let plain = || setup(model, k, v);
    let first = text(model, 0, 150);
    let mut driver = Driver::new(&with_cache(plain()));
    assert_eq!(driver.report(0, &first, OUTPUT).reused(), 0);
    let answer = driver.trace(0);
    assert_eq!(answer, alone(&plain(), &first, OUTPUT), "{model} {k:?}/{v:?}: with an empty cache");

    let second = [&first[..], &answer.tokens, &text(model, 3, 40)].concat();
    let report = driver.report(1, &second, OUTPUT);
    // All full blocks of the first prompt and its answer but for its last token, which was never computed.
    assert_eq!(report.reused(), (first.len() + OUTPUT - 1) / 16 * 16, "{model}");
    assert_eq!(driver.trace(1), alone(&plain(), &second, OUTPUT), "{model} {k:?}/{v:?}: a second turn");

    let parted = [&first[..100], &text(model, 5, 60)].concat();
    let reused = driver.report(2, &parted, OUTPUT).reused();
    assert!(reused == 96 || (model.starts_with("tiny-qwen35") && reused > 0), "{model}: {reused}");
    assert_eq!(driver.trace(2), alone(&plain(), &parted, OUTPUT), "{model} {k:?}/{v:?}: a prompt that parts");

    // What is left is computed in chunks that begin elsewhere.
    let again = [&first[..130], &text(model, 7, 61)].concat();
    let mut chunks = Driver::new(&with_cache(Setup { budget: 23, ..plain() }));
    chunks.report(0, &first, 1);
    assert!(chunks.report(1, &again, OUTPUT).reused() > 0);
    assert_eq!(chunks.trace(1), alone(&plain(), &again, OUTPUT), "{model} {k:?}/{v:?}: in chunks of 23");
}

#[test]
fn with_every_format() {
    for (k, v) in
        [(F32, F32), (F16, F16), (Bf16, Bf16), (Tq8, Tq8), (Tc5, Tc5), (Tc4, Tc4), (Tc3, Tc3), (Tc2, Tc2), (Tq8, Tc4)]
    {
        check("demo", k, v);
    }
    check("demo", Affine8, Lloyd3);
    check("demo", Affine5, Lloyd4);
    check("demo", Affine4, Int8);
}

#[test]
fn with_every_family() {
    for model in tiny_models() {
        check(&model, F32, F32);
        check(&model, Tc4, Tc4);
    }
}

/// Twelve requests that share beginnings in a pool that holds a few of them: blocks and snapshots are evicted, and
/// sequences preempted.
#[test]
fn under_preemption_and_eviction() {
    for model in ["demo", "tiny-qwen2", "tiny-qwen35"] {
        let plain = || setup(model, Tc4, Tc4);
        let crowded = Setup { num_blocks: 22, budget: 80, prefix_cache: Some(5), ..plain() };
        let mut driver = Driver::new(&crowded);
        let base = text(model, 0, 120);
        let prompts: Vec<Vec<u32>> =
            (0..12).map(|i| [&base[..20 + (i * 37) % 100], &text(model, 3 + i, 10 + i * 5)].concat()).collect();
        for (key, prompt) in prompts.iter().enumerate() {
            driver.add(key as u64, prompt, OUTPUT * 2);
            // They come while others run.
            (0..key % 3 * 9).for_each(|_| driver.step());
        }
        driver.run();
        assert!(driver.scheduler.num_preemptions() > 0, "{model}: the pool was not too small");
        for (key, prompt) in prompts.iter().enumerate() {
            let want = alone(&plain(), prompt, OUTPUT * 2);
            let got = driver.trace(key as u64);
            assert_eq!(got.tokens, want.tokens, "{model}, request {key}");
            assert_eq!(got.logits, want.logits, "{model}, request {key}");
        }
    }
}

#[test]
fn choices_that_part_from_a_known_prompt() {
    for model in ["demo", "tiny-qwen35"] {
        let plain = setup(model, Tc4, Tc4);
        let prompt = text(model, 0, 90);
        let mut driver = Driver::new(&with_cache(setup(model, Tc4, Tc4)));
        driver.report(0, &prompt, 1);
        driver.add_choices(1, &prompt, OUTPUT, 3);
        driver.run();
        let mut want = Driver::new(&plain);
        want.add_choices(1, &prompt, OUTPUT, 3);
        want.run();
        for choice in 0..3 {
            assert_eq!(driver.choice(1, choice), want.choice(1, choice), "{model}, choice {choice}");
        }
    }
}
