//! Attention cut into small dispatches gives the same bits, and so do partitions that are followed together.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;
use common::*;
use metal::{AttendKernel, Executor, Launch};
use msl_emu::{Emulator, EmulatorExecutor, Memory, Watched};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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
    let base = Case { centred: true, ..Case::new(Format::Tc4, Format::Tc4, 64) };
    let exact = Case { bias: 30.0, ..Case { centred: true, ..Case::new(Format::Bf16, Format::Bf16, 64) } };
    for (case, from, to) in [
        (base, 1099, 1100),
        (Case { decode: AttendKernel::Vec, ..base }, 1099, 1100),
        (base, 1060, 1100),
        (exact, 1060, 1100),
        (Case { decode: AttendKernel::Vec, ..exact }, 1099, 1100),
    ] {
        let (want, one) = attend(emulator, case, from, to, u64::MAX);
        assert_eq!(one, 1);
        let (got, many) = attend(emulator, case, from, to, 1);
        assert_eq!(got, want, "{case:?}");
        // Each of three partitions of each tile.
        assert!(many % 3 == 0 && many >= 3, "{many} dispatches");
    }
}

/// Sequences of unlike lengths: partitions that short ones lack are dispatched for long ones alone, and bits are those
/// of each alone.
#[test]
fn what_no_row_sees_is_not_dispatched() {
    let Some(emulator) = Emulator::fast() else { return };
    for decode in [AttendKernel::Mma, AttendKernel::Vec] {
        let case = Case { centred: true, decode, ..Case::new(Format::Tc4, Format::Tc4, 64) };
        let grids = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&grids);
        let run = move |inner: &EmulatorExecutor, launches: &[Launch<'_, Memory>]| {
            let attends = launches.iter().filter(|launch| launch.kernel.starts_with("attend"));
            seen.lock().unwrap().extend(attends.map(|launch| ([launch.grid[1], launch.grid[2]], launch.work)));
            inner.run(launches)
        };
        let dispatched = |most_work: u64, rows: &[Range<usize>]| {
            let watched = Watched { inner: executor(emulator, 0), most_work, run: run.clone() };
            let mut cache = Cache::new(watched, case, 1100);
            cache.write();
            let one = cache.query(5, 1);
            let bits =
                cache.attend_all(&one.repeat(rows.len()), rows).into_iter().map(f32::to_bits).collect::<Vec<u32>>();
            (bits, std::mem::take(&mut *grids.lock().unwrap()))
        };
        let rows = [599..600, 10..11, 1099..1100];
        let (bits, grids) = dispatched(u64::MAX, &rows);
        let [([3, 3], work)] = grids[..] else { panic!("{grids:?}") };
        // Three partitions of tiles at once.
        let (cut, grids) = dispatched(work / 3, &rows);
        assert_eq!(grids.iter().map(|(grid, _)| *grid).collect::<Vec<_>>(), [[3, 1], [2, 1], [1, 1]]);
        assert_eq!(cut, bits, "{case:?}");
        let alone = rows.iter().flat_map(|rows| dispatched(u64::MAX, std::slice::from_ref(rows)).0);
        assert_eq!(bits, alone.collect::<Vec<u32>>(), "{case:?}");
    }
}

/// Where a field of a kernel's params is, in bytes: fields have four each.
fn offset_of(params: &str, field: &str) -> usize {
    let text = metal::source::library(None, &[]);
    let fields = text.split(&format!("struct {params} {{")).nth(1).unwrap().lines().filter(|line| line.contains(';'));
    4 * fields.take_while(|line| !line.contains(&format!(" {field};"))).count()
}

/// What a launch does where there is much to do, which a test has not.
#[derive(Clone, Copy)]
enum Much {
    /// `query`: so many partitions a simdgroup.
    Corrections(u32),
    /// `reduce`: a simdgroup an item.
    Alone,
}

/// Bits of the last row of `to`, with each `query` or `reduce` changed, and how many were.
fn changed(emulator: &'static Emulator, case: Case, to: usize, much: Option<Much>) -> (Vec<u32>, usize) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let run = move |inner: &EmulatorExecutor, launches: &[Launch<'_, Memory>]| {
        for launch in launches {
            let (mut grid, mut params) = (launch.grid, launch.params.clone());
            let mut set = |offset: usize, few: u32, value: u32| {
                let field = &mut params.1[offset..offset + 4];
                assert_eq!(field, few.to_le_bytes(), "of few");
                field.copy_from_slice(&value.to_le_bytes());
                counted.fetch_add(1, Ordering::Relaxed);
            };
            match much {
                Some(Much::Corrections(partitions)) if launch.kernel.starts_with("query") => {
                    set(offset_of("QueryParams", "partitions_each"), 1, partitions);
                    grid[2] = 1 + (grid[2] - 1).div_ceil(partitions);
                }
                Some(Much::Alone) if launch.kernel.starts_with("reduce") => {
                    set(offset_of("ReduceParams", "one_simdgroup_per_item"), 0, 1);
                    grid[0] = grid[0].div_ceil(8);
                }
                _ => {}
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
    (bits, count.load(Ordering::Relaxed))
}

/// Followed together and merged alone, a column's bits are those of few, with nothing raced for, out of bounds or
/// unwritten.
#[test]
fn partitions_followed_together_and_items_merged_alone_have_the_same_bits() {
    let (Some(fast), Some(checked)) = (Emulator::fast(), Emulator::checked()) else { return };
    let case = |k, v, d| Case { centred: true, ..Case::new(k, v, d) };
    // Five partitions: four and one.
    for (emulator, to, case) in [
        (fast, 2100, case(Format::Tc4, Format::Tc4, 64)),
        (fast, 2100, Case { bias: 30.0, ..case(Format::Bf16, Format::Bf16, 64) }),
        (fast, 2100, Case { decode: AttendKernel::Vec, ..case(Format::Tc5, Format::Tc4, 128) }),
        (fast, 2100, Case { window: Some(700), ..case(Format::Tc4, Format::Tc4, 96) }),
        // 6 of 8 simdgroups merge.
        (fast, 1100, Case { group: 3, ..case(Format::Tc5, Format::Tc5, 80) }),
        (checked, 1100, case(Format::Tc4, Format::Tc3, 64)),
        (checked, 1100, Case { bias: 30.0, ..case(Format::Bf16, Format::Bf16, 128) }),
    ] {
        let (want, _) = changed(emulator, case, to, None);
        for much in [Much::Corrections(4), Much::Alone] {
            let (got, changed) = changed(emulator, case, to, Some(much));
            assert_eq!(got, want, "{case:?}");
            assert_eq!(changed, 1);
        }
    }
}
