//! What the scheduler's own work takes in a step, in microseconds, with no model behind it.
//!
//! `cargo bench -p scheduler --bench steps`
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a program of its own
use kv::{BlockKey, CacheIdentity};
use scheduler::{Chunk, NewRequest, PrefixUse, Scheduler, SchedulerConfig, Step};
use std::time::{Duration, Instant};

const BLOCK_SIZE: usize = 32;
const CHUNK: usize = 512;
/// Steps in which all sequences decode.
const DECODES: usize = 2_000;

/// Computes a step: each sequence that samples gets the next of `tokens`.
fn finish(scheduler: &mut Scheduler, step: &Step, tokens: &mut impl Iterator<Item = u32>) {
    let sampled: Vec<_> = step.chunks.iter().flat_map(Chunk::sampled).zip(tokens).collect();
    scheduler.update(step, &sampled);
}

/// Prints the mean and the longest time of steps.
fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let mean = us(times.iter().sum::<Duration>()) / times.len() as f64;
    let high = us(times[times.len() * 99 / 100]);
    println!("{what}: mean {mean:7.1} us, 99 of 100 below {high:7.1} us, {} steps", times.len());
}

fn run(sequences: usize, prompt: usize) {
    let len = prompt + DECODES + 1;
    let config = SchedulerConfig {
        block_size: BLOCK_SIZE,
        num_blocks: sequences * len.div_ceil(BLOCK_SIZE),
        max_num_seqs: sequences,
        num_snapshots: 0,
        max_num_batched_tokens: CHUNK,
        max_step_time: Some(Duration::from_millis(200)),
        max_draft_tokens: 8,
        has_states: false,
    };
    let mut scheduler = Scheduler::new(config).unwrap();
    let root = BlockKey::root(&CacheIdentity::new([]), "");
    let mut tokens = 0u32..;
    for key in 0..sequences as u64 {
        let prompt: Vec<u32> = (0..prompt as u32).map(|at| at ^ (key as u32) << 20).collect();
        let prefix = Some(PrefixUse { root, salted: false, reuse: true });
        let request = NewRequest { key, client: key.to_string(), prompt, choices: 1, max_len: len, prefix };
        scheduler.add(request).unwrap();
    }
    let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
    while decodes.len() < DECODES {
        let begin = Instant::now();
        let step = scheduler.schedule();
        finish(&mut scheduler, &step, &mut tokens);
        let times = if step.chunks.iter().all(|chunk| chunk.len == 1) { &mut decodes } else { &mut prefills };
        times.push(begin.elapsed());
        // A computer on which a row takes a millisecond.
        scheduler.measured(&step, Duration::from_millis(step.num_tokens() as u64));
    }
    println!("{sequences} sequences of {prompt} tokens");
    tell("  prompts are read", prefills);
    tell("  all decode      ", decodes);
}

fn main() {
    run(64, 2_048);
    run(1, 131_072);
}
