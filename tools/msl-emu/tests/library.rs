//! The kernels' text as a Mac compiles it: what can be launched, and what a compiler says of it that has Metal's
//! language as far as Linux has one: C++14, real address spaces, every warning an error.
#![allow(clippy::unwrap_used)] // helpers of tests
use metal::{Constant, Shape, source};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use turboquant::{Format, KvPair, PRESETS, RecordLayout};

const HEAD_DIMS: [usize; 6] = [64, 80, 96, 128, 256, 512];

const LINT: &[&str] = &[
    "-fsyntax-only",
    "-x",
    "c++",
    "-std=c++14",
    "-ffreestanding",
    "-nostdinc",
    "-fno-exceptions",
    "-fno-rtti",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wdouble-promotion",
    "-Wno-unused-parameter",
    "-Wno-unused-variable",
    "-Wno-unused-function",
    "-Wno-unknown-attributes",
    "-Wno-undefined-internal",
    "-Wno-undefined-inline",
    "-Wno-c++17-extensions",
];

fn shim() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("shim")
}

/// What clang++-19 answers to `text`. `None` without it, unless the emulator is required.
fn clang(arguments: &[&str], include: &Path, text: String) -> Option<Output> {
    let mut clang = Command::new("clang++-19");
    clang.args(arguments).arg("-I").arg(include).arg("-");
    let started = clang.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    if started.is_err() && std::env::var_os(msl_emu::REQUIRE).is_none() {
        println!("skipped: clang++-19 is missing");
        return None;
    }
    let mut clang = started.unwrap();
    let mut input = clang.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let output = clang.wait_with_output().unwrap();
    writer.join().unwrap();
    Some(output)
}

fn unit(text: String) -> Option<mslgen::Unit> {
    let arguments = ["-E", "-x", "c++", "-std=c++17", "-D__METAL_VERSION__=310", "-nostdinc"];
    let output = clang(&arguments, &shim().join("include"), text)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(mslgen::rewrite(&String::from_utf8(output.stdout).unwrap()).unwrap())
}

/// What the lint says of a text; nothing of one that is right.
fn lint(text: String) -> Option<String> {
    let rewritten = mslgen::emit(&unit(text)?, mslgen::Target::Lint, "library").unwrap();
    let output = clang(LINT, &shim(), rewritten)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    Some(said)
}

/// The names by which kernels of a library are launched.
fn names(head_dim: Option<usize>) -> Option<BTreeSet<String>> {
    let unit = unit(source::library(head_dim, &[]))?;
    for kernel in &unit.kernels {
        assert!(kernel.most_threads.is_some(), "{} does not say with how many threads it is launched", kernel.name);
    }
    Some(unit.instances.into_iter().map(|instance| instance.host_name).collect())
}

#[test]
fn a_library_for_one_head_size_has_the_kernels_of_that_size_by_their_names() {
    let Some(all) = names(None) else { return };
    for head_dim in HEAD_DIMS {
        let sized =
            |name: &str| name.split('_').any(|part| part.strip_prefix('d').is_some_and(|d| d.parse::<usize>().is_ok()));
        let own = |name: &str| name.split('_').any(|part| part == format!("d{head_dim}"));
        let want: BTreeSet<String> = all.iter().filter(|name| !sized(name) || own(name)).cloned().collect();
        assert!(want.len() > 5 && want.contains(&format!("write_d{head_dim}")), "{want:?}");
        assert_eq!(names(Some(head_dim)).unwrap(), want, "head size {head_dim}");
    }
}

#[test]
fn libraries_of_every_head_size_and_of_all_are_clean() {
    for head_dim in HEAD_DIMS.map(Some).into_iter().chain([None]) {
        let Some(said) = lint(source::library(head_dim, &[])) else { return };
        assert_eq!(said, "", "head size {head_dim:?}");
    }
}

/// The values of the function constants where K and V are stored as `pair` says.
fn constants(pair: KvPair, head_dim: usize, centred: bool, exact: bool) -> Vec<Constant> {
    let shape = Shape::new(RecordLayout::new(pair.k, pair.v, head_dim, 32).unwrap(), 8, 4);
    let window = centred.then_some(4096);
    Shape { keys_centred: centred, exact_groups: exact.then_some(1), window, ..shape }.constants()
}

/// Each kernel as it is compiled on a Mac: alone, with constants in place of function constants.
#[test]
fn kernels_with_the_constants_of_every_preset_are_clean() {
    let Some(names) = names(Some(128)) else { return };
    // Some kernels depend on no constant.
    let mut texts = BTreeSet::new();
    for preset in &PRESETS {
        let float = preset.pair.k == Format::Bf16;
        for (centred, exact) in [(false, false), (true, float)] {
            let constants = constants(preset.pair, 128, centred, exact);
            for name in &names {
                let text = source::of_kernel(name, &constants).unwrap();
                if texts.insert(text.clone()) {
                    assert_eq!(lint(text).unwrap(), "", "{name} of {}", preset.name);
                }
            }
        }
    }
}

/// A text that is wrong in one place.
fn planted(right: &str, wrong: &str) -> String {
    let text = source::library(Some(64), &[]);
    assert_eq!(text.matches(right).count(), 1, "{right}");
    text.replace(right, wrong)
}

#[test]
fn the_lint_finds_what_it_should() {
    for (right, wrong, what) in [
        ("device const float2* ml;", "thread const float2* ml;", "address space"),
        ("const float other = simd_shuffle_xor(x[e], m);", "const float other = 1.0f * dot(x[e]);", "dot"),
        ("const ulong start = ulong(row) * p.width;", "ulong start;", "uninitialized"),
    ] {
        let Some(said) = lint(planted(right, wrong)) else { return };
        assert!(said.contains(what), "{wrong}: {said}");
    }
}
