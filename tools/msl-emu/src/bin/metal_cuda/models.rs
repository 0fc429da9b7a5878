//! Whole models on the GPU, driven step by step as the engine's tests drive them, against the CPU.
//!
//! Tensors pass through the CPU between launches, so that a run tells what a GPU computes and not how fast.
use crate::check::Open;
use crate::driver::{Driver, Setup, Trace};
use candle_core::Device;
use matmul::WeightType;
use metal::{AttendKernel, GpuBackend, GpuDevice};
use msl_emu::cuda::CudaExecutor;
use std::sync::Arc;
use testkit::Golden;
use turboquant::Format::{self, F16, Tc4};

/// One of every family whose head size has kernels.
const FAMILIES: [&str; 7] =
    ["tiny-llama31", "tiny-smollm3", "tiny-qwen2", "tiny-qwen3", "tiny-qwen3moe", "tiny-qwen35", "tiny-qwen35moe"];
/// Trained models.
const TRAINED: [&str; 2] = ["demo", "eval"];
/// Quantised ones of `fixtures/gguf`, each with the model whose texts it is given.
const QUANTISED: [(&str, &str); 2] =
    [("tiny-qwen2-mixed.gguf", "tiny-qwen2"), ("tiny-qwen3moe-q8_0.gguf", "tiny-qwen3moe")];
/// Tokens of an answer.
const OUTPUT: usize = 32;
/// The numbers of requests that a batch has.
const BATCHES: [usize; 3] = [2, 4, 8];
/// The lengths of long prompts, which the trained models take in chunks of 512 tokens.
const LONG: [usize; 2] = [512, 4000];

/// A model, the texts that it is given, and the format of its K and V.
struct Case {
    name: String,
    setup: Setup,
    golden: Golden,
    is_trained: bool,
    /// Whether the CPU rounds as little as the GPU. Where K and V are coded, whole codes differ where two devices round
    /// differently; with quantised weights, the CPU rounds rows of activations to 8 bits.
    is_near_cpu: bool,
}

impl Case {
    fn new(path: &str, texts: &str, format: Format) -> Self {
        let name = format!("{} {}", path.rsplit('/').next().unwrap_or(path), format.name());
        let is_trained = TRAINED.contains(&texts);
        let (setup, golden) = (Setup::new(path, format, format), Golden::read(texts));
        let is_near_cpu = format == F16 && !path.ends_with(".gguf");
        Case { name, setup, golden, is_trained, is_near_cpu }
    }
}

/// The device on the GPU; `types`: those of weights that few rows are multiplied with by `matvec`.
fn on_gpu(open: Open<'_>, setup: &Setup, types: Vec<WeightType>) -> Driver {
    let executor = || -> CudaExecutor { open() };
    let compute = GpuDevice::new(executor(), Device::Cpu).unwrap_or_else(|e| panic!("{}: {e}", setup.model));
    let setup = Setup { compute: Some(Arc::new(compute.with_matvec_types(types))), ..setup.clone() };
    Driver::with_backend(&setup, |layout, geometry, centring, _| {
        let backend = GpuBackend::new(executor(), layout, geometry, &centring, AttendKernel::Mma);
        Box::new(backend.unwrap_or_else(|e| panic!("{}: {e}", setup.model)))
    })
}

/// The traces of requests that are computed together.
fn answers(mut driver: Driver, prompts: &[Vec<u32>], output: usize) -> Vec<Trace> {
    prompts.iter().enumerate().for_each(|(key, prompt)| driver.add(key as u64, prompt, output));
    driver.run();
    (0..prompts.len()).map(|key| driver.trace(key as u64)).collect()
}

/// How far a token of the GPU may be from the CPU's likeliest, as a share of the largest logit: the two devices' logits
/// differ by up to 2e-3 of it each way, since products round rows to halves and attention its queries, and by 1.2e-2 in
/// models of recurrent layers (`crates/engine/tests/parity.rs`).
fn tie(name: &str) -> f32 {
    if name.contains("qwen35") { 2.4e-2 } else { 4e-3 }
}

/// Says whether the tokens are those wanted, or at the first that is not whether the CPU's logits of both were a tie.
/// What follows such a token belongs to another text. Without a device the tokens mean nothing.
fn compare(name: &str, runs: bool, got: &[Trace], want: &[Trace]) -> Result<(), String> {
    let (mut equal, mut ties) = (0, 0);
    for (i, (got, want)) in got.iter().zip(want).enumerate().filter(|_| runs) {
        let first = got.tokens.iter().zip(&want.tokens).position(|(got, want)| got != want);
        equal += first.unwrap_or(got.tokens.len());
        let Some(at) = first else { continue };
        ties += 1;
        // The position of the token before.
        let position = want.logits.keys().nth(at).ok_or("no logits")?;
        let logits = want.logits_at(*position);
        let largest = logits.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let gap = (logits[want.tokens[at] as usize] - logits[got.tokens[at] as usize]) / largest;
        if gap > tie(name) {
            return Err(format!(
                "{name}: request {i}, token {at}: {} for {}, whose logits differ by {gap:.1e} of the largest",
                got.tokens[at], want.tokens[at]
            ));
        }
    }
    if runs && !want.is_empty() {
        println!("{name}: {equal} tokens equal, {ties} answers part at a tie");
    }
    Ok(())
}

/// Says whether tokens and logits are those wanted, bit by bit.
fn same_bits(name: &str, runs: bool, got: &[Trace], want: &[Trace]) -> Result<(), String> {
    match got.iter().zip(want).position(|(got, want)| got != want) {
        Some(i) if runs => Err(format!("{name}: request {i} has other bits than alone")),
        _ => {
            println!("{name}: equal bits");
            Ok(())
        }
    }
}

/// A model's answers alone against the CPU's, in batches against those alone, and to long prompts against the CPU's.
fn check(open: Open<'_>, case: &Case, runs: bool) -> Result<(), String> {
    let Case { name, setup, golden, is_trained, is_near_cpu } = case;
    let each_alone = |driver: &dyn Fn() -> Driver, prompts: &[Vec<u32>]| -> Vec<Trace> {
        prompts.iter().flat_map(|prompt| answers(driver(), std::slice::from_ref(prompt), OUTPUT)).collect()
    };
    let exact = || on_gpu(open, setup, Vec::new());
    let cpu = |prompts: &[Vec<u32>]| match runs && *is_near_cpu {
        true => each_alone(&|| Driver::new(setup), prompts),
        false => Vec::new(),
    };
    let prompts: Vec<Vec<u32>> = (0..8).map(|i| golden.text(3 * i, 9 + 5 * i)).collect();
    let (alone, want) = (each_alone(&exact, &prompts), cpu(&prompts));
    compare(&format!("{name}, alone"), runs, &alone, &want)?;
    let few = each_alone(&|| on_gpu(open, setup, metal::multiplied_types()), &prompts);
    compare(&format!("{name}, alone by matvec"), runs, &few, &want)?;
    for count in BATCHES {
        let got = answers(exact(), &prompts[..count], OUTPUT);
        same_bits(&format!("{name}, {count} together"), runs, &got, &alone)?;
    }
    for len in LONG.into_iter().filter(|_| *is_trained) {
        let prompt = [golden.text(0, len)];
        compare(&format!("{name}, a prompt of {len}"), runs, &each_alone(&exact, &prompt), &cpu(&prompt))?;
    }
    Ok(())
}

/// Runs what `each` does with each model whose name contains `filter`.
fn of_models(open: Open<'_>, filter: &str, each: impl Fn(&Case, bool) -> Result<(), String>) -> Result<(), String> {
    let runs = open().device().is_some();
    let folders = TRAINED.into_iter().chain(FAMILIES).map(|name| (format!("models/{name}"), name));
    let files = QUANTISED.into_iter().map(|(file, texts)| (format!("fixtures/gguf/{file}"), texts));
    let cases = folders.chain(files).flat_map(|(path, texts)| [F16, Tc4].map(|format| Case::new(&path, texts, format)));
    let errors = cases.filter(|case| case.name.contains(filter)).filter_map(|case| each(&case, runs).err());
    let errors: Vec<String> = errors.collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("\n")) }
}

/// Every bundled model, alone, in batches and with long prompts.
pub fn all(open: Open<'_>, filter: &str) -> Result<(), String> {
    of_models(open, filter, |case, runs| check(open, case, runs))
}

/// A prompt's step and one that decodes two sequences, of each model: what compute-sanitizer goes through.
pub fn steps(open: Open<'_>, filter: &str) -> Result<(), String> {
    of_models(open, filter, |case, _| {
        let prompts = [case.golden.text(0, 37), case.golden.text(5, 6)];
        let tokens: Vec<_> =
            answers(on_gpu(open, &case.setup, Vec::new()), &prompts, 2).into_iter().map(|t| t.tokens).collect();
        println!("{}: {tokens:?}", case.name);
        Ok(())
    })
}
