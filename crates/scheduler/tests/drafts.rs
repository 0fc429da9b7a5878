//! Drafts step by step: how far they are taken, and what they may take of blocks, tokens and time.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{config, finish_with, request, run};
use kv::{BlockKey, CacheIdentity};
use scheduler::{NewRequest, PrefixUse, Scheduler, SchedulerConfig, SeqId, Step};
use std::time::Duration;

const ID: SeqId = SeqId { request: 1, choice: 0 };

fn drafting(num_blocks: usize, max_num_seqs: usize, budget: usize) -> Scheduler {
    Scheduler::new(SchedulerConfig { max_draft_tokens: 8, ..config(num_blocks, max_num_seqs, budget) }).unwrap()
}

/// A request whose prompt is the numbers from 0 on.
fn counting(key: u64, prompt: u32, output: usize) -> NewRequest {
    let prompt: Vec<u32> = (0..prompt).collect();
    NewRequest { max_len: prompt.len() + output, prompt, ..request(key, "", 0, 1, 0) }
}

/// An answer that repeats the numbers of a prompt of 40, but for every tenth.
fn repeat(_: SeqId, at: usize) -> u32 {
    if at % 10 == 9 { 1000 + at as u32 } else { (at % 40) as u32 }
}

fn drafted(step: &Step, id: SeqId) -> usize {
    step.chunks.iter().filter(|chunk| chunk.seq == id).map(|chunk| chunk.draft.len()).sum()
}

#[test]
fn a_draft_is_taken_as_far_as_it_is_right() {
    let mut s = drafting(16, 4, 64);
    s.add(counting(1, 40, 40)).unwrap();
    let mut out = String::new();
    while !s.is_idle() {
        let step = s.schedule();
        finish_with(&mut s, &step, repeat);
        out += &format!("-- step\n{step}-- state\n{s}");
    }
    insta::assert_snapshot!(out);
}

#[test]
fn drafts_make_no_answer_longer_than_it_may_be() {
    for output in 1..30 {
        let mut s = drafting(16, 4, 64);
        s.add(request(1, "", 20, 1, output)).unwrap();
        let mut tokens = 0;
        while !s.is_idle() {
            let step = s.schedule();
            // What is computed and sampled in a step must have its place.
            assert!(step.chunks.iter().all(|chunk| chunk.start + chunk.len < 20 + output));
            let sampled = common::sample(&step, |_, _| 7);
            tokens += sampled.len();
            finish_with(&mut s, &step, |_, _| 7);
        }
        assert_eq!(tokens, output);
    }
}

#[test]
fn a_draft_takes_free_blocks_or_one_that_is_only_cached() {
    let root = BlockKey::root(&CacheIdentity::new([]), "");
    let prefix = Some(PrefixUse { root, salted: false, reuse: true });
    let mut s = drafting(6, 4, 64);
    // What another request leaves takes all blocks but one.
    s.add(NewRequest { prefix, ..counting(9, 64, 1) }).unwrap();
    run(&mut s, 1);
    assert_eq!((s.pool().num_cached(), s.pool().num_free()), (4, 2));
    s.add(request(1, "", 12, 1, 40)).unwrap();
    let (mut drafts, mut drafted_into_cached) = (Vec::new(), false);
    while !s.is_idle() {
        let step = s.schedule();
        assert!(step.preempted.is_empty() && step.evictions.len() <= 1);
        if let Some(chunk) = step.chunks.iter().find(|chunk| !chunk.draft.is_empty()) {
            let end = chunk.start + chunk.len;
            // The sequence's own tokens fill the block before the one that is evicted.
            drafted_into_cached |= !step.evictions.is_empty() && chunk.start % 16 != 0 && end % 16 < chunk.draft.len();
            drafts.push(end);
        }
        finish_with(&mut s, &step, |_, _| 7);
    }
    assert!(drafted_into_cached, "no draft in a block that was only cached: {drafts:?}");
}

#[test]
fn a_sequence_that_needs_a_block_finds_it_although_another_drafts() {
    let mut s = drafting(5, 4, 64);
    s.add(request(1, "", 12, 1, 30)).unwrap();
    s.add(request(2, "", 12, 1, 30)).unwrap();
    while !s.is_idle() {
        let step = s.schedule();
        assert!(step.preempted.is_empty() || s.pool().num_available() < 2);
        finish_with(&mut s, &step, |_, _| 7);
        // Between steps a sequence holds what its computed tokens need, and no more.
        let held = |choice| s.sequence(SeqId { request: choice, choice: 0 });
        for seq in [1, 2].into_iter().filter_map(held).filter(|seq| !seq.table().blocks().is_empty()) {
            assert_eq!(seq.table().blocks().len(), (seq.tokens().len() - 1).div_ceil(16));
        }
    }
}

#[test]
fn choices_that_part_draft_in_blocks_of_their_own() {
    let mut s = drafting(32, 4, 64);
    s.add(request(1, "", 20, 3, 24)).unwrap();
    let mut drafts = [0; 3];
    while !s.is_idle() {
        let step = s.schedule();
        for chunk in step.chunks.iter().filter(|chunk| !chunk.draft.is_empty()) {
            drafts[chunk.seq.choice as usize] += 1;
            let ids = s.sequence(chunk.seq).unwrap().table().ids();
            let written = &ids[chunk.start / 16..(chunk.start + chunk.len).div_ceil(16)];
            for choice in (0..3).filter(|choice| *choice != chunk.seq.choice) {
                let Some(other) = s.sequence(SeqId { choice, ..chunk.seq }) else { continue };
                assert!(written.iter().all(|id| !other.table().ids().contains(id)), "a block of two choices");
            }
        }
        finish_with(&mut s, &step, |id, at| if at < 22 { id.choice } else { 7 });
    }
    assert!(drafts.iter().all(|drafts| *drafts > 0), "{drafts:?}");
}

#[test]
fn the_budget_of_tokens_bounds_drafts() {
    for budget in [4, 5, 7] {
        let mut s = drafting(64, 4, budget);
        s.add(request(1, "", 20, 1, 40)).unwrap();
        let mut most = 0;
        while !s.is_idle() {
            let step = s.schedule();
            most = most.max(drafted(&step, ID));
            assert!(step.num_tokens() <= budget);
            finish_with(&mut s, &step, |_, _| 7);
        }
        assert_eq!(most, budget - 1);
    }
}

/// A machine on which a row adds this share of what a step takes beside its rows: the mean length of the drafts that
/// the first of some sequences is given. Of the answer's tokens 7 of 8 repeat what came before.
fn mean_draft(sequences: u64, share: f64) -> f64 {
    let mut s = drafting(512, 16, 128);
    for key in 1..=sequences {
        s.add(request(key, "", 20, 1, 200)).unwrap();
    }
    let (mut drafts, mut steps) = (0, 0);
    while s.sequence(ID).is_some() || s.num_waiting() > 0 {
        let step = s.schedule();
        s.measured(&step, Duration::from_secs_f64(0.01 * (1.0 + share * step.num_tokens() as f64)));
        drafts += drafted(&step, ID);
        steps += 1;
        finish_with(&mut s, &step, |_, at| if at % 8 == 0 { 1000 + at as u32 } else { (at % 8) as u32 });
    }
    f64::from(drafts as u32) / f64::from(steps)
}

#[test]
fn a_machine_on_which_rows_are_dear_drafts_less_and_many_sequences_do() {
    let (alone, dear, many) = (mean_draft(1, 0.05), mean_draft(1, 4.0), mean_draft(16, 0.05));
    assert!(alone > 1.0, "{alone}");
    assert!(dear < alone * 0.75, "{dear} of {alone}");
    assert!(many < alone / 4.0, "{many} of {alone}");
}

#[test]
fn a_prompt_beside_drafts_keeps_to_the_limit_of_a_step() {
    let limit = Duration::from_millis(200);
    let base = config(2048, 8, 512);
    let mut s = Scheduler::new(SchedulerConfig { max_draft_tokens: 8, max_step_time: Some(limit), ..base }).unwrap();
    s.add(request(1, "", 40, 1, 2000)).unwrap();
    let took = |step: &Step| Duration::from_secs_f64(0.02 + 0.001 * step.num_tokens() as f64);
    let next = |s: &mut Scheduler| {
        let step = s.schedule();
        s.measured(&step, took(&step));
        finish_with(s, &step, |_, _| 7);
        (took(&step), drafted(&step, ID))
    };
    for _ in 0..20 {
        next(&mut s);
    }
    s.add(request(2, "", 4000, 1, 1)).unwrap();
    let mut drafts = 0;
    while s.num_running() + s.num_waiting() > 1 {
        let (time, drafted) = next(&mut s);
        // Rows of decodes are counted by octaves, whose time is that of the last steps in them: 8 rows of 1 ms.
        assert!(time <= limit + Duration::from_millis(8), "{time:?}");
        drafts += drafted;
    }
    assert!(drafts > 0, "a stream beside a prompt drafts nothing");
}
