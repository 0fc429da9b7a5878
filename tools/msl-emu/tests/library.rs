//! The library as a Mac compiles it: all files in one text, for one head size or for all.
#![allow(clippy::unwrap_used)] // helpers of tests
use metal::source;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The names by which kernels of a library are launched. `None` without clang++-19, unless the emulator is required.
fn names(head_dim: Option<usize>) -> Option<BTreeSet<String>> {
    let mut clang = Command::new("clang++-19");
    clang.args(["-E", "-x", "c++", "-std=c++17", "-D__METAL_VERSION__=310", "-nostdinc", "-I"]);
    clang.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("shim/include")).arg("-");
    let started = clang.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    if started.is_err() && std::env::var_os(msl_emu::REQUIRE).is_none() {
        println!("skipped: clang++-19 is missing");
        return None;
    }
    let mut clang = started.unwrap();
    let mut input = clang.stdin.take().unwrap();
    let text = source::library(head_dim);
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let output = clang.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let unit = mslgen::rewrite(&String::from_utf8(output.stdout).unwrap()).unwrap();
    Some(unit.instances.into_iter().map(|instance| instance.host_name).collect())
}

#[test]
fn a_library_for_one_head_size_has_the_kernels_of_that_size_by_their_names() {
    let Some(all) = names(None) else { return };
    for head_dim in [64, 80, 96, 128, 256, 512] {
        let sized =
            |name: &str| name.split('_').any(|part| part.strip_prefix('d').is_some_and(|d| d.parse::<usize>().is_ok()));
        let own = |name: &str| name.split('_').any(|part| part == format!("d{head_dim}"));
        let want: BTreeSet<String> = all.iter().filter(|name| !sized(name) || own(name)).cloned().collect();
        assert!(want.len() > 5 && want.contains(&format!("write_d{head_dim}")), "{want:?}");
        assert_eq!(names(Some(head_dim)).unwrap(), want, "head size {head_dim}");
    }
}
