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
    let config = SchedulerConfig {
        block_size: 16,
        num_blocks,
        max_num_seqs,
        max_num_batched_tokens,
        max_step_time,
        num_snapshots: 0,
    };
    Scheduler::new(config).unwrap()
}

/// A request for a prompt of one token again and again, which takes no part in the prefix cache.
pub fn request(key: u64, client: &str, prompt: usize, choices: u32, output: usize) -> NewRequest {
    NewRequest { key, client: client.into(), prompt: vec![7; prompt], choices, max_len: prompt + output, prefix: None }
}

/// What the engine does with a step, with token 1 sampled everywhere and full sequences ended.
pub fn finish_step(s: &mut Scheduler, step: &Step) {
    let sampled: Vec<_> =
        step.chunks.iter().flat_map(|c| c.samples.clone().map(|choice| (SeqId { choice, ..c.seq }, 1))).collect();
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
