//! Compiles one kernel with its function constants by nvcc.
use super::Build;
use metal::{Constant, source};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::{env, fs, iter};

/// The numbers of nvcc's warnings about what Metal allows.
const QUIET: &str = "1097,20012,177,20044,2361,550";

/// Returns the name of a kernel's cubin: the kernel and the values of its function constants.
pub(crate) fn name(kernel: &str, constants: &[Constant]) -> String {
    let values = constants.iter().map(|constant| match constant {
        Constant::Bool(_, value) => u32::from(*value),
        Constant::Uint(_, value) => *value,
    });
    values.fold(kernel.to_owned(), |name, value| format!("{name}-{value}"))
}

/// Compiles a kernel to a cubin in `folder`, or lists how to. `NVCC` names the compiler, `CUDA_ARCH` the target (sm_90,
/// Hopper, if unset) and `CUDA_REGISTERS` the most registers of a thread.
pub(crate) fn compile(folder: &Path, kernel: &str, constants: &[Constant], build: Build) -> Result<(), String> {
    let name = name(kernel, constants);
    // A mark beside the cubin keeps two runs of `List` from listing it twice.
    let done = folder.join(format!("{name}.{}", if build == Build::Run { "cubin" } else { "listed" }));
    if done.exists() {
        return Ok(());
    }
    source(folder, kernel)?;
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim");
    let mut command = Command::new(env::var("NVCC").unwrap_or_else(|_| "nvcc".to_owned()));
    command.current_dir(folder).args(arguments(kernel, constants));
    command.arg(format!("{kernel}.cu")).arg("-o").arg(format!("{name}.cubin"));
    if build == Build::Run {
        return run(command.arg("-I").arg(shim)).map(|_| ());
    }
    let line: Vec<_> =
        iter::once(command.get_program()).chain(command.get_args()).map(|a| a.to_string_lossy()).collect();
    let mut commands =
        fs::OpenOptions::new().create(true).append(true).open(folder.join("commands")).map_err(|e| e.to_string())?;
    writeln!(commands, "{}", line.join(" ")).map_err(|e| e.to_string())?;
    fs::write(&done, "").map_err(|e| format!("{}: {e}", done.display()))
}

fn arguments(kernel: &str, constants: &[Constant]) -> Vec<String> {
    let arch = env::var("CUDA_ARCH").unwrap_or_else(|_| "sm_90".to_owned());
    // Fast math, as Metal's compiler has it.
    let fixed =
        ["-cubin", "-std=c++17", "-O3", "-use_fast_math", "-Xptxas", "-v", "-diag-suppress", QUIET, "-arch", &arch];
    let mut arguments = fixed.map(str::to_owned).to_vec();
    if let Some(registers) = env::var("CUDA_REGISTERS").ok().or_else(|| registers(kernel).map(str::to_owned)) {
        arguments.extend(["-maxrregcount".to_owned(), registers]);
    }
    arguments.extend(constants.iter().map(|constant| match constant {
        Constant::Bool(index, value) => format!("-DMSL_FC_{index}={value}"),
        Constant::Uint(index, value) => format!("-DMSL_FC_{index}={value}u"),
    }));
    arguments
}

/// Returns the most registers of a thread, for kernels to which ptxas gives more than is best. A multiprocessor then
/// runs 3 or 4 threadgroups of 128 threads, or 2 or 4 of 256.
fn registers(kernel: &str) -> Option<&'static str> {
    match kernel {
        _ if kernel.starts_with("prefill") => Some("128"),
        _ if kernel.starts_with("reduce_d128") => Some("64"),
        _ if !kernel.starts_with("attend") => None,
        _ if kernel.contains("_d64_") => Some("128"),
        _ if !kernel.contains("_d256") && !kernel.contains("_d512") => Some("168"),
        _ => None,
    }
}

/// Writes the library, rewritten for nvcc with that kernel alone.
fn source(folder: &Path, kernel: &str) -> Result<(), String> {
    let head_dim = kernel.split('_').find_map(|part| part.strip_prefix('d').and_then(|d| d.parse().ok()));
    let (msl, text) = (folder.join(format!("{kernel}.metal")), folder.join(format!("{kernel}.cu")));
    if text.exists() {
        return Ok(());
    }
    fs::write(&msl, source::library(head_dim, &[])).map_err(|e| format!("{}: {e}", msl.display()))?;
    let mut command = Command::new(env::var("MSL_CXX").unwrap_or_else(|_| "clang++-19".to_owned()));
    command.args(["-E", "-x", "c++", "-std=c++17", "-D__METAL_VERSION__=310", "-DMSL_CUDA", "-nostdinc", "-I"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("shim/include"));
    let preprocessed = run(command.arg(&msl))?;
    let mut unit = mslgen::rewrite(&preprocessed).map_err(|e| e.to_string())?;
    unit.instances.retain(|instance| instance.host_name == kernel);
    if unit.instances.is_empty() {
        return Err(format!("no kernel {kernel}"));
    }
    let rewritten = mslgen::emit(&unit, mslgen::Target::Cuda, kernel).map_err(|e| e.to_string())?;
    fs::write(&text, rewritten).map_err(|e| format!("{}: {e}", text.display()))
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{command:?}\n{errors}"));
    }
    // ptxas's lines about registers and spills.
    errors
        .lines()
        .filter(|line| line.contains("registers") || line.contains("spill"))
        .for_each(|line| println!("{line}"));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
