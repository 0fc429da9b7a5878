//! The attention backend over the emulator, under the suite of every backend.
#![allow(clippy::unwrap_used)] // helpers of tests
use attention::{AttentionBackend, Centring, KeyCentring, ModelGeometry};
use candle_core::Device;
use conformance::Case;
use kv::KvLayout;
use metal::{AttendKernel, GpuBackend};
use msl_emu::{Emulator, EmulatorExecutor};
use turboquant::Format;

fn executor(emulator: &'static Emulator, order: u32) -> EmulatorExecutor {
    EmulatorExecutor { emulator, order }
}

const BASE: Case = Case {
    k: Format::F16,
    v: Format::F16,
    head_dim: 64,
    kv_heads: 2,
    group: 3,
    block_size: 16,
    sliding_window: None,
    rope: true,
};

fn make(emulator: &'static Emulator) -> impl Fn(KvLayout, ModelGeometry) -> Box<dyn AttentionBackend> {
    move |layout, geometry| {
        let centring = Centring::none(&geometry);
        Box::new(GpuBackend::new(executor(emulator, 0), layout, &geometry, &centring, AttendKernel::Mma).unwrap())
    }
}

/// With means taken out of K, and pair scales.
fn make_centred(emulator: &'static Emulator) -> impl Fn(KvLayout, ModelGeometry) -> Box<dyn AttentionBackend> {
    move |layout, geometry| {
        let constants = conformance::large_constants(&geometry);
        let centring = Centring::new(&geometry, &constants, |_| KeyCentring::Approximated).unwrap();
        Box::new(GpuBackend::new(executor(emulator, 0), layout, &geometry, &centring, AttendKernel::Mma).unwrap())
    }
}

#[test]
fn outputs_match_f64() {
    let Some(emulator) = Emulator::fast() else { return };
    let make = make(emulator);
    for (format, tolerance) in [(Format::F16, 2e-3), (Format::Bf16, 1.5e-2)] {
        conformance::matches_reference(&make, &Device::Cpu, Case { k: format, v: format, ..BASE }, tolerance);
    }
}

/// Some layers of SmolLM3 rotate neither keys nor queries. Means are taken out of their keys all the same.
#[test]
fn outputs_without_rope_match_f64() {
    let Some(emulator) = Emulator::fast() else { return };
    let case = Case { rope: false, ..BASE };
    conformance::matches_reference(&make(emulator), &Device::Cpu, case, 2e-3);
    conformance::matches_reference(&make_centred(emulator), &Device::Cpu, case, 2e-3);
}

#[test]
fn results_do_not_depend_on_the_batch() {
    let Some(emulator) = Emulator::fast() else { return };
    conformance::is_batch_invariant(&make(emulator), &Device::Cpu, BASE);
}

#[test]
fn results_do_not_depend_on_the_batch_centred_and_in_a_window() {
    let Some(emulator) = Emulator::fast() else { return };
    let case = Case { k: Format::Tc4, v: Format::Tc4, group: 4, block_size: 32, sliding_window: Some(300), ..BASE };
    conformance::is_batch_invariant(&make_centred(emulator), &Device::Cpu, case);
}

#[test]
fn blocks_are_copied_and_moved() {
    let Some(emulator) = Emulator::fast() else { return };
    conformance::blocks_move(&make(emulator), &Device::Cpu, Case { k: Format::Tc4, v: Format::Tc3, ..BASE });
}
