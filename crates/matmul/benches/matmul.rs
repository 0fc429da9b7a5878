//! Products of the shapes of small models, beside what the machine can do at most.
//!
//! `cargo bench -p matmul --bench matmul [-- FILTER...]`: every FILTER must occur in a line's name, such as `bf16`,
//! `"m=1 "` or `1024x3072` (n x k). `ISA=avx2` (scalar, avx512, neon) instead of the best instructions. Weights are
//! taken in turn from copies that exceed the caches, as the layers of a model are. The fastest call counts, which other
//! load on the machine disturbs least; `RAYON_NUM_THREADS=1` is steadier still.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use matmul::{Isa, Weight, WeightType, matmul_with};
use rayon::prelude::*;

#[path = "../tests/common/mod.rs"]
mod common;

/// Bytes of all the copies of a weight.
const WORKING_SET: usize = 256 << 20;
/// Bytes of a call that measures the reading of memory.
const READ: usize = 16 << 20;
const TIME: Duration = Duration::from_millis(400);

/// n x k.
const SHAPES: [(usize, usize); 5] = [(384, 1024), (576, 1536), (1536, 576), (1024, 3072), (3072, 1024)];
const ROWS: [usize; 6] = [1, 2, 4, 8, 64, 512];

fn main() {
    // In the pool, as a caller should be: from outside, each product would wake it first.
    rayon::ThreadPoolBuilder::new().build().expect("a pool").install(bench);
}

fn bench() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let isas: Vec<Isa> = match std::env::var("ISA") {
        Ok(name) => Isa::available().filter(|isa| format!("{isa:?}").eq_ignore_ascii_case(&name)).collect(),
        Err(_) => vec![Isa::best()],
    };
    let threads = rayon::current_num_threads();
    let peak = (threads * FMA_STEPS * FMA_CHAINS * 2) as f64 * fma_lanes() / fastest(peak_flops) / 1e9;
    let buffer: Vec<u64> = (0..WORKING_SET as u64 / 8).collect();
    let mut parts = buffer.chunks(READ / 8).cycle();
    let read = READ as f64 / fastest(|| read(parts.next().expect("a cycle"))) / 1e9;
    println!("{threads} threads, fused multiply-add {peak:.0} GFLOP/s, read {read:.1} GB/s");
    println!("{:44} {:>9} {:>8} {:>6} {:>7} {:>6}", "", "us", "GFLOP/s", "peak", "GB/s", "read");
    for isa in isas {
        for ty in WeightType::ALL {
            for (n, k) in SHAPES {
                let Some(row_bytes) = ty.row_bytes(k) else { continue };
                let names = ROWS.map(|m| format!("{isa:?} {ty} {n}x{k} m={m} ").to_lowercase());
                if !names.iter().any(|name| filters.iter().all(|f| name.contains(f.as_str()))) {
                    continue;
                }
                let bytes = weights(ty, WORKING_SET / (n * row_bytes) * n, k);
                for (m, name) in ROWS.into_iter().zip(names) {
                    if filters.iter().all(|f| name.contains(f.as_str())) {
                        product(isa, ty, (m, n, k), &bytes, &name, peak, read);
                    }
                }
            }
        }
    }
}

fn product(isa: Isa, ty: WeightType, (m, n, k): (usize, usize, usize), bytes: &[u8], name: &str, peak: f64, read: f64) {
    let size = ty.row_bytes(k).expect("whole blocks") * n;
    let x: Vec<f32> = (0..m * k).map(|i| ((i * 37 % 101) as f32 - 50.) / 50.).collect();
    let mut out = vec![0f32; m * n];
    let mut copies = bytes.chunks_exact(size).cycle();
    let seconds = fastest(|| {
        let w = Weight::new(ty, n, k, copies.next().expect("a cycle")).expect("a weight");
        matmul_with(isa, black_box(&x), w, black_box(&mut out));
    });
    let flops = (2 * m * n * k) as f64 / seconds / 1e9;
    let gb = size as f64 / seconds / 1e9;
    let us = 1e6 * seconds;
    println!("{name:44} {us:9.1} {flops:8.1} {:6.2} {gb:7.2} {:6.2}", flops / peak, gb / read);
}

/// `n` rows, of which each 64 are alike, of values within [-1, 1].
fn weights(ty: WeightType, n: usize, k: usize) -> Vec<u8> {
    let rows = common::stored(ty, k * 64, 1);
    rows.iter().copied().cycle().take(n * ty.row_bytes(k).expect("whole blocks")).collect()
}

/// Seconds of the fastest call.
fn fastest(mut work: impl FnMut()) -> f64 {
    let (start, mut fastest) = (Instant::now(), f64::MAX);
    while start.elapsed() < TIME {
        let call = Instant::now();
        work();
        fastest = fastest.min(call.elapsed().as_secs_f64());
    }
    fastest
}

/// Fused multiply-adds on registers, in every thread of the pool.
fn peak_flops() {
    rayon::broadcast(|_| black_box(fma_loop()));
}

const FMA_STEPS: usize = 1 << 14;
/// Enough independent chains for the latency of two units.
const FMA_CHAINS: usize = 12;

fn fma_lanes() -> f64 {
    match Isa::best() {
        Isa::Avx512 => 16.,
        Isa::Avx2 => 8.,
        Isa::Neon => 4.,
        Isa::Scalar => 1.,
    }
}

fn fma_loop() -> f32 {
    match Isa::best() {
        // SAFETY: the instructions are available, `Isa::best` says.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { fma_loop_avx512() },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { fma_loop_avx2() },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => fma_loop_neon(),
        _ => (0..FMA_STEPS * FMA_CHAINS).fold(0., |sum, _| black_box(0.5f32).mul_add(0.5, sum)),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn fma_loop_avx512() -> f32 {
    use std::arch::x86_64::*;
    let mut acc = [_mm512_set1_ps(1.); FMA_CHAINS];
    let (a, b) = black_box((_mm512_set1_ps(0.5), _mm512_set1_ps(0.25)));
    for _ in 0..FMA_STEPS {
        for acc in &mut acc {
            *acc = _mm512_fmadd_ps(*acc, a, b);
        }
    }
    acc.into_iter().map(|acc| _mm512_reduce_add_ps(acc)).sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fma_loop_avx2() -> f32 {
    use std::arch::x86_64::*;
    let mut acc = [_mm256_set1_ps(1.); FMA_CHAINS];
    let (a, b) = black_box((_mm256_set1_ps(0.5), _mm256_set1_ps(0.25)));
    for _ in 0..FMA_STEPS {
        for acc in &mut acc {
            *acc = _mm256_fmadd_ps(*acc, a, b);
        }
    }
    acc.into_iter().map(|acc| _mm256_cvtss_f32(acc)).sum()
}

#[cfg(target_arch = "aarch64")]
fn fma_loop_neon() -> f32 {
    use std::arch::aarch64::*;
    // SAFETY: every aarch64 processor has NEON.
    unsafe {
        let mut acc = [vdupq_n_f32(1.); FMA_CHAINS];
        let (a, b) = black_box((vdupq_n_f32(0.5), vdupq_n_f32(0.25)));
        for _ in 0..FMA_STEPS {
            for acc in &mut acc {
                *acc = vfmaq_f32(b, *acc, a);
            }
        }
        acc.into_iter().map(|acc| vaddvq_f32(acc)).sum()
    }
}

/// Reads with every thread.
fn read(buffer: &[u64]) {
    let parts = buffer.par_chunks(1 << 15);
    let sum = parts.map(|part| part.iter().fold(0u64, |sum, v| sum.wrapping_add(*v))).reduce(|| 0, u64::wrapping_add);
    black_box(sum);
}
