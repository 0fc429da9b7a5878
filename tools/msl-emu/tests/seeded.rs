//! Each check finds a mistake planted for it (`kernels/seeded.metal`), and correct kernels pass.
use msl_emu::{Emulator, Fault, Stats};

fn run(kernel: &str, threads: usize, grid: usize) -> Option<Result<Stats, Fault>> {
    let mut y = vec![0f32; threads];
    Some(Emulator::checked()?.kernel(kernel).grid(grid, 1, 1).threads(threads).output(0, &mut y).run())
}

#[track_caller]
fn finds(kernel: &str, threads: usize, grid: usize, message: &str) {
    let Some(result) = run(kernel, threads, grid) else { return };
    let fault = result.expect_err("the mistake was not found").to_string();
    assert!(fault.contains(message) && fault.contains("thread"), "{fault}");
}

#[test]
fn out_of_bounds_buffer() {
    for emulator in [Emulator::checked(), Emulator::fast()].into_iter().flatten() {
        let (x, mut y) = ([1f32; 64], [0f32; 64]);
        let result = emulator.kernel("bug_oob").threads(64).buffer(0, &x).output(1, &mut y).run();
        let fault = result.expect_err("the mistake was not found").to_string();
        assert!(fault.contains("buffer(0) offset 256"), "{fault}");
    }
}

#[test]
fn out_of_bounds_threadgroup_memory() {
    finds("bug_oob_tg", 32, 1, "threadgroup 't' offset 128");
}

#[test]
fn races() {
    finds("bug_race", 64, 1, "race on t");
    finds("bug_simd_race", 32, 1, "race on t");
    finds("bug_xtg", 32, 2, "race on buffer");
}

#[test]
fn barrier_flags() {
    finds("bug_flags", 64, 1, "race on buffer");
    if let Some(result) = run("ok_simd_fence", 32, 1) {
        result.unwrap();
    }
}

#[test]
fn uninitialised_threadgroup_memory() {
    finds("bug_uninit", 64, 1, "uninitialised threadgroup memory 't'");
}

#[test]
fn divergence() {
    finds("bug_div_barrier", 64, 1, "divergent barrier");
    finds("bug_div_simd", 64, 1, "divergence");
}

#[test]
fn threadgroup_memory_limit() {
    finds("bug_tg32k", 32, 1, "32768");
}

#[test]
fn more_threads_than_a_kernel_says() {
    finds("bug_threads", 64, 1, "threadgroup of 64 threads (1..32)");
    if let Some(result) = run("bug_threads", 32, 1) {
        result.unwrap();
    }
}

#[test]
fn matrices_multiply() {
    let Some(emulator) = Emulator::checked() else { return };
    let (m, n, k) = (16, 24, 32);
    let half = |x: usize, of: usize| half::f16::from_f32((x % of) as f32 - (of / 2) as f32);
    let a: Vec<half::f16> = (0..m * k).map(|i| half(i, 13)).collect();
    let b: Vec<half::f16> = (0..k * n).map(|i| half(i, 7)).collect();
    let bits = |x: &[half::f16]| x.iter().map(|x| x.to_bits()).collect::<Vec<u16>>();
    let (a_bits, b_bits, mut c) = (bits(&a), bits(&b), vec![0f32; m * n]);
    let launch = emulator.kernel("mm8").grid(n / 8, m / 8, 1).buffer(0, &a_bits).buffer(1, &b_bits);
    launch.output(2, &mut c).buffer(3, &[m as u32, n as u32, k as u32, 0]).run().unwrap();
    for (i, c) in c.iter().enumerate() {
        let exact: f32 = (0..k).map(|q| a[i / n * k + q].to_f32() * b[q * n + i % n].to_f32()).sum();
        assert_eq!(*c, exact); // integers
    }
}

#[test]
fn atomics_and_prefix_sums() {
    let Some(emulator) = Emulator::checked() else { return };
    let x: Vec<u8> = (0..128u32).map(|i| (i * 7 % 256) as u8).collect();
    let sum = |range: std::ops::Range<usize>| x[range].iter().map(|v| u32::from(*v)).sum::<u32>();
    let (mut counts, mut prefix) = (vec![0u32; 257], vec![0u32; 128]);
    let launch = emulator.kernel("hist").grid(2, 1, 1).threads(64).threadgroup_memory(256).buffer(0, &x);
    launch.output(1, &mut counts).buffer(2, &[128u32]).output(3, &mut prefix).run().unwrap();
    assert_eq!((counts[..256].iter().sum::<u32>(), counts[256]), (128, sum(0..128)));
    (0..128).for_each(|i| assert_eq!(prefix[i], sum(i / 32 * 32..i)));
}

#[test]
fn types_swizzle_and_convert() {
    let Some(emulator) = Emulator::checked() else { return };
    let (u, mut o, mut packed) = ((0..128).collect::<Vec<u8>>(), [0f32; 128], [0f32; 96]);
    emulator.kernel("types").output(0, &mut o).buffer(1, &u).output(2, &mut packed).run().unwrap();
    // Lane 1: u = 4, 5, 6, 7; zw = (8, 7); xyz doubled is 8, 10, 16; plus (.75, 1, 4, 0).
    assert_eq!((&o[4..7], &packed[3..6], o[7]), (&[8.75, 11.0, 20.0][..], &[8.75, 11.0, 20.0][..], 9.75));
}
