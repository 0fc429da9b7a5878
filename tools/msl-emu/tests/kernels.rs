//! Every kernel, format and head size against turboquant's scalar encoder and f64 attention.
mod common;
use common::attempts::{self, Attempt};
use common::executor;
use msl_emu::Emulator;
use turboquant::{Format, Side};

/// A format that is new to the kernels must be among those that the tests below go through.
#[test]
fn every_format_of_the_kernels_is_attended() {
    for format in Format::all(Side::K).filter(|format| format.gpu_id().is_some()) {
        assert!(attempts::PAIRS.iter().any(|(k, _)| *k == format), "K {format:?}");
    }
    for format in Format::all(Side::V).filter(|format| format.gpu_id().is_some()) {
        assert!(attempts::PAIRS.iter().any(|(_, v)| *v == format), "V {format:?}");
    }
}

fn run(emulator: Option<&'static Emulator>, attempts: Vec<Attempt>) {
    let Some(emulator) = emulator else { return };
    for attempt in attempts {
        match attempt.run(executor(emulator, attempt.case.order)) {
            Ok(error) => println!("{error:.1e} {attempt:?}"),
            Err(message) => panic!("{attempt:?}: {message}"),
        }
    }
}

#[test]
fn formats_in_usual_head_sizes() {
    run(Emulator::fast(), attempts::formats(&attempts::DIMS[..4]));
}

#[test]
fn formats_in_large_head_sizes() {
    run(Emulator::fast(), attempts::formats(&attempts::DIMS[4..]));
}

#[test]
fn contexts_end_anywhere() {
    run(Emulator::fast(), attempts::contexts());
}

#[test]
fn groups_and_windows() {
    run(Emulator::fast(), attempts::groups_and_windows());
}

#[test]
fn a_large_bias_leaves_float_keys_alone() {
    run(Emulator::fast(), attempts::large_biases());
}

#[test]
fn chunks_see_what_comes_before_them() {
    run(Emulator::fast(), attempts::chunks());
}

/// Races, bounds, uninitialised memory and divergence, in several orders of lanes.
#[test]
fn every_lane_order_is_clean() {
    [0, 1, 7].into_iter().for_each(|order| run(Emulator::checked(), attempts::covering(order)));
    run(Emulator::checked(), attempts::covering_large());
}
