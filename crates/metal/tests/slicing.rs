//! Attention cut into small dispatches gives the same bits.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;
use common::*;
use metal::{ExecError, Executor, Family, Form, Launch};
use msl_emu::{Emulator, EmulatorExecutor, Memory};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use turboquant::Format;

/// Allows a dispatch so much work, and counts those of attention.
struct Bounded {
    inner: EmulatorExecutor,
    most_work: u64,
    dispatches: Arc<AtomicUsize>,
}

impl Executor for Bounded {
    type Buffer = Memory;

    fn family(&self) -> Family {
        self.inner.family()
    }

    fn most_work(&self) -> u64 {
        self.most_work
    }

    fn create(&self, bytes: usize) -> Result<Memory, ExecError> {
        self.inner.create(bytes)
    }

    fn upload(&self, buffer: &Memory, offset: usize, bytes: &[u8]) -> Result<(), ExecError> {
        self.inner.upload(buffer, offset, bytes)
    }

    fn download(&self, buffer: &Memory, offset: usize, out: &mut [u8]) -> Result<(), ExecError> {
        self.inner.download(buffer, offset, out)
    }

    fn run(&self, launches: &[Launch<'_, Memory>]) -> Result<(), ExecError> {
        let attends =
            |launch: &&Launch<'_, Memory>| launch.kernel.starts_with("attend") || launch.kernel.starts_with("prefill");
        let attending = launches.iter().filter(attends);
        // One (tile, partition) of two kv heads may be more than is allowed.
        let cut = |launch: &Launch<'_, Memory>| launch.work <= self.most_work || launch.grid[1..] == [1, 1];
        assert!(attending.clone().all(cut), "a dispatch above the limit of {}", self.most_work);
        self.dispatches.fetch_add(attending.count(), Ordering::Relaxed);
        self.inner.run(launches)
    }
}

/// Bits of rows `from..to`, and dispatches of attention.
fn attend(emulator: &'static Emulator, case: Case, from: usize, to: usize, most_work: u64) -> (Vec<u32>, usize) {
    let dispatches = Arc::default();
    let bounded = Bounded { inner: executor(emulator, 0), most_work, dispatches: Arc::clone(&dispatches) };
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
