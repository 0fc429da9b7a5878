//! The kernels on an NVIDIA GPU: `metal-cuda compile|check|bench FOLDER [filter]`.
//!
//! `compile` builds the cubins that the other two launch, on a machine without a GPU; `check` compares every kernel with f64; `bench`
//! prints the table of docs/kernels.md, `plain` the same without centring, `prefill` that of chunks.
mod bench;
mod check;
#[path = "../../../../metal/tests/common/mod.rs"]
mod common;
mod workload;

use msl_emu::cuda::CudaExecutor;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: metal-cuda compile|check|bench|plain|prefill FOLDER [filter]";

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
    match mode.as_str() {
        "compile" => {
            std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
            let compiler = || CudaExecutor::compiler(folder.clone());
            bench::decode(&compiler(), filter, true)?;
            bench::decode(&compiler(), filter, false)?;
            bench::prefill(&compiler(), filter)?;
            check::all(compiler, filter)
        }
        "check" => check::all(|| CudaExecutor::open(folder.clone()).unwrap_or_else(|e| panic!("{e}")), filter),
        "bench" => bench::decode(&open()?, filter, true),
        "plain" => bench::decode(&open()?, filter, false),
        "prefill" => bench::prefill(&open()?, filter),
        _ => Err(USAGE.to_owned()),
    }
}
