//! Models computed as on a GPU, by the Metal kernels' own text in the emulator.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use candle_core::Device;
use common::{Driver, Setup, alone, emulated};
use matmul::WeightType;
use metal::{AttendKernel, Executor, GpuBackend, GpuDevice, Launch};
use msl_emu::{Emulator, EmulatorExecutor, Memory, Watched};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use testkit::Golden;
use turboquant::Format::{self, *};

/// The emulator as a device; `note` sees the launches of each call.
fn watched(
    emulator: &'static Emulator,
    note: impl Fn(&[Launch<'_, Memory>]) + Send + Sync + 'static,
) -> impl Executor<Buffer = Memory> + 'static {
    let run = move |inner: &EmulatorExecutor, launches: &[Launch<'_, Memory>]| {
        note(launches);
        inner.run(launches)
    };
    Watched { inner: EmulatorExecutor { emulator, order: 0 }, most_work: u64::MAX, run }
}

/// A model whose attention and products the kernels compute.
fn driver(setup: &Setup, emulator: &'static Emulator) -> Driver {
    let setup = Setup { compute: Some(emulated(watched(emulator, |_| ()))), ..setup.clone() };
    Driver::with_backend(&setup, |layout, geometry, centring, _| {
        let executor = watched(emulator, |_| ());
        Box::new(GpuBackend::new(executor, layout, geometry, &centring, AttendKernel::Mma).unwrap())
    })
}

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
            watched(emulator, move |launches| {
                noted.lock().unwrap().extend(launches.iter().map(|launch| launch.kernel.clone()));
            })
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
        for kernel in ["norm_operand", "product_", "write", "query", attend, "reduce", "pack_rows", "top_rows"] {
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

/// Chunks, company and preemption change no bit of a request's logits, whatever the family: neither do attention's
/// kernels nor those of products, norms and the rest.
#[test]
fn answers_do_not_depend_on_company() {
    const OUTPUT: usize = 6;
    let Some(emulator) = Emulator::fast() else { return };
    for model in ["tiny-llama31", "tiny-qwen3", "tiny-qwen3moe", "tiny-qwen35"] {
        let setup = Setup::new(&format!("models/{model}"), Tc4, Tc4);
        let golden = Golden::read(model);
        let prompts: Vec<Vec<u32>> = [45, 1, 17, 33].iter().map(|n| golden.text(n % 11, *n)).collect();
        let alone = |setup: &Setup| {
            let mut driver = driver(setup, emulator);
            driver.add(0, &prompts[0], OUTPUT);
            driver.run();
            driver.trace(0)
        };
        let want = alone(&setup);
        assert_eq!(want, alone(&Setup { budget: 7, ..setup.clone() }), "{model} in chunks of 7");
        let mut batch = driver(&Setup { budget: 64, ..setup.clone() }, emulator);
        prompts.iter().enumerate().for_each(|(key, prompt)| batch.add(key as u64, prompt, OUTPUT));
        batch.run();
        assert_eq!(want, batch.trace(0), "{model} with three others");
        // Once the older request has taken a third block, there is none for the newer one's fourth.
        let mut preempted = driver(&Setup { num_blocks: 6, budget: 64, ..setup.clone() }, emulator);
        preempted.add(0, &golden.text(3, 31), OUTPUT * 3);
        preempted.add(1, &prompts[0], OUTPUT);
        preempted.run();
        assert!(preempted.scheduler.num_preemptions() > 0, "the pool was not too small");
        assert_eq!(want, preempted.trace(1), "{model} after a preemption");
    }
}

/// The kernels that a decode step of the demo launches, and the tokens of its answer; `types`: those of weights that
/// few rows are multiplied with by `matvec`.
fn decode_step(emulator: &'static Emulator, types: Vec<WeightType>) -> (Vec<String>, Vec<u32>) {
    let launched = Arc::new(Mutex::new(Vec::new()));
    let noting = || {
        let launched = Arc::clone(&launched);
        watched(emulator, move |launches| {
            launched.lock().unwrap().extend(launches.iter().map(|launch| launch.kernel.clone()));
        })
    };
    let compute = GpuDevice::new(noting(), Device::Cpu).unwrap().with_matvec_types(types);
    let setup = Setup { compute: Some(Arc::new(compute)), ..Setup::new("models/demo", Tc4, Tc4) };
    let mut driver = Driver::with_backend(&setup, |layout, geometry, centring, _| {
        Box::new(GpuBackend::new(noting(), layout, geometry, &centring, AttendKernel::Mma).unwrap())
    });
    driver.largest = true;
    driver.add(0, &Golden::read("demo").text(0, 20), 4);
    driver.step();
    launched.lock().unwrap().clear();
    driver.step();
    let ran = std::mem::take(&mut *launched.lock().unwrap());
    driver.run();
    (ran, driver.trace(0).tokens)
}

/// Dispatches of a decode step, less those that are no layer's: what a dense layer costs a GPU beside its work. Where
/// few rows have a kernel of their own, rows are not packed, and the tokens are the same.
#[test]
fn a_dense_layer_takes_twelve_dispatches_and_ten_by_matvec() {
    let Some(emulator) = Emulator::fast() else { return };
    let layers = 8;
    let of = |ran: &[String], name: &str| ran.iter().filter(|kernel| kernel.starts_with(name)).count();
    let (exact, want) = decode_step(emulator, Vec::new());
    // The last norm, the head with its packing, the largest logit.
    let others = ["rms_norm", "top_slices", "top_rows"].map(|name| of(&exact, name)).iter().sum::<usize>() + 2;
    assert_eq!((of(&exact, "rms_norm"), of(&exact, "top_rows"), of(&exact, "matvec")), (1, 1, 0), "{exact:?}");
    assert_eq!(exact.len() - others, 12 * layers, "{exact:?}");
    let (fast, tokens) = decode_step(emulator, metal::multiplied_types());
    assert_eq!((of(&fast, "pack_rows"), of(&fast, "product")), (0, 0), "{fast:?}");
    assert_eq!(fast.len() - (others - 1), 10 * layers, "{fast:?}");
    assert_eq!(tokens, want);
}
