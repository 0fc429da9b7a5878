//! What the prefix cache costs the scheduler: keys, lookup and sealing, in microseconds for 1,000 tokens of a prompt.
//!
//! `cargo bench -p scheduler`
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a program of its own
use kv::{BlockKey, CacheIdentity};
use scheduler::{NewRequest, PrefixUse, Scheduler, SchedulerConfig, SeqId};
use std::time::Instant;

const LEN: usize = 8_000;
const ROUNDS: u32 = 200;

/// Microseconds for 1,000 tokens of admitting a prompt, looking it up included, and of taking in that it is computed.
fn run(scheduler: &mut Scheduler, key: u64, first: u32, prefix: Option<PrefixUse>) -> [f64; 2] {
    let prompt: Vec<u32> = (first..first + LEN as u32).collect();
    let begin = Instant::now();
    let request = NewRequest { key, client: String::new(), prompt, choices: 1, max_len: LEN + 1, prefix };
    scheduler.add(request).unwrap();
    let step = scheduler.schedule();
    let admitted = begin.elapsed();
    let begin = Instant::now();
    scheduler.update(&step, &[(SeqId { request: key, choice: 0 }, 1)]);
    let sealed = begin.elapsed();
    scheduler.finish(SeqId { request: key, choice: 0 });
    [admitted, sealed].map(|time| time.as_secs_f64() * 1e9 / LEN as f64)
}

fn main() {
    let config = SchedulerConfig {
        block_size: 32,
        num_blocks: 4 * LEN / 32,
        max_num_seqs: 4,
        num_snapshots: 0,
        max_num_batched_tokens: LEN,
        max_step_time: None,
        max_draft_tokens: 0,
        has_states: false,
    };
    let usage = PrefixUse { root: BlockKey::root(&CacheIdentity::new([]), ""), salted: false, reuse: true };
    // A prompt that nobody knows fills a pool in which others are evicted for it; one that is known is looked up.
    for (name, prefix, step) in [("off", None, LEN as u32), ("new", Some(usage), LEN as u32), ("known", Some(usage), 0)]
    {
        let mut scheduler = Scheduler::new(config.clone()).unwrap();
        let mut least = [f64::INFINITY; 2];
        for round in 0..ROUNDS {
            let times = run(&mut scheduler, round.into(), round * step, prefix);
            least = [least[0].min(times[0]), least[1].min(times[1])];
        }
        println!("{name:>6}: admission {:6.2} us, sealing {:6.2} us for 1,000 tokens", least[0], least[1]);
    }
}
