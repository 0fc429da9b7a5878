//! What drafts yield is bit by bit what decoding one token at a time gives: tokens and the logits of every one of them.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{Driver, Setup, alone, tiny_models};
use testkit::Golden;
use turboquant::{Format, Format::*};

const OUTPUT: usize = 40;

/// Answers of so few different tokens repeat themselves, also those of models with random weights.
const DRAWN: usize = 4;

fn setup(model: &str, k: Format, v: Format) -> Setup {
    Setup { drawn_tokens: Some(DRAWN), ..Setup::new(&format!("models/{model}"), k, v) }
}

fn drafting(setup: Setup) -> Setup {
    Setup { max_draft_tokens: 8, ..setup }
}

/// Prompts around the edges of blocks.
fn prompts(model: &str) -> Vec<Vec<u32>> {
    let golden = Golden::read(model);
    [210, 17, 64, 100].iter().map(|n| golden.text(n % 11, *n)).collect()
}

/// Tokens that were drafted in a run, and those that were accepted.
type Drafts = (usize, usize);

/// Every prompt by itself, in an empty cache that is large enough.
fn check_alone(model: &str, k: Format, v: Format) -> Drafts {
    let plain = || setup(model, k, v);
    let mut driver = Driver::new(&drafting(plain()));
    for (key, prompt) in (0..).zip(prompts(model)) {
        driver.add(key, &prompt, OUTPUT);
        driver.run();
        assert_eq!(driver.trace(key), alone(&plain(), &prompt, OUTPUT), "{model} {k:?}/{v:?}, prompt {key}");
    }
    driver.drafts
}

/// In chunks, in company, preempted, with a prefix cache.
fn check_crowded(model: &str, k: Format, v: Format) -> Drafts {
    let plain = || setup(model, k, v);
    let prompts = prompts(model);
    let want: Vec<_> = prompts.iter().map(|prompt| alone(&plain(), prompt, OUTPUT)).collect();
    let mut all = (0, 0);
    let mut check = |setup: Setup, together: bool, case: &str| {
        let mut driver = Driver::new(&setup);
        for (key, prompt) in prompts.iter().enumerate() {
            driver.add(key as u64, prompt, OUTPUT);
            if !together {
                driver.run();
            }
        }
        driver.run();
        for (key, want) in want.iter().enumerate() {
            assert_eq!(driver.trace(key as u64), *want, "{model} {k:?}/{v:?} {case}, prompt {key}");
        }
        all = (all.0 + driver.drafts.0, all.1 + driver.drafts.1);
        driver.scheduler.num_preemptions()
    };
    check(drafting(Setup { budget: 7, ..plain() }), false, "in chunks of 7");
    check(drafting(Setup { budget: 96, ..plain() }), true, "in company");
    let preemptions = check(drafting(Setup { num_blocks: 18, budget: 64, ..plain() }), true, "preempted");
    assert!(preemptions > 0, "the pool was not too small");
    check(drafting(Setup { prefix_cache: Some(8), ..plain() }), true, "with a prefix cache");
    all
}

/// Some drafts must have been right and some wrong, or nothing was shown.
fn assert_both((drafted, accepted): Drafts, what: &str) {
    assert!(accepted > 0 && accepted < drafted, "{what}: {accepted} of {drafted} tokens were accepted");
}

#[test]
fn with_caches_of_every_kind() {
    for (k, v) in [(F32, F32), (Bf16, F16), (Tq8, Tq8), (Tc5, Tc4), (Affine4, Int8)] {
        assert_both(check_alone("demo", k, v), &format!("{k:?}/{v:?}"));
    }
}

#[test]
fn with_every_family() {
    for model in tiny_models() {
        assert_both(check_alone(&model, F32, F32), &model);
    }
}

#[test]
fn in_a_crowd() {
    for model in ["demo", "tiny-qwen35"] {
        assert_both(check_crowded(model, Tc4, Tc4), model);
    }
}

/// The next turn finds the answer's blocks, and in them what was drawn, not what was drafted.
#[test]
fn a_drafted_answer_is_a_prefix_like_any_other() {
    let plain = || setup("demo", Tc4, Tc4);
    let prompt = prompts("demo").remove(0);
    let mut driver = Driver::new(&drafting(Setup { prefix_cache: Some(8), ..plain() }));
    driver.report(0, &prompt, OUTPUT);
    assert_both(driver.drafts, "the first turn");
    let answer = driver.trace(0);
    let next = [&prompt[..], &answer.tokens, &Golden::read("demo").text(3, 21)].concat();
    let report = driver.report(1, &next, OUTPUT);
    assert_eq!(report.reused(), (prompt.len() + OUTPUT - 1) / 16 * 16);
    assert_eq!(driver.trace(1), alone(&plain(), &next, OUTPUT));
}

#[test]
fn choices_that_part_go_on_alike() {
    let prompt = prompts("demo").remove(0);
    let run = |setup: &Setup| {
        let mut driver = Driver::new(setup);
        driver.add_choices(0, &prompt, OUTPUT, 3);
        driver.run();
        ([0, 1, 2].map(|choice| driver.choice(0, choice)), driver.drafts)
    };
    let (want, none) = run(&setup("demo", Tc4, Tc4));
    let (got, drafts) = run(&drafting(setup("demo", Tc4, Tc4)));
    assert_eq!(none, (0, 0));
    assert_both(drafts, "three choices");
    assert_eq!(got, want);
}
