//! What drives a scheduler in tests.
#![allow(dead_code, clippy::unwrap_used)] // not every test uses all of it
use scheduler::{NewRequest, Scheduler, SchedulerConfig, SeqId, Step};
use std::time::Duration;

/// A scheduler of a cache of `num_blocks` blocks of 16 tokens.
pub fn scheduler(num_blocks: usize, max_num_seqs: usize, max_num_batched_tokens: usize) -> Scheduler {
    timed_scheduler(num_blocks, max_num_seqs, max_num_batched_tokens, None)
}

/// A scheduler whose steps are to be no longer than `max_step_time` beside decodes.
pub fn timed_scheduler(
    num_blocks: usize,
    max_num_seqs: usize,
    max_num_batched_tokens: usize,
    max_step_time: Option<Duration>,
) -> Scheduler {
    Scheduler::new(SchedulerConfig { max_step_time, ..config(num_blocks, max_num_seqs, max_num_batched_tokens) })
        .unwrap()
}

/// Blocks of 16 tokens, steps as long as their tokens take, no drafts.
pub fn config(num_blocks: usize, max_num_seqs: usize, max_num_batched_tokens: usize) -> SchedulerConfig {
    SchedulerConfig {
        block_size: 16,
        num_blocks,
        max_num_seqs,
        max_num_batched_tokens,
        max_step_time: None,
        max_draft_tokens: 0,
        has_states: false,
        num_snapshots: 0,
    }
}

/// A request for a prompt of one token again and again, which takes no part in the prefix cache.
pub fn request(key: u64, client: &str, prompt: usize, choices: u32, output: usize) -> NewRequest {
    NewRequest { key, client: client.into(), prompt: vec![7; prompt], choices, max_len: prompt + output, prefix: None }
}

/// What a step samples where `token` says which token stands at a position of a sequence: behind each chunk one token
/// for each of its choices, and behind a draft's tokens as long as they are the ones that were sampled.
pub fn sample(step: &Step, token: impl Fn(SeqId, usize) -> u32) -> Vec<(SeqId, u32)> {
    let mut sampled = Vec::new();
    for chunk in &step.chunks {
        for id in chunk.sampled() {
            let begin = chunk.start + chunk.own_len();
            let right = chunk.draft.iter().zip(begin..).take_while(|(draft, at)| **draft == token(id, *at)).count();
            sampled.extend((begin..=begin + right).map(|at| (id, token(id, at))));
        }
    }
    sampled
}

/// What the engine does with a step, with token 1 sampled everywhere and full sequences ended.
pub fn finish_step(s: &mut Scheduler, step: &Step) {
    finish_with(s, step, |_, _| 1);
}

/// What the engine does with a step of sequences whose tokens are given.
pub fn finish_with(s: &mut Scheduler, step: &Step, token: impl Fn(SeqId, usize) -> u32) {
    let sampled = sample(step, token);
    s.update(step, &sampled);
    for (id, _) in sampled {
        if s.sequence(id).is_some_and(|q| q.is_full()) {
            s.finish(id);
        }
    }
    s.check().unwrap();
}

/// Runs up to `n` steps and writes each step with the state after it.
pub fn run(s: &mut Scheduler, n: usize) -> String {
    let mut out = String::new();
    for _ in 0..n {
        if s.is_idle() {
            out += "idle\n";
            break;
        }
        let step = s.schedule();
        finish_step(s, &step);
        out += &format!("-- step\n{step}-- state\n{s}");
    }
    out
}
