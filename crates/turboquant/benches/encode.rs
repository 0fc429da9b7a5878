//! `cargo bench -p turboquant --bench encode -- [seconds per cell] [d,..] [isa,..] [format,..]`: what storing a vector
//! costs, and the error that its format leaves.
//!
//! A cell stores new normal vectors over and over, K and V in one format. The least time of a round counts, which is
//! the one that other work on the machine disturbed least; the error is that of the first rounds, of the same vectors
//! for every format and instruction set.
#[path = "../tests/common/mod.rs"]
mod common;

use common::Rng;
use std::hint::black_box;
use std::time::{Duration, Instant};
use turboquant::{Format, Isa, Kernel, RecordLayout, Side};

/// Tokens of a record, each of which has a vector of K and one of V.
const TOKENS: usize = 32;
/// Rounds whose error is taken, of a record each.
const ROUNDS: usize = 256;

/// Microseconds a vector, and the squared error over the square.
fn measure(format: Format, isa: Isa, d: usize, limit: Duration) -> (f64, f64) {
    let layout = RecordLayout::new(format, format, d, TOKENS).expect("a layout");
    let kernel = Kernel::new(layout, isa);
    let (mut rng, mut record, mut decoded) = (Rng(7), vec![0; layout.bytes()], vec![0.0; d]);
    let (mut best, mut error, mut square) = (Duration::MAX, 0.0, 0.0);
    let (start, mut round) = (Instant::now(), 0);
    while round < ROUNDS || start.elapsed() < limit {
        let vectors: Vec<f32> = rng.vector(2 * TOKENS * d);
        let begin = Instant::now();
        for (slot, pair) in vectors.chunks_exact(2 * d).enumerate() {
            let (k, v) = pair.split_at(d);
            kernel.store(&mut record, slot, black_box(k), black_box(v));
        }
        best = best.min(begin.elapsed());
        for (i, x) in vectors.chunks_exact(d).enumerate().take(if round < ROUNDS { 2 * TOKENS } else { 0 }) {
            kernel.load(&record, i / 2, [Side::K, Side::V][i % 2], &mut decoded);
            error += x.iter().zip(&decoded).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
            square += x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        }
        round += 1;
    }
    (best.as_secs_f64() * 1e6 / (2 * TOKENS) as f64, error / square)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let list = |i: usize, all: &str| -> Vec<String> {
        args.get(i).map_or(all, String::as_str).split(',').map(str::to_owned).collect()
    };
    let seconds: f64 = args.first().map_or(0.5, |arg| arg.parse().expect("seconds"));
    let isas = Isa::available().into_iter().map(|isa| (format!("{isa:?}").to_lowercase(), isa));
    let chosen = list(2, "scalar,neon,avx2,avx512");
    for (name, isa) in isas.filter(|(name, _)| chosen.contains(name)) {
        for d in list(1, "64,128") {
            for format in list(3, "tq8,tc5,tc4,tc3,tc2") {
                let parsed = Format::parse(Side::V, &format).expect("a format");
                let d = d.parse().expect("a dimension");
                let (time, error) = measure(parsed, isa, d, Duration::from_secs_f64(seconds));
                println!("{name} d {d} {format}: {time:.3} us a vector, relative MSE {error:.6}");
            }
        }
    }
}
