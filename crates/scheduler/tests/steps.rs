//! The scheduler step by step, its whole state as text after each.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{config, finish_step, request, run, sample, scheduler, timed_scheduler};
use scheduler::{Restraint, Scheduler, SchedulerConfig, SeqId, Step};
use std::time::Duration;

#[test]
fn a_prefill_is_cut_into_chunks_between_decodes() {
    let mut s = scheduler(64, 4, 32);
    s.add(request(1, "", 10, 1, 20)).unwrap();
    let mut out = run(&mut s, 1);
    s.add(request(2, "", 70, 1, 2)).unwrap();
    out += &run(&mut s, 3);
    insta::assert_snapshot!(out);
}

#[test]
fn a_short_prompt_does_not_wait_behind_a_long_one() {
    let mut s = scheduler(64, 4, 32);
    s.add(request(1, "", 200, 1, 2)).unwrap();
    let mut out = run(&mut s, 2);
    s.add(request(2, "", 12, 1, 3)).unwrap();
    out += &run(&mut s, 2);
    insta::assert_snapshot!(out);
}

#[test]
fn the_newest_is_preempted_and_comes_back_first() {
    // Five blocks: two prompts of two blocks fit, and the first to need a third block throws the second out.
    let mut s = scheduler(5, 4, 64);
    s.add(request(1, "", 31, 1, 6)).unwrap();
    s.add(request(2, "", 30, 1, 12)).unwrap();
    let mut out = run(&mut s, 2);
    s.add(request(3, "", 20, 1, 2)).unwrap();
    out += &run(&mut s, 5);
    insta::assert_snapshot!(out);
    assert_eq!(s.num_preemptions(), 1);
    assert!(!s.is_idle());
    run(&mut s, 60);
    assert!(s.is_idle());
    assert_eq!(s.pool().num_held(), 0);
}

#[test]
fn choices_share_the_prompt_and_copy_the_block_they_write() {
    let mut s = scheduler(16, 4, 64);
    s.add(request(1, "", 20, 3, 2)).unwrap();
    insta::assert_snapshot!(run(&mut s, 4));
}

#[test]
fn clients_take_turns() {
    let mut s = scheduler(64, 1, 64);
    for key in 1..=3 {
        s.add(request(key, "a", 30, 1, 1)).unwrap();
    }
    s.add(request(4, "b", 30, 1, 1)).unwrap();
    insta::assert_snapshot!(run(&mut s, 5));
}

#[test]
fn abort_frees_at_once_wherever_the_request_stands() {
    let mut s = scheduler(8, 2, 16);
    s.add(request(1, "", 40, 1, 5)).unwrap();
    s.add(request(2, "", 40, 1, 5)).unwrap();
    s.add(request(3, "", 40, 1, 5)).unwrap();
    run(&mut s, 1);
    for key in [1, 3, 2, 9] {
        s.abort(key);
        s.check().unwrap();
    }
    assert!(s.is_idle());
    assert_eq!(s.pool().num_held(), 0);
}

#[test]
fn short_of_memory_the_oldest_runs_alone_and_nothing_new_is_admitted() {
    let mut s = scheduler(64, 4, 64);
    s.add(request(1, "", 20, 1, 4)).unwrap();
    s.add(request(2, "", 20, 2, 4)).unwrap();
    let mut out = run(&mut s, 2);
    s.add(request(3, "", 20, 1, 2)).unwrap();
    s.restrain(Restraint::OneSequence);
    // The first ends, then one choice of the second after the other; the third waits.
    while !s.waits_for_memory() {
        out += &run(&mut s, 1);
    }
    assert_eq!(s.num_preemptions(), 2);
    s.restrain(Restraint::None);
    out += &run(&mut s, 2);
    insta::assert_snapshot!(out);
    assert!(s.is_idle());
}

#[test]
fn limits_are_named() {
    let config = SchedulerConfig {
        block_size: 16,
        num_blocks: 4,
        max_num_seqs: 8,
        max_num_batched_tokens: 4,
        max_step_time: None,
        max_draft_tokens: 0,
        has_states: false,
        num_snapshots: 0,
    };
    let error = Scheduler::new(config.clone()).err().unwrap().to_string();
    assert!(error.contains("--max-num-batched-tokens is 4") && error.contains("8"), "{error}");
    for max_num_seqs in [0, usize::MAX] {
        let config = SchedulerConfig { max_num_seqs, max_num_batched_tokens: usize::MAX, ..config };
        let error = Scheduler::new(config).err().unwrap().to_string();
        assert!(error.contains(&format!("--max-num-seqs is {max_num_seqs}")) && error.contains("65536"), "{error}");
    }
    let mut s = Scheduler::new(SchedulerConfig { max_num_seqs: 2, ..config }).unwrap();
    let error = s.add(request(1, "", 4, 3, 4)).unwrap_err().to_string();
    assert!(error.contains("n is 3") && error.contains("--max-num-seqs"), "{error}");
    let error = s.add(request(1, "", 60, 1, 5)).unwrap_err().to_string();
    assert!(error.contains("65") && error.contains("64"), "{error}");
    assert!(s.is_idle());
}

mod random {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        /// Whatever arrives, leaves or is thrown out: blocks are conserved, the budget holds, a running decode is in
        /// every step or preempted, the oldest gets on, one runs at most while memory is short, and all that is not
        /// aborted ends with its full length. Drafts, some of which are right, change none of that.
        #[test]
        fn everything_ends_and_nothing_is_lost(
            num_blocks in 6usize..24,
            max_num_seqs in 2usize..6,
            budget in 6usize..80,
            max_step_time in prop::option::of((1u64..100).prop_map(Duration::from_millis)),
            max_draft_tokens in 0usize..9,
            period in 1usize..7,
            slowness in 1u32..1000,
            short_of_memory in prop::option::of((0usize..60, 1usize..60)),
            requests in prop::collection::vec(
                (1usize..70, 1usize..20, 1u32..3, 0usize..12, prop::option::of(0usize..40), 0u8..3),
                1..16,
            ),
        ) {
            let config = config(num_blocks, max_num_seqs, budget);
            let mut s = Scheduler::new(SchedulerConfig { max_step_time, max_draft_tokens, ..config.clone() }).unwrap();
            // Answers repeat themselves, but for a token now and then.
            let token = |_: SeqId, at: usize| if at % 13 == 5 { 99 } else { (at % period) as u32 };
            let mut done: BTreeMap<SeqId, usize> = BTreeMap::new();
            let mut live = BTreeMap::new();
            for step_no in 0..3000usize {
                for (key, (prompt, output, choices, arrives, aborts, client)) in requests.iter().enumerate() {
                    let key = key as u64;
                    if *arrives == step_no && prompt + output <= num_blocks * 16 {
                        s.add(request(key, &client.to_string(), *prompt, *choices, *output)).unwrap();
                        live.insert(key, (*choices, prompt + output));
                    }
                    if *aborts == Some(step_no) {
                        s.abort(key);
                        if live.remove(&key).is_some() {
                            done.retain(|id, _| id.request != key);
                        }
                    }
                }
                s.check().unwrap();
                if s.is_idle() && step_no > 40 {
                    break;
                }
                let is_short = short_of_memory.is_some_and(|(from, steps)| (from..from + steps).contains(&step_no));
                s.restrain(if is_short { Restraint::OneSequence } else { Restraint::None });
                let step = s.schedule();
                prop_assert!(step.num_tokens() <= budget);
                let drafted: usize = step.chunks.iter().map(|chunk| chunk.draft.len()).sum();
                prop_assert!(drafted == 0 || s.num_running() + drafted <= s.config().max_sampled_rows());
                prop_assert!(s.is_idle() || s.waits_for_memory() || !step.chunks.is_empty(), "stuck:\n{s}");
                prop_assert!(!is_short || s.num_running() <= 1, "more than one runs:\n{s}");
                let sampled = sample(&step, token);
                s.measured(&step, Duration::from_micros(10) * slowness * step.num_tokens() as u32);
                s.update(&step, &sampled);
                let ids: BTreeSet<SeqId> = sampled.into_iter().map(|(id, _)| id).collect();
                for id in ids {
                    let seq = s.sequence(id).unwrap();
                    let expected = seq.output().iter().zip(seq.prompt().len()..);
                    prop_assert!(expected.clone().all(|(got, at)| *got == token(id, at)), "{:?}", seq.output());
                    if seq.is_full() {
                        done.insert(id, seq.tokens().len());
                        s.finish(id);
                    }
                }
            }
            prop_assert!(s.is_idle(), "not idle:\n{s}");
            prop_assert_eq!(s.pool().num_held(), 0);
            for (key, (choices, len)) in live {
                for choice in 0..choices {
                    prop_assert_eq!(done.get(&SeqId { request: key, choice }), Some(&len));
                }
            }
        }
    }
}

mod step_time {
    use super::*;

    /// A machine whose steps take `fixed` milliseconds, and for each token of a prompt `per_token` more, which double
    /// after 4,096 positions of context.
    #[derive(Clone, Copy)]
    struct Machine {
        fixed: f64,
        per_token: f64,
    }

    impl Machine {
        fn step(self, step: &Step) -> Duration {
            let prompts = step.chunks.iter().filter(|c| c.len > 1);
            let tokens: f64 =
                prompts.map(|c| (c.start..c.start + c.len).map(|at| 1.0 + at as f64 / 4096.0).sum::<f64>()).sum();
            Duration::from_secs_f64((self.fixed + self.per_token * tokens) / 1e3)
        }
    }

    /// A stream runs; a prompt of 7,000 tokens arrives beside it, then one of 300. Returns the longest step from then
    /// on until both have been read, and how long that took in all.
    fn longest_step_beside_a_long_prompt(machine: Machine, max_step_time: Option<Duration>) -> (Duration, Duration) {
        let mut s = timed_scheduler(2048, 8, 512, max_step_time);
        s.add(request(1, "", 40, 1, 5000)).unwrap();
        let next = |s: &mut Scheduler| {
            let step = s.schedule();
            let elapsed = machine.step(&step);
            s.measured(&step, elapsed);
            finish_step(s, &step);
            elapsed
        };
        for _ in 0..4 {
            next(&mut s);
        }
        s.add(request(2, "", 7000, 1, 1)).unwrap();
        let mut steps = vec![next(&mut s), next(&mut s)];
        s.add(request(3, "", 300, 1, 1)).unwrap();
        while s.num_running() > 1 {
            steps.push(next(&mut s));
        }
        (*steps.iter().max().unwrap(), steps.iter().sum())
    }

    const LIMIT: Duration = Duration::from_millis(200);

    #[test]
    fn a_stream_waits_no_longer_than_the_limit_beside_a_long_prompt() {
        for per_token in [0.01, 0.1, 0.5, 1.0, 2.0] {
            let machine = Machine { fixed: 8.0, per_token };
            let (longest, total) = longest_step_beside_a_long_prompt(machine, Some(LIMIT));
            // Times are learnt from steps that ended at an earlier position: within an octave, and so within a step of
            // 512 tokens of the first one, a token's time grows by a fifth at most.
            assert!(longest <= LIMIT * 6 / 5, "{per_token} ms a token: {longest:?}");
            let (unbounded, fastest) = longest_step_beside_a_long_prompt(machine, None);
            assert!(unbounded > LIMIT || per_token < 0.2, "{per_token} ms a token: {unbounded:?}");
            // The time of decodes is paid once more for each further step: 8 ms of 200.
            assert!(
                total.as_secs_f64() <= fastest.as_secs_f64() * 1.1,
                "{per_token} ms a token: {total:?}, {fastest:?}"
            );
        }
    }

    #[test]
    fn a_machine_that_is_too_slow_computes_the_fewest_tokens() {
        let machine = Machine { fixed: 100.0, per_token: 30.0 };
        let (longest, _) = longest_step_beside_a_long_prompt(machine, Some(LIMIT));
        // 32 tokens at the prompt's end, whose context makes each take (1 + 7000 / 4096) x 30 ms.
        assert!(longest <= Duration::from_secs_f64(0.1 + 32.0 * 0.03 * (1.0 + 7000.0 / 4096.0)), "{longest:?}");
    }

    #[test]
    fn without_a_stream_a_step_has_its_whole_budget_of_tokens() {
        let mut s = timed_scheduler(2048, 8, 512, Some(LIMIT));
        s.add(request(1, "", 2000, 1, 1)).unwrap();
        for _ in 0..3 {
            let step = s.schedule();
            assert_eq!(step.num_tokens(), 512);
            s.measured(&step, Duration::from_secs(60));
            finish_step(&mut s, &step);
        }
    }
}
