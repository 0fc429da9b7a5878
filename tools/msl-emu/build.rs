//! Compiles each `.metal` file, through `clang -E` and `mslgen` to C++, to two shared objects, a fast one and a checked
//! one. Without clang 19, or on another processor than x86-64, nothing is compiled, and tests say that they are
//! skipped.
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs};

const FLAGS: &[&str] = &[
    "-std=c++17",
    "-O2",
    "-g1",
    "-fPIC",
    "-mavx2",
    "-mf16c",
    "-mfma",
    "-ffp-contract=off",
    "-Xclang",
    "-ffloat16-excess-precision=none",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-strict-aliasing",
    "-Wall",
    "-Wno-unknown-attributes",
    "-Wno-duplicate-decl-specifier",
    "-fvisibility=hidden",
];
/// The most copies of a library. Each serves one test at a time.
const MOST_COPIES: usize = 4;
const RUNTIME: &[&str] = &["msl_launch.cpp", "msl_fibers.cpp", "msl_memory.cpp"];
/// The flags of the checked library. Vectorised accesses wider than 16 bytes would escape the instrumentation.
const CHECKED_FLAGS: &[&str] = &["-fsanitize=thread", "-fno-vectorize", "-fno-slp-vectorize"];

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn main() {
    let own = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let (shim, kernels) = (own.join("shim"), own.join("../../kernels"));
    let folders = [own.join("kernels"), kernels];
    folders.iter().chain([&shim]).for_each(|folder| println!("cargo:rerun-if-changed={}", folder.display()));
    ["MSL_CXX", "MSL_CXXFLAGS", "PATH"].iter().for_each(|name| println!("cargo:rerun-if-env-changed={name}"));
    let compiler = env::var("MSL_CXX").unwrap_or_else(|_| "clang++-19".to_owned());
    let found = Command::new(&compiler).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        // A file that is never there: look again at the next build.
        println!("cargo:rerun-if-changed={}", out.join("no-compiler").display());
    }
    if !found || env::var("TARGET").is_ok_and(|target| target != "x86_64-unknown-linux-gnu") {
        return;
    }
    let mut sources: Vec<_> = RUNTIME.iter().map(|name| (shim.join(name), false)).collect();
    let mut registry = String::new();
    for file in folders.iter().flat_map(|folder| metal_files(folder)) {
        let stem = file.file_stem().expect("a file").to_string_lossy().into_owned();
        let mut command = Command::new(&compiler);
        command.args(["-E", "-x", "c++", "-std=c++17", "-D__METAL_VERSION__=310", "-DMSL_EMULATOR", "-nostdinc", "-I"]);
        let text = run(command.arg(shim.join("include")).arg("-I").arg(&folders[1]).arg(&file));
        let unit = mslgen::rewrite(&String::from_utf8_lossy(&text));
        let text = unit.and_then(|unit| mslgen::emit(&unit, mslgen::Target::Cpu, &stem));
        let source = out.join(format!("{stem}.cpp"));
        fs::write(&source, text.unwrap_or_else(|e| panic!("{}: {e}", file.display()))).expect("OUT_DIR is writable");
        registry += &format!("extern \"C\" void msl_register_{stem}();\n");
        sources.push((source, true));
    }
    let calls: String = registry.lines().map(|line| line.replace("extern \"C\" void ", "  ") + "\n").collect();
    registry +=
        &format!("extern \"C\" __attribute__((visibility(\"default\"))) void msl_register_all() {{\n{calls}}}\n");
    fs::write(out.join("registry.cpp"), registry).expect("OUT_DIR is writable");
    sources.push((out.join("registry.cpp"), false));
    let jobs: Vec<_> =
        [true, false].into_iter().flat_map(|checked| sources.iter().map(move |s| (s, checked))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(((source, is_kernel), checked)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            compile(&compiler, source, *is_kernel, &shim, &out, *checked);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..cores).for_each(|_| drop(scope.spawn(work)));
    });
    let copies = cores.min(MOST_COPIES);
    [false, true].into_iter().for_each(|checked| link(&compiler, &sources, &out, checked, copies));
    println!("cargo:rustc-env=MSL_EMU_COPIES={copies}");
    println!("cargo:rustc-env=MSL_EMU_DIR={}", out.display());
}

/// The `.metal` files of a folder and of those below it.
fn metal_files(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    let (folders, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "metal"));
    files.chain(folders.iter().flat_map(|folder| metal_files(folder))).collect()
}

fn name(checked: bool) -> &'static str {
    if checked { "checked" } else { "fast" }
}

fn object(source: &Path, out: &Path, checked: bool) -> PathBuf {
    // The flags are part of the name, so that a build with others, as for fast math, leaves these objects as they are.
    let flags = env::var("MSL_CXXFLAGS").unwrap_or_default().replace(|c: char| !c.is_alphanumeric(), "");
    out.join(source.with_extension(format!("{}{flags}.o", name(checked))).file_name().expect("a file"))
}

fn compile(compiler: &str, source: &Path, is_kernel: bool, shim: &Path, out: &Path, checked: bool) {
    let mut command = Command::new(compiler);
    command.args(FLAGS).arg("-I").arg(shim).args(checked.then_some("-DMSL_CHECKED=1"));
    if is_kernel {
        command.args(env::var("MSL_CXXFLAGS").unwrap_or_default().split_whitespace());
        command.args(if checked { CHECKED_FLAGS } else { &[] });
    }
    let object = object(source, out, checked);
    command.arg("-c").arg(source).arg("-o").arg(&object);
    let (made_of, key) = (object.with_extension("made-of"), fingerprint(compiler, &command, source, shim));
    if object.exists() && fs::read_to_string(&made_of).is_ok_and(|old| old == key) {
        return;
    }
    run(&mut command);
    fs::write(made_of, key).expect("OUT_DIR is writable");
}

/// Returns a hash of all that an object is made of: the compiler, its command line, the source and the shim.
fn fingerprint(compiler: &str, command: &Command, source: &Path, shim: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    run(Command::new(compiler).arg("--version")).hash(&mut hasher);
    format!("{command:?}").hash(&mut hasher);
    let mut files: Vec<_> = fs::read_dir(shim).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
        .iter()
        .map(PathBuf::as_path)
        .chain([source])
        .for_each(|file| fs::read(file).unwrap_or_default().hash(&mut hasher));
    format!("{:016x}", hasher.finish())
}

fn link(compiler: &str, sources: &[(PathBuf, bool)], out: &Path, checked: bool, copies: usize) {
    let library = |i: usize| out.join(format!("libmsl_{}.{i}.so", name(checked)));
    let mut command = Command::new(compiler);
    command.args(["-shared", "-Wl,-Bsymbolic", "-Wl,-z,now"]);
    command.args(sources.iter().map(|(source, _)| object(source, out, checked)));
    run(command.arg("-o").arg(library(0)));
    for i in 1..copies {
        fs::copy(library(0), library(i)).expect("OUT_DIR is writable");
    }
}
