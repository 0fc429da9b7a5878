//! Attention cut into small dispatches gives the same bits.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;
use common::*;
use metal::{Executor, Form, Launch};
use msl_emu::{Emulator, EmulatorExecutor, Memory, Watched};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use turboquant::Format;

/// Bits of rows `from..to`, and dispatches of attention.
fn attend(emulator: &'static Emulator, case: Case, from: usize, to: usize, most_work: u64) -> (Vec<u32>, usize) {
    let dispatches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dispatches);
    let run = move |inner: &EmulatorExecutor, launches: &[Launch<'_, Memory>]| {
        let attends =
            |launch: &&Launch<'_, Memory>| launch.kernel.starts_with("attend") || launch.kernel.starts_with("prefill");
        let attending = launches.iter().filter(attends);
        // One (tile, partition) of two kv heads may be more than is allowed.
        let cut = |launch: &Launch<'_, Memory>| launch.work <= most_work || launch.grid[1..] == [1, 1];
        assert!(attending.clone().all(cut), "a dispatch above the limit of {most_work}");
        counted.fetch_add(attending.count(), Ordering::Relaxed);
        inner.run(launches)
    };
    let bounded = Watched { inner: executor(emulator, 0), most_work, run };
    let mut cache = Cache::new(bounded, case, to);
    cache.write();
    let q = cache.query(5, to - from);
    let bits = cache.attend(&q, from, to).into_iter().map(f32::to_bits).collect();
    (bits, dispatches.load(Ordering::Relaxed))
}

#[test]
fn slices_do_not_change_a_bit() {
    let Some(emulator) = Emulator::fast() else { return };
    let base = Case { centred: true, ..Case::new(Format::Tq4, Format::Tq4, 64) };
    let exact = Case { bias: 30.0, ..Case { centred: true, ..Case::new(Format::Bf16, Format::Bf16, 64) } };
    for (case, from, to) in [
        (base, 1099, 1100),
        (Case { form: Form::Vec, ..base }, 1099, 1100),
        (base, 1060, 1100),
        (exact, 1060, 1100),
        (Case { form: Form::Vec, ..exact }, 1099, 1100),
    ] {
        let (want, one) = attend(emulator, case, from, to, u64::MAX);
        assert_eq!(one, 1);
        let (got, many) = attend(emulator, case, from, to, 1);
        assert_eq!(got, want, "{case:?}");
        // Each of three partitions of each tile.
        assert!(many % 3 == 0 && many >= 3, "{many} dispatches");
    }
}
