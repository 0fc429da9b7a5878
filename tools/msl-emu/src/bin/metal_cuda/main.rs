//! The kernels on an NVIDIA GPU: `metal-cuda MODE FOLDER [filter]`.
//!
//! `compile` builds the cubins that the others launch, on a machine without a GPU; `sources` writes what nvcc makes
//! them from and its command lines, for a machine with more cores. `check` compares every kernel with f64, `cover` is
//! its part for compute-sanitizer; `bench` prints the table of docs/kernels-log.md, `plain` the same without centring,
//! `floats` with keys stored as floats centred too, `prefill` that of chunks, `write` that of storing tokens,
//! `products` that of products with weights. `models` answers with every bundled model as the CPU does, `steps` is its
//! part for compute-sanitizer.
mod bench;
mod check;
#[path = "../../../tests/common/mod.rs"]
mod common;
#[path = "../../../../../crates/engine/tests/common/mod.rs"]
mod driver;
mod models;
mod products;
mod workload;

use workload::Centred;

use msl_emu::cuda::{Build, CudaExecutor};
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: metal-cuda MODE FOLDER [filter]; modes: compile, sources, check, cover, bench, plain, \
                     floats, prefill, write, products, models, steps";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("metal-cuda: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let [mode, folder, rest @ ..] = arguments else { return Err(USAGE.to_owned()) };
    let (folder, filter) = (PathBuf::from(folder), rest.first().map_or("", String::as_str));
    let open = || CudaExecutor::open(folder.clone()).map_err(|e| e.to_string());
    let must_open = || open().unwrap_or_else(|e| panic!("{e}"));
    match mode.as_str() {
        "compile" | "sources" => {
            std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
            let build = if mode == "compile" { Build::Run } else { Build::List };
            let compiler = || CudaExecutor::compiler(folder.clone(), build);
            for centred in [Centred::Coded, Centred::Nothing, Centred::Floats] {
                bench::decode(&compiler(), filter, centred)?;
            }
            bench::prefill(&compiler(), filter)?;
            bench::write(&compiler(), filter)?;
            products::table(&compiler(), filter)?;
            check::all(&compiler, filter)?;
            check::covering(&compiler, filter)?;
            models::steps(&compiler, filter)?;
            models::all(&compiler, filter)
        }
        "check" => check::all(&must_open, filter),
        "cover" => check::covering(&must_open, filter),
        "bench" => bench::decode(&open()?, filter, Centred::Coded),
        "plain" => bench::decode(&open()?, filter, Centred::Nothing),
        "floats" => bench::decode(&open()?, filter, Centred::Floats),
        "write" => bench::write(&open()?, filter),
        "prefill" => bench::prefill(&open()?, filter),
        "products" => products::table(&open()?, filter),
        "models" => models::all(&must_open, filter),
        "steps" => models::steps(&must_open, filter),
        _ => Err(USAGE.to_owned()),
    }
}
