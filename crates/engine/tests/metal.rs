//! The demo model with attention computed by the Metal kernels' own text, in the emulator.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{Driver, Setup, alone};
use metal::{Element, Family, GpuBackend};
use msl_emu::{Emulator, EmulatorExecutor};
use testkit::Golden;
use turboquant::Format::{self, *};

const MODEL: &str = "models/demo";
const OUTPUT: usize = 16;

/// Greedy tokens of the CPU backend and of the kernels, on the family that decodes without matrix products and on the other.
fn check(k: Format, v: Format) {
    let Some(emulator) = Emulator::fast() else { return };
    let setup = Setup::new(MODEL, k, v);
    let golden = Golden::read("demo");
    let prompt = &golden.prompts[0].ids;
    let want = alone(&setup, prompt, OUTPUT);
    for family in [Family::MatrixUnit, Family::NoMatrixUnit] {
        let executor = EmulatorExecutor { emulator, order: 0, family };
        let mut driver = Driver::with_backend(&setup, |kv, geometry, centring| {
            let layout = kv.layout(geometry).unwrap();
            Box::new(GpuBackend::new(executor, layout, geometry, &centring, Element::F32).unwrap())
        });
        driver.add(0, prompt, OUTPUT);
        driver.run();
        assert_eq!(driver.trace(0).tokens, want.tokens, "{k:?}/{v:?} on {family:?}");
    }
}

#[test]
fn kernels_write_what_the_cpu_writes() {
    check(Tq8, Tq8);
    check(Tq4, Tq4);
}
