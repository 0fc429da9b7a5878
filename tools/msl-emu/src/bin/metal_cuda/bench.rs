//! Times of attention, in ratios to the best 16-bit kernel of the same run.
use crate::workload::{Attention, Centred, GROUP, KV_HEADS, Store, Workload};
use metal::{AttendKernel, Executor, Launch};
use msl_emu::cuda::{CudaExecutor, Memory};
use std::collections::BTreeMap;
use turboquant::Format::{self, *};

const PAIRS: [(Format, Format); 7] =
    [(F16, F16), (Bf16, Bf16), (Tq8, Tc4), (Tc5, Tc5), (Tc4, Tc4), (Tc4, Tc3), (Tc3, Tc3)];
/// Tokens that a launch of `write` stores: a decoding step's, a batch's and a chunk's.
const STORED: [usize; 3] = [1, 16, 512];
/// Context and sequences.
const SHAPES: [(usize, usize); 6] = [(8192, 1), (8192, 16), (32_768, 1), (32_768, 16), (131_072, 1), (131_072, 4)];
const REPEATS: usize = 7;

/// Median milliseconds of one launch each; `pick` says which of a turn's three.
fn median(executor: &CudaExecutor, attention: &Attention<'_>, pick: std::ops::Range<usize>) -> Result<f32, String> {
    let turns = attention.launches();
    let n = turns.len();
    let launches: Vec<Launch<'_, Memory>> =
        turns.into_iter().flat_map(|turn| turn.into_iter().skip(pick.start).take(pick.len())).collect();
    let repeats = 16usize.div_ceil(n);
    Ok(median_of(executor, &launches, repeats)? / n as f32)
}

/// Median milliseconds of all `launches` together.
pub fn median_of(executor: &CudaExecutor, launches: &[Launch<'_, Memory>], repeats: usize) -> Result<f32, String> {
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        times.push(executor.time(launches, repeats).map_err(|e| e.to_string())?);
    }
    times.sort_by(f32::total_cmp);
    Ok(times[times.len() / 2])
}

/// The pairs whose line's name, with the head size, contains `filter`.
fn named(d: usize, filter: &str) -> impl Iterator<Item = (Format, Format, String)> {
    let pairs = PAIRS.into_iter().map(move |(k, v)| (k, v, format!("d{d} {}/{}", k.name(), v.name())));
    pairs.filter(move |(.., name)| name.contains(filter))
}

/// The table of decode attention.
pub fn decode(executor: &CudaExecutor, filter: &str, centred: Centred) -> Result<(), String> {
    println!(
        "# decode on {}; us of attend (with query and reduce), TB/s, ratio to the best 16-bit",
        executor.device().unwrap_or("none")
    );
    for d in [128, 64] {
        // Microseconds of the best 16-bit kernel, attend alone and in all.
        let mut best: BTreeMap<(usize, usize), [f32; 2]> = BTreeMap::new();
        for (k, v) in PAIRS {
            let named = |decode| (decode, format!("d{d} {decode:?} {}/{}", k.name(), v.name()));
            let mut wanted = [AttendKernel::Mma, AttendKernel::Vec].map(named).to_vec();
            wanted.retain(|(_, name)| name.contains(filter));
            if wanted.is_empty() {
                continue;
            }
            let workload = Workload::new(executor, k, v, d, centred)?;
            for (decode, name) in wanted {
                let mut line = format!("{name:20}");
                for (context, seqs) in SHAPES {
                    let attention = Attention::new(&workload, decode, context, seqs, 1)?;
                    for launches in attention.launches() {
                        executor.run(&launches).map_err(|e| e.to_string())?;
                    }
                    let times = [1e3 * median(executor, &attention, 1..2)?, 1e3 * median(executor, &attention, 0..3)?];
                    if !k.is_rotated() {
                        let old = best.entry((context, seqs)).or_insert([f32::INFINITY; 2]);
                        *old = [0, 1].map(|i| old[i].min(times[i]));
                    }
                    let rate = (context * seqs * workload.token_bytes()) as f32 / times[0] / 1e6;
                    let ratio = best.get(&(context, seqs)).map_or([f32::NAN; 2], |b| [0, 1].map(|i| b[i] / times[i]));
                    line += &format!(
                        " | {}k x{seqs} {:.1} ({:.1}) {rate:.2} x{:.2} (x{:.2})",
                        context / 1024,
                        times[0],
                        times[1],
                        ratio[0],
                        ratio[1]
                    );
                }
                println!("{line}");
            }
        }
    }
    Ok(())
}

/// Stores of tokens in one layer: the time of `write`, of as many tokens as `STORED` says.
pub fn write(executor: &CudaExecutor, filter: &str) -> Result<(), String> {
    println!("# write on {}; us for {STORED:?} tokens of a layer", executor.device().unwrap_or("none"));
    for d in [128, 64] {
        for (k, v, name) in named(d, filter) {
            let workload = Workload::new(executor, k, v, d, Centred::Coded)?;
            let mut line = format!("{name:16}");
            for tokens in STORED {
                let store = Store::new(&workload, tokens)?;
                line += &format!(" | {:.1}", 1e3 * median_of(executor, &[store.launch()], 16)?);
            }
            println!("{line}");
        }
    }
    Ok(())
}

/// A chunk of 512 rows at the end of a context: all three launches, and each alone.
pub fn prefill(executor: &CudaExecutor, filter: &str) -> Result<(), String> {
    println!(
        "# prefill of 512 rows on {}; us (query, prefill, reduce), TFLOP/s, ratio to f16 (of prefill)",
        executor.device().unwrap_or("none")
    );
    for d in [128, 64] {
        let mut base = [[f32::NAN; 2]; 2];
        for (k, v, name) in named(d, filter) {
            let workload = Workload::new(executor, k, v, d, Centred::Coded)?;
            let mut line = format!("{name:16}");
            for (i, context) in [4096usize, 16_384].into_iter().enumerate() {
                let attention = Attention::new(&workload, AttendKernel::Prefill, context, 1, 512)?;
                for launches in attention.launches().into_iter().take(1) {
                    executor.run(&launches).map_err(|e| e.to_string())?;
                }
                let us = |pick| median(executor, &attention, pick).map(|ms| 1e3 * ms);
                let [all, query, alone, reduce] = [us(0..3)?, us(0..1)?, us(1..2)?, us(2..3)?];
                if k == F16 {
                    base[i] = [all, alone];
                }
                let operations = 4.0 * (512 * KV_HEADS * GROUP * d) as f32 * (context - 256) as f32;
                line += &format!(
                    " | {}k {all:.0} ({query:.0}, {alone:.0}, {reduce:.0}) {:.0} x{:.2} (x{:.2})",
                    context / 1024,
                    operations / all / 1e6,
                    base[i][0] / all,
                    base[i][1] / alone
                );
            }
            println!("{line}");
        }
    }
    Ok(())
}
