//! Attention cut into small dispatches gives the same bits, and so do partitions that are followed together.
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

/// Where `span` is in the params of `query`, in bytes: fields have four each.
fn span_offset() -> usize {
    let text = metal::source::library(None);
    let fields = text.split("struct QueryParams {").nth(1).unwrap().lines().filter(|line| line.contains(';'));
    4 * fields.take_while(|line| !line.contains(" span;")).count()
}

/// Bits of the last row of `to`, with `span` partitions a threadgroup of `query`, and how many launches that changed.
fn follow(emulator: &'static Emulator, case: Case, to: usize, span: usize) -> (Vec<u32>, usize) {
    let (changed, offset) = (Arc::new(AtomicUsize::new(0)), span_offset());
    let counted = Arc::clone(&changed);
    let run = move |inner: &EmulatorExecutor, launches: &[Launch<'_, Memory>]| {
        for launch in launches {
            let (mut grid, mut params) = (launch.grid, launch.params.clone());
            if launch.kernel.starts_with("query") {
                let field = &mut params.1[offset..offset + 4];
                assert_eq!(field, 1u32.to_le_bytes(), "few partitions are followed one by one");
                field.copy_from_slice(&(span as u32).to_le_bytes());
                grid[2] = 1 + (grid[2] - 1).div_ceil(span as u32);
                counted.fetch_add(usize::from(grid != launch.grid), Ordering::Relaxed);
            }
            let bindings = launch.bindings.iter().map(|binding| metal::Binding { ..*binding }).collect();
            let (kernel, constants) = (launch.kernel.clone(), launch.constants.clone());
            inner.run(&[Launch { kernel, constants, grid, bindings, params, ..*launch }])?;
        }
        Ok(())
    };
    let wide = Watched { inner: executor(emulator, 0), most_work: u64::MAX, run };
    let mut cache = Cache::new(wide, case, to);
    cache.write();
    let q = cache.query(5, 1);
    let bits = cache.attend(&q, to - 1, to).into_iter().map(f32::to_bits).collect();
    (bits, changed.load(Ordering::Relaxed))
}

#[test]
fn partitions_followed_together_are_those_followed_alone() {
    let Some(emulator) = Emulator::fast() else { return };
    let case = |k, v, d| Case { centred: true, ..Case::new(k, v, d) };
    // Four and one, two and one.
    for (case, to, span) in [
        (case(Format::Tq4, Format::Tq4, 64), 2100, 4),
        (Case { bias: 30.0, ..case(Format::Bf16, Format::Bf16, 64) }, 2100, 4),
        (case(Format::Tq5, Format::Tq4, 128), 1100, 2),
    ] {
        let (want, unchanged) = follow(emulator, case, to, 1);
        let (got, changed) = follow(emulator, case, to, span);
        assert_eq!(got, want, "{case:?}");
        assert_eq!((unchanged, changed), (0, 1));
    }
}
