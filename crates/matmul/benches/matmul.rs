//! Products of the shapes of small models, beside what the machine can do at most.
//!
//! `cargo bench -p matmul [-- FILTER...]`: every FILTER must occur in a line's name, such as `bf16 m=1 ` or `1024x3072`.
//! Weights are taken in turn from copies that exceed the caches, as the layers of a model are. Other load on the machine
//! shows: the fastest of several rounds is printed.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use matmul::{Isa, Weight, WeightType, matmul_with, quantize};
use rayon::prelude::*;

/// Bytes of all the copies of a weight.
const WORKING_SET: usize = 256 << 20;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(60);

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
    let peak = best(|| time(|| peak_flops()));
    let read = best(|| time(|| read_bytes()));
    println!("{} threads, fused multiply-add {peak:.0} GFLOP/s, read {read:.1} GB/s", rayon::current_num_threads());
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

fn product(
    isa: Isa,
    ty: WeightType,
    (m, n, k): (usize, usize, usize),
    bytes: &[u8],
    name: &str,
    peak: f64,
    read: f64,
) {
    let size = ty.row_bytes(k).expect("whole blocks") * n;
    let x: Vec<f32> = (0..m * k).map(|i| ((i * 37 % 101) as f32 - 50.) / 50.).collect();
    let mut out = vec![0f32; m * n];
    let mut copies = bytes.chunks_exact(size).cycle();
    let per_second = best(|| {
        time(|| {
            let w = Weight::new(ty, n, k, copies.next().expect("a cycle")).expect("a weight");
            matmul_with(isa, black_box(&x), w, black_box(&mut out));
            1e-9
        })
    }) * 1e9;
    let flops = per_second * (2 * m * n * k) as f64 / 1e9;
    let gb = per_second * size as f64 / 1e9;
    let us = 1e6 / per_second;
    println!("{name:44} {us:9.1} {flops:8.1} {:6.2} {gb:7.2} {:6.2}", flops / peak, gb / read);
}

/// `n` rows of a pattern whose products stay finite.
fn weights(ty: WeightType, n: usize, k: usize) -> Vec<u8> {
    let values: Vec<f32> = (0..k * 64).map(|i| ((i * 53 % 211) as f32 - 105.) / 105.).collect();
    let rows = quantize(ty, &values).expect("whole blocks");
    rows.iter().copied().cycle().take(n * ty.row_bytes(k).expect("whole blocks")).collect()
}

fn best(mut round: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| round()).fold(0., f64::max)
}

/// 1e9 of what `work` returns per second, over one round.
fn time(mut work: impl FnMut() -> f64) -> f64 {
    let (start, mut done) = (Instant::now(), 0.);
    while start.elapsed() < ROUND {
        done += work();
    }
    done / start.elapsed().as_secs_f64()
}

/// Fused multiply-adds on registers, in every thread of the pool; returns 1e9 operations.
fn peak_flops() -> f64 {
    rayon::broadcast(|_| black_box(fma_loop())).len() as f64 * (FMA_STEPS * FMA_CHAINS * 2) as f64 * fma_lanes() / 1e9
}

const FMA_STEPS: usize = 1 << 20;
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

/// Reads a buffer larger than the caches with every thread; returns 1e9 bytes.
fn read_bytes() -> f64 {
    use std::sync::OnceLock;
    static BUFFER: OnceLock<Vec<u64>> = OnceLock::new();
    let buffer = BUFFER.get_or_init(|| (0..WORKING_SET as u64 / 8).collect());
    let parts = buffer.par_chunks(1 << 16);
    let sum = parts.map(|part| part.iter().fold(0u64, |sum, v| sum.wrapping_add(*v))).reduce(|| 0, u64::wrapping_add);
    black_box(sum);
    WORKING_SET as f64 / 1e9
}
