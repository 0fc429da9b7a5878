//! Models computed as on a GPU, by the Metal kernels' own text in the emulator and Candle's products on the CPU.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use common::{Driver, Setup, alone, emulated};
use metal::{AttendKernel, Executor, GpuBackend, Launch};
use msl_emu::{Emulator, EmulatorExecutor, Memory, Watched};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use testkit::Golden;
use turboquant::Format::{self, *};

/// Greedy tokens of the CPU backend and of the kernels are equal, with each of the kernels that decode.
fn check(model: &str, k: Format, v: Format, kernels: &[AttendKernel], output: usize) {
    let Some(emulator) = Emulator::fast() else { return };
    let setup = || Setup::new(&format!("models/{model}"), k, v);
    let golden = Golden::read(model);
    let prompt = &golden.prompts[0].ids;
    let want = alone(&setup(), prompt, output);
    for &kernel in kernels {
        let ran = Arc::new(Mutex::new(BTreeSet::new()));
        let executor = || {
            let noted = Arc::clone(&ran);
            let run = move |inner: &EmulatorExecutor, launches: &[Launch<'_, Memory>]| {
                noted.lock().unwrap().extend(launches.iter().map(|launch| launch.kernel.clone()));
                inner.run(launches)
            };
            Watched { inner: EmulatorExecutor { emulator, order: 0 }, most_work: u64::MAX, run }
        };
        let setup = Setup { compute: Some(emulated(executor())), ..setup() };
        let mut driver = Driver::with_backend(&setup, |layout, geometry, centring, _| {
            Box::new(GpuBackend::new(executor(), layout, geometry, &centring, kernel).unwrap())
        });
        // The CPU's tokens come from whole rows.
        driver.largest = true;
        driver.add(0, prompt, output);
        driver.run();
        assert_eq!(driver.trace(0).tokens, want.tokens, "{model} {k:?}/{v:?} by {kernel:?}");
        let ran = ran.lock().unwrap();
        let attend = if kernel == AttendKernel::Mma { "attend_mma" } else { "attend_vec" };
        for kernel in ["write", "query", attend, "reduce", "add_rms_norm", "gate_mul", "top_rows"] {
            assert!(ran.iter().any(|name| name.starts_with(kernel)), "{kernel} did not run: {ran:?}");
        }
    }
}

#[test]
fn kernels_write_what_the_cpu_writes() {
    check("demo", Tq8, Tq8, &[AttendKernel::Mma, AttendKernel::Vec], 16);
    check("demo", Tc4, Tc4, &[AttendKernel::Mma, AttendKernel::Vec], 16);
}

/// Qwen3: with a norm over each head of q and k.
#[test]
fn heads_are_normed_by_the_kernels() {
    check("eval", Tq8, Tc4, &[AttendKernel::Mma], 4);
}

/// Mixtures and recurrent layers.
#[test]
fn mixtures_and_recurrent_layers_run() {
    for model in ["tiny-qwen3moe", "tiny-qwen35"] {
        check(model, Tq8, Tq8, &[AttendKernel::Mma], 8);
    }
}
