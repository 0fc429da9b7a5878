//! `mslgen cuda|cpu|lint in.metal out.cpp [flags for clang -E]` rewrites one file, by hand or from a script.
use mslgen::{Target, emit, rewrite};
use std::path::Path;
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: mslgen cpu|cuda|lint in.metal out.cpp [flags for clang -E]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("mslgen: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let [mode, input, output, flags @ ..] = arguments else { return Err(USAGE.to_owned()) };
    let target = match mode.as_str() {
        "cpu" => Target::Cpu,
        "cuda" => Target::Cuda,
        "lint" => Target::Lint,
        _ => return Err(format!("mode is {mode:?}; allowed: cpu, cuda, lint")),
    };
    let compiler = std::env::var("MSL_CXX").unwrap_or_else(|_| "clang++-19".to_owned());
    let mut command = Command::new(&compiler);
    command.args(["-E", "-x", "c++", "-std=c++17", "-D__METAL_VERSION__=310", "-nostdinc"]);
    command.args((target == Target::Cuda).then_some("-DMSL_CUDA")).args(flags).arg(input);
    let preprocessed = command.output().map_err(|e| format!("{compiler}: {e}"))?;
    if !preprocessed.status.success() {
        return Err(String::from_utf8_lossy(&preprocessed.stderr).into_owned());
    }
    let stem = Path::new(input).file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    let text = rewrite(&String::from_utf8_lossy(&preprocessed.stdout)).and_then(|unit| emit(&unit, target, &stem));
    let text = text.map_err(|e| format!("{input}: {e}"))?;
    std::fs::write(output, text).map_err(|e| format!("{output}: {e}"))
}
