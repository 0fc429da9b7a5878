//! Prefixes that are found again, step by step, with the whole state as text after each.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{finish_step, run};
use kv::{BlockKey, CacheIdentity};
use scheduler::{
    BlockArchive, Miss, NewRequest, PrefixReport, PrefixUse, Restraint, Scheduler, SchedulerConfig, SeqId,
};
use std::collections::BTreeSet;
use std::ops::Range;

fn scheduler(num_blocks: usize, num_snapshots: usize) -> Scheduler {
    let config = SchedulerConfig {
        block_size: 16,
        num_blocks,
        max_num_seqs: 4,
        num_snapshots,
        max_num_batched_tokens: 64,
        max_step_time: None,
        max_draft_tokens: 0,
        has_states: num_snapshots > 0,
    };
    Scheduler::new(config).unwrap()
}

fn root(salt: &str) -> BlockKey {
    BlockKey::root(&CacheIdentity::new([]), salt)
}

fn request(key: u64, prompt: Vec<u32>, output: usize) -> NewRequest {
    let prefix = Some(PrefixUse { root: root(""), salted: false, reuse: true });
    NewRequest { key, client: String::new(), max_len: prompt.len() + output, prompt, choices: 1, prefix }
}

/// Tokens `first..first + len`.
fn text(first: u32, len: u32) -> Vec<u32> {
    (first..first + len).collect()
}

/// Runs until nothing is left: what was known of request `key`'s prompt, and which of its tokens were computed.
fn finish(s: &mut Scheduler, key: u64) -> (PrefixReport, Vec<Range<usize>>) {
    let (mut report, mut computed) = (None, Vec::new());
    while !s.is_idle() {
        let step = s.schedule();
        let own = step.chunks.iter().filter(|chunk| chunk.seq.request == key);
        computed.extend(own.map(|chunk| chunk.start..chunk.start + chunk.len));
        let sequence = s.sequence(SeqId { request: key, choice: 0 });
        report = sequence.and_then(|seq| seq.report()).cloned().or(report);
        finish_step(s, &step);
    }
    assert_eq!(s.pool().num_held(), 0);
    (report.unwrap(), computed)
}

/// The next `n` steps, without the states between them.
fn steps(s: &mut Scheduler, n: usize) -> String {
    let mut out = String::new();
    for _ in 0..n {
        let step = s.schedule();
        finish_step(s, &step);
        out += &step.to_string();
    }
    out
}

#[test]
fn a_second_turn_computes_what_is_new_in_it() {
    let mut s = scheduler(16, 0);
    s.add(request(1, text(0, 40), 10)).unwrap();
    let mut out = run(&mut s, 20);
    // The answer is ten times token 1; the next turn has it, and goes on.
    let turn = [text(0, 40), vec![1; 10], text(100, 20)].concat();
    s.add(request(2, turn, 2)).unwrap();
    out += &run(&mut s, 1);
    insta::assert_snapshot!(out);
    let report = s.sequence(SeqId { request: 2, choice: 0 }).unwrap().report().unwrap();
    assert_eq!((report.from_memory, report.computed(), &report.miss), (48, 22, &None));
}

#[test]
fn reasons_are_told() {
    let mut s = scheduler(8, 0);
    let mut ask = |request| {
        s.add(request).unwrap();
        finish(&mut s, 1).0
    };
    let salted = |prompt| {
        let prefix = Some(PrefixUse { root: root("secret"), salted: true, reuse: true });
        NewRequest { prefix, ..request(1, prompt, 1) }
    };
    let whole = PrefixUse { root: root(""), salted: false, reuse: false };
    assert_eq!(ask(request(1, text(0, 70), 1)).miss, Some(Miss::Cold));
    assert_eq!(ask(request(1, text(500, 5), 1)).miss, Some(Miss::Cold));
    // The last token is always computed, and with it its block.
    let again = ask(request(1, text(0, 64), 1));
    assert_eq!((again.from_memory, again.miss), (48, None));
    let longer = ask(request(1, text(0, 75), 1));
    assert_eq!((longer.from_memory, longer.miss), (64, None));
    let parted = ask(request(1, [text(0, 37), text(200, 20)].concat(), 1));
    assert_eq!(parted.from_memory, 32);
    assert_eq!(parted.miss, Some(Miss::Diverged { at: 37, from: 32, known: text(32, 16).into() }));
    assert_eq!(ask(salted(text(0, 40))).miss, Some(Miss::Salted));
    assert_eq!(ask(salted(text(0, 40))).from_memory, 32);
    let all = NewRequest { prefix: Some(whole), ..request(1, text(0, 40), 1) };
    assert_eq!((ask(all.clone()).from_memory, ask(all).miss), (0, Some(Miss::Off)));
    assert_eq!(ask(NewRequest { prefix: None, ..request(1, text(0, 40), 1) }).miss, Some(Miss::Off));
    // All eight blocks for another prompt.
    ask(request(1, text(900, 120), 1));
    let lost = ask(request(1, text(0, 70), 1));
    assert_eq!((lost.from_memory, lost.miss), (0, Some(Miss::Evicted)));
}

#[test]
fn a_chain_dies_from_its_end() {
    let mut s = scheduler(8, 0);
    s.add(request(1, text(0, 100), 1)).unwrap();
    finish(&mut s, 1);
    assert_eq!((s.pool().num_cached(), s.pool().num_free()), (6, 2));
    s.add(request(2, text(500, 60), 1)).unwrap();
    finish(&mut s, 2);
    s.add(request(3, text(0, 100), 1)).unwrap();
    let (report, computed) = finish(&mut s, 3);
    assert_eq!((report.from_memory, report.miss), (64, Some(Miss::Evicted)));
    assert_eq!((computed.len(), computed[0].clone()), (1, 64..100));
}

#[test]
fn sessions_that_come_at_once_compute_their_system_prompt_once() {
    let mut s = scheduler(64, 0);
    for key in 1..=4 {
        s.add(request(key, [text(0, 160), text(1000 * key as u32, 20)].concat(), 2)).unwrap();
    }
    let mut tokens = 0;
    while !s.is_idle() {
        let step = s.schedule();
        let prompts = step.chunks.iter().map(|chunk| chunk.len.min(180usize.saturating_sub(chunk.start)));
        tokens += prompts.sum::<usize>();
        finish_step(&mut s, &step);
    }
    assert_eq!(tokens, 160 + 4 * 20);
}

#[test]
fn a_cancelled_prompt_goes_on_where_it_was() {
    let mut s = scheduler(32, 0);
    s.add(request(1, text(0, 200), 1)).unwrap();
    run(&mut s, 2);
    s.abort(1);
    s.check().unwrap();
    s.add(request(2, text(0, 200), 1)).unwrap();
    assert_eq!(finish(&mut s, 2).1, [128..192, 192..200]);
}

#[test]
fn what_is_computed_twice_at_once_is_stored_once() {
    let mut s = scheduler(32, 0);
    // The first does not use what is known, so that it does not wait for the other either.
    let alone = PrefixUse { root: root(""), salted: false, reuse: false };
    for key in [1, 2] {
        s.add(NewRequest { prefix: Some(alone), ..request(key, text(0, 32), 20) }).unwrap();
    }
    insta::assert_snapshot!(run(&mut s, 1));
}

#[test]
fn recurrent_states_are_kept_on_a_ladder_and_found_again() {
    let mut s = scheduler(64, 8);
    s.add(request(1, text(0, 320), 20)).unwrap();
    let mut out = steps(&mut s, 24);
    // The next turn begins at the last boundary of the answer.
    s.add(request(2, [text(0, 320), vec![1; 19], text(900, 10)].concat(), 1)).unwrap();
    out += &run(&mut s, 1);
    insta::assert_snapshot!(out);
    // Another goes its own way in the middle: a rung stands before.
    s.add(request(3, [text(0, 250), text(700, 60)].concat(), 1)).unwrap();
    let (report, computed) = finish(&mut s, 3);
    assert_eq!((report.from_memory, report.miss), (176, Some(Miss::NoSnapshot { known: 240 })));
    // Where it parted there is a snapshot now.
    assert!(computed.iter().any(|chunk| chunk.end == 240), "{computed:?}");
    s.add(request(4, [text(0, 250), text(800, 60)].concat(), 1)).unwrap();
    assert_eq!(finish(&mut s, 4).0.from_memory, 240);
}

#[test]
fn a_shared_prompt_of_a_recurrent_model_is_computed_once() {
    let mut s = scheduler(64, 8);
    for key in 1..=3 {
        s.add(request(key, [text(0, 160), text(1000 * key as u32, 20)].concat(), 1)).unwrap();
    }
    let (_, computed) = finish(&mut s, 3);
    assert_eq!(computed.iter().map(ExactSizeIterator::len).sum::<usize>(), 20);
}

/// An archive that has these blocks and all their snapshots.
struct Archive(BTreeSet<BlockKey>);

impl BlockArchive for Archive {
    fn run(&self, keys: &[BlockKey]) -> usize {
        keys.iter().take_while(|key| self.0.contains(key)).count()
    }

    fn has_snapshot(&self, key: &BlockKey) -> bool {
        self.0.contains(key)
    }
}

#[test]
fn blocks_of_an_archive_are_loaded_while_others_run() {
    for num_snapshots in [0, 4] {
        let archive = Archive(root("").chain(&text(0, 160), 16).collect());
        let mut s = scheduler(64, num_snapshots).with_archive(Box::new(archive));
        s.add(request(1, text(500, 30), 9)).unwrap();
        s.add(request(2, text(0, 170), 1)).unwrap();
        let step = s.schedule();
        assert_eq!(step.chunks.iter().map(|chunk| chunk.seq.request).collect::<Vec<_>>(), [1], "{step}");
        let [load] = &step.loads[..] else { panic!("{step}") };
        assert_eq!((load.keys.len(), load.snapshot.is_some()), (10, num_snapshots > 0));
        finish_step(&mut s, &step);
        assert!(s.load_target(load).is_some_and(|(blocks, slot)| blocks.len() == 10 && slot.is_some()));
        // The disk can read seven of the ten blocks.
        s.finish_load(load, 7, true);
        s.check().unwrap();
        let (report, computed) = finish(&mut s, 2);
        let loaded = if num_snapshots > 0 { 0 } else { 7 * 16 };
        assert_eq!((report.from_archive, computed[0].start), (loaded, loaded));
        assert_eq!(s.load_target(load), None);
    }
}

#[test]
fn a_load_that_nobody_waits_for_any_more_changes_nothing() {
    let archive = Archive(root("").chain(&text(0, 160), 16).collect());
    let mut s = scheduler(64, 0).with_archive(Box::new(archive));
    s.add(request(1, text(0, 170), 1)).unwrap();
    let load = s.schedule().loads.remove(0);
    s.abort(1);
    assert_eq!(s.load_target(&load), None);
    s.finish_load(&load, 10, false);
    s.check().unwrap();
    assert_eq!((s.pool().num_held(), s.pool().num_cached()), (0, 0));
}

#[test]
fn short_of_memory_no_snapshot_is_kept() {
    let mut s = scheduler(64, 8);
    let again = |s: &mut Scheduler, key| {
        s.add(request(key, text(0, 200), 4)).unwrap();
        finish(s, key).0.reused()
    };
    assert_eq!(again(&mut s, 1), 0);
    assert!(s.num_snapshots() > 0);
    s.restrain(Restraint::NoSnapshots);
    // The blocks are known, but not the states at their end.
    assert_eq!((s.num_snapshots(), again(&mut s, 2), s.num_snapshots()), (0, 0, 0));
    s.restrain(Restraint::None);
    assert_eq!((again(&mut s, 3), again(&mut s, 4)), (0, 192));
}
