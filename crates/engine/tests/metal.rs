//! Models computed as on a GPU, by the Metal kernels' own text in the emulator.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;

use candle_core::{Device, Tensor};
use common::{Driver, Setup, alone, emulated};
use matmul::WeightType;
use metal::{AttendKernel, ExecError, Executor, GpuBackend, GpuDevice, Launch};
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
    check("tiny-smollm3", Tq8, Tq8, &[AttendKernel::Mma, AttendKernel::Vec], 16);
    check("demo", Tc4, Tc4, &[AttendKernel::Mma, AttendKernel::Vec], 4);
}

/// Qwen3: with a norm over each head of q and k.
#[test]
fn heads_are_normed_by_the_kernels() {
    check("tiny-qwen3", Tq8, Tq8, &[AttendKernel::Mma], 8);
}

/// Mixtures and recurrent layers.
#[test]
fn mixtures_and_recurrent_layers_run() {
    check("tiny-qwen35moe", Tq8, Tq8, &[AttendKernel::Mma], 16);
}

/// Chunks, company, preemption and a known prefix change no bit of a request's logits: neither do attention's kernels
/// nor those of products, norms and the rest. The two models have every kind of layer: with and without RoPE, with
/// norms of q and k and an output gate, delta nets, dense blocks, mixtures and a shared expert.
#[test]
fn answers_do_not_depend_on_company() {
    const OUTPUT: usize = 6;
    let Some(emulator) = Emulator::fast() else { return };
    for model in ["tiny-smollm3", "tiny-qwen35moe"] {
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
        if model == "tiny-qwen35moe" {
            // What was computed before goes on behind a snapshot of the states.
            let mut known = driver(&Setup { prefix_cache: Some(4), ..setup.clone() }, emulator);
            known.report(0, &prompts[0], OUTPUT);
            assert!(known.report(1, &prompts[0], OUTPUT).reused() > 0);
            assert_eq!(want, known.trace(1), "{model} behind a known prefix");
        }
    }
}

/// What the rows of a draft yield has the bits that rows alone have, and states that have taken in a rejected draft are
/// put back.
#[test]
fn drafts_yield_what_decoding_does() {
    let Some(emulator) = Emulator::fast() else { return };
    for model in ["tiny-smollm3", "tiny-qwen35moe"] {
        let setup = Setup { drawn_tokens: Some(2), ..Setup::new(&format!("models/{model}"), Tc4, Tc4) };
        let answer = |max_draft_tokens: usize| {
            let mut driver = driver(&Setup { max_draft_tokens, ..setup.clone() }, emulator);
            driver.add(0, &Golden::read(model).text(1, 20), 16);
            driver.run();
            (driver.trace(0), driver.drafts)
        };
        let ((want, none), (got, (drafted, accepted))) = (answer(0), answer(4));
        assert_eq!(got, want, "{model}");
        assert!(none == (0, 0) && 0 < accepted && accepted < drafted, "{model}: {accepted} of {drafted}");
    }
}

/// The emulator as a device that notes the kernels of its launches, and counts how often it is waited for: a tensor is
/// read where one has looked whether the device failed, and bytes are downloaded.
struct Counted {
    inner: EmulatorExecutor,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    kernels: Vec<String>,
    waits: usize,
}

impl Executor for Counted {
    type Buffer = Memory;

    fn failure(&self) -> Option<ExecError> {
        self.counts.lock().unwrap().waits += 1;
        None
    }
    fn create(&self, bytes: usize) -> Result<Memory, ExecError> {
        self.inner.create(bytes)
    }
    fn upload(&self, buffer: &Memory, offset: usize, bytes: &[u8]) -> Result<(), ExecError> {
        self.inner.upload(buffer, offset, bytes)
    }
    fn download(&self, buffer: &Memory, offset: usize, out: &mut [u8]) -> Result<(), ExecError> {
        self.counts.lock().unwrap().waits += 1;
        self.inner.download(buffer, offset, out)
    }
    fn run(&self, launches: &[Launch<'_, Memory>]) -> Result<(), ExecError> {
        self.counts.lock().unwrap().kernels.extend(launches.iter().map(|launch| launch.kernel.clone()));
        self.inner.run(launches)
    }
    fn export(&self, buffer: &Memory, shape: &[usize], device: &Device) -> candle_core::Result<Tensor> {
        self.inner.export(buffer, shape, device)
    }
}

/// The kernels that a decode step of a model launches, how often it waits, and the tokens of the answer; `types`: those
/// of weights that few rows are multiplied with by `matvec`.
fn decode_step(emulator: &'static Emulator, model: &str, types: Vec<WeightType>) -> (Counts, Vec<u32>) {
    let counts = Arc::new(Mutex::new(Counts::default()));
    let counted = || Counted { inner: EmulatorExecutor { emulator, order: 0 }, counts: Arc::clone(&counts) };
    let compute = GpuDevice::new(counted(), Device::Cpu).unwrap().with_matvec_types(types);
    let setup = Setup { compute: Some(Arc::new(compute)), ..Setup::new(&format!("models/{model}"), Tc4, Tc4) };
    let mut driver = Driver::with_backend(&setup, |layout, geometry, centring, _| {
        Box::new(GpuBackend::new(counted(), layout, geometry, &centring, AttendKernel::Mma).unwrap())
    });
    driver.largest = true;
    driver.add(0, &Golden::read(model).text(0, 20), 4);
    driver.step();
    *counts.lock().unwrap() = Counts::default();
    driver.step();
    let of_step = std::mem::take(&mut *counts.lock().unwrap());
    driver.run();
    (of_step, driver.trace(0).tokens)
}

/// What a decode step costs a GPU beside its work, family by family: dispatches, those of each layer and five that are
/// no layer's (the last norm, the head with its packing, the largest logit in two), and one wait.
#[test]
fn a_step_waits_once_and_takes_as_many_dispatches_as_its_layers() {
    let Some(emulator) = Emulator::fast() else { return };
    // Llama's layers; those of Qwen3 with their norms of q and k and a mixture; three of Qwen3.5 with a delta net to
    // one of attention, with a gate on its output.
    for (model, layers) in [
        ("demo", 8 * 12),
        ("tiny-qwen3moe", 4 * (10 + 9)),
        ("tiny-qwen35", 6 * 13 + 2 * 15),
        ("tiny-qwen35moe", 24 + 28),
    ] {
        let (Counts { kernels, waits }, want) = decode_step(emulator, model, Vec::new());
        let of = |name: &str| kernels.iter().filter(|kernel| kernel.starts_with(name)).count();
        assert_eq!((waits, kernels.len(), of("matvec")), (1, layers + 5, 0), "{model}: {kernels:?}");
        if model != "demo" {
            continue;
        }
        // Where few rows have a kernel of their own, rows are not packed, and the tokens are the same.
        let (Counts { kernels, waits }, tokens) = decode_step(emulator, model, metal::multiplied_types());
        let of = |name: &str| kernels.iter().filter(|kernel| kernel.starts_with(name)).count();
        assert_eq!((waits, of("pack_rows"), of("product")), (1, 0, 0), "{kernels:?}");
        assert_eq!(kernels.len(), 8 * 10 + 4, "{kernels:?}");
        assert_eq!(tokens, want);
    }
}
