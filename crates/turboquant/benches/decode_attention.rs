//! `cargo bench -p turboquant --bench decode_attention -- [seconds per cell] [d,..] [ctx,..] [isa,..] [preset,..]`: the
//! tables of the README.
//!
//! One step-layer of decode: 8 kv heads, 4 query heads each, blocks of 32 tokens in a shuffled block table, pages cold.
//! All presets alternate step-layer by step-layer, and the minimum time of each is taken, so that other work on the
//! machine hits all alike. Keys of the coded presets are centred and scaled by pair, those of bf16 are not.
#[path = "../tests/common/mod.rs"]
mod common;

use common::{Rng, logit_scale, pair_scale};
use rayon::prelude::*;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use turboquant::*;

const HEADS: usize = 8;
const GROUP: usize = 4;
const BLOCK: usize = 32;
/// Tokens in every pool: 34 (tc2) to 256 MiB (bf16) at d = 128; shorter contexts are laid out as several layers, so
/// that each step-layer finds its pages cold, as in a real decode.
const TOKENS: usize = 65536;

/// The presets, bf16 first, and pairs that no preset has: their names and formats.
fn pairs() -> Vec<(&'static str, Format, Format)> {
    let presets = PRESETS.iter().map(|preset| (preset.name, preset.pair.k, preset.pair.v));
    presets.chain([("tq8/tc4", Format::Tq8, Format::Tc4), ("tc2", Format::Tc2, Format::Tc2)]).collect()
}

/// Pages of one layer after another in one mapping.
struct Pool {
    layout: RecordLayout,
    data: memmap2::MmapMut,
    start: usize,
}

impl Pool {
    fn new(layout: RecordLayout, blocks: usize) -> Pool {
        const HUGE: usize = 2 << 20;
        let data = memmap2::MmapMut::map_anon(blocks * HEADS * layout.bytes() + HUGE).expect("memory for the pool");
        #[cfg(target_os = "linux")]
        let _ = data.advise(memmap2::Advice::HugePage); // only speed depends on it
        let start = data.as_ptr().align_offset(HUGE);
        Pool { layout, data, start }
    }

    fn record(&self, block: u32, head: usize) -> &[u8] {
        let bytes = self.layout.bytes();
        &self.data[self.start + (block as usize * HEADS + head) * bytes..][..bytes]
    }

    fn record_mut(&mut self, block: u32, head: usize) -> &mut [u8] {
        let bytes = self.layout.bytes();
        &mut self.data[self.start + (block as usize * HEADS + head) * bytes..][..bytes]
    }
}

struct Variant {
    name: String,
    kernel: Kernel,
    pool: usize,
    transforms: Option<Vec<KeyTransform>>,
}

/// What a server would keep between steps.
struct Buffers {
    parts: Vec<f32>,
    out: Vec<f32>,
}

/// Attention of one query token over `table`: the context is split over threads by partition, the states are merged in
/// order.
fn decode(variant: &Variant, pool: &Pool, table: &[u32], q: &[f32], buffers: &mut Buffers, threads: usize) {
    let Buffers { parts, out } = buffers;
    let kernel = &variant.kernel;
    let d = pool.layout.head_dim();
    let len = kernel.part_len(GROUP);
    let query = |(head, q): (usize, &[f32])| {
        kernel.query(q, GROUP, logit_scale(d), variant.transforms.as_ref().map(|of| &of[head]))
    };
    let queries: Vec<Query> = q.chunks_exact(GROUP * d).enumerate().map(query).collect();
    let partitions: Vec<&[u32]> = table.chunks(PARTITION / BLOCK).collect();
    parts.resize(partitions.len() * HEADS * len, 0.0);
    let records =
        |blocks: &[u32], head: usize| -> Vec<&[u8]> { blocks.iter().map(|b| pool.record(*b, head)).collect() };
    let run = |(i, parts): (usize, &mut [f32])| {
        let blocks = partitions[i];
        let mut now = records(blocks, 0);
        for (head, part) in parts.chunks_exact_mut(len).enumerate() {
            let next = match head + 1 < HEADS {
                true => records(blocks, head + 1),
                false => partitions.get(i + 1).map_or_else(Vec::new, |blocks| records(blocks, 0)),
            };
            let rows = [Row { query: &queries[head], from: 0, to: blocks.len() * BLOCK }];
            let job = Job { records: &now, prefetch: &next, first_position: i * PARTITION, rows: &rows };
            kernel.attend(&job, part);
            now = next;
        }
    };
    if threads == 1 {
        parts.chunks_exact_mut(HEADS * len).enumerate().for_each(run);
    } else {
        let per = partitions.len().div_ceil(threads);
        parts.par_chunks_mut(per * HEADS * len).enumerate().for_each(|(t, parts)| {
            parts.chunks_exact_mut(HEADS * len).enumerate().for_each(|(i, part)| run((t * per + i, part)));
        });
    }
    let finish = |(head, out): (usize, &mut [f32])| {
        let mut total = parts_of(parts, head, len).next().expect("at least one partition").to_vec();
        parts_of(parts, head, len).skip(1).for_each(|part| kernel.merge(&mut total, part, GROUP));
        kernel.finish(&total, GROUP, out);
    };
    if threads == 1 {
        out.chunks_exact_mut(GROUP * d).enumerate().for_each(finish);
    } else {
        out.par_chunks_exact_mut(GROUP * d).enumerate().for_each(finish);
    }
}

fn parts_of(parts: &[f32], head: usize, len: usize) -> impl Iterator<Item = &[f32]> {
    parts.chunks_exact(HEADS * len).map(move |part| &part[head * len..][..len])
}

/// Means as large as the key's noise, in every pair, pair scales of 1/2 to 2, and frequencies of base 1e6.
fn transforms(rng: &mut Rng, d: usize) -> Vec<KeyTransform> {
    let frequencies: Vec<f32> = (0..d / 2).map(|i| 1e6f32.powf(-(2.0 * i as f32) / d as f32)).collect();
    let rope = Rope::new(frequencies, 1.0).expect("frequencies");
    let tables = CorrectionTables::new(&rope, d).expect("half as many pairs as elements");
    let transform = |_| {
        let (mean, first_mean, scale) = (rng.vector(d), rng.vector(d), pair_scale(rng, d / 2, d));
        let constants = HeadConstants { mean: &mean, first_mean: &first_mean, scale: &scale };
        KeyTransform::new(&tables, constants, DEFAULT_HIGH_PAIRS).expect("finite constants")
    };
    (0..HEADS).map(transform).collect()
}

fn pools(rng: &mut Rng, d: usize, tokens: usize) -> (Vec<Pool>, Vec<u32>) {
    let mut table: Vec<u32> = (0..(tokens / BLOCK) as u32).collect();
    for i in (1..table.len()).rev() {
        table.swap(i, (rng.word() % (i as u64 + 1)) as usize);
    }
    let layout = |preset: &(&str, Format, Format)| RecordLayout::new(preset.1, preset.2, d, BLOCK).expect("a layout");
    let mut pools: Vec<Pool> = pairs().iter().map(|preset| Pool::new(layout(preset), tokens / BLOCK)).collect();
    let noise = rng.vector(64 * HEADS * d);
    let row = |i: usize| &noise[i % (63 * HEADS * d)..][..d];
    for pool in &mut pools {
        let kernel = Kernel::new(pool.layout, Isa::best());
        for t in 0..tokens {
            for head in 0..HEADS {
                let (k, v) = (row(t * 7919 + head * 1_299_709), row(t * 104_729 + head * 15_485_863 + 4001));
                kernel.store(pool.record_mut(table[t / BLOCK], head), t % BLOCK, k, v);
            }
        }
    }
    (pools, table)
}

fn variants(rng: &mut Rng, d: usize, pools: &[Pool], isas: &[Isa], only: Option<&String>) -> Vec<Variant> {
    let mut variants = Vec::new();
    let transforms = transforms(rng, d);
    for isa in isas {
        for (i, preset) in pairs().iter().enumerate() {
            if only.is_some_and(|only| preset.1 != Format::Bf16 && !only.split(',').any(|name| name == preset.0)) {
                continue;
            }
            let kernel = Kernel::new(pools[i].layout, *isa);
            let transforms = (preset.1 != Format::Bf16).then(|| transforms.clone());
            if preset.0 == "balanced" {
                let (kernel, name) = (kernel.clone(), format!("{isa:?} balanced, not centred"));
                variants.push(Variant { name, kernel, pool: i, transforms: None });
            }
            variants.push(Variant { name: format!("{isa:?} {}", preset.0), kernel, pool: i, transforms });
        }
    }
    variants
}

fn speed(rng: &mut Rng, d: usize, contexts: &[usize], seconds: f64, isas: &[Isa], only: Option<&String>) {
    let (pools, table) = pools(rng, d, TOKENS);
    let variants = variants(rng, d, &pools, isas, only);
    let q = rng.vector(HEADS * GROUP * d);
    let mut buffers = Buffers { parts: Vec::new(), out: vec![0.0; q.len()] };
    println!("\n| d {d} | ctx | us, 1 thread | GB/s | us, 2 threads | GB/s | times the best bf16 (1, 2 threads) |");
    println!("|---|---|---|---|---|---|---|");
    for &ctx in contexts {
        let mut best = vec![[f64::MAX; 2]; variants.len()];
        let (start, layers) = (Instant::now(), TOKENS / ctx);
        while start.elapsed().as_secs_f64() < seconds {
            for layer in 0..layers {
                for threads in [1, 2] {
                    for (i, variant) in variants.iter().enumerate() {
                        // A layer that no variant has just read.
                        let layer = (layer + (i + threads * variants.len()) * layers.div_ceil(3)) % layers;
                        let table = &table[layer * ctx / BLOCK..][..ctx / BLOCK];
                        let t = Instant::now();
                        decode(variant, &pools[variant.pool], table, black_box(&q), &mut buffers, threads);
                        best[i][threads - 1] = best[i][threads - 1].min(t.elapsed().as_secs_f64());
                    }
                }
            }
        }
        let bf16 = |threads: usize| {
            let own = variants.iter().zip(&best).filter(|(variant, _)| variant.pool == 0);
            own.map(|(_, best)| best[threads]).fold(f64::MAX, f64::min)
        };
        for (variant, [one, two]) in variants.iter().zip(&best) {
            let bytes = (ctx * HEADS / BLOCK * pools[variant.pool].layout.bytes()) as f64;
            let (a, b) = (one * 1e6, two * 1e6);
            let rate = |seconds: f64| bytes / seconds / 1e9;
            println!(
                "| {} | {ctx} | {a:.0} | {:.1} | {b:.0} | {:.1} | {:.2}, {:.2} |",
                variant.name,
                rate(*one),
                rate(*two),
                bf16(0) / one,
                bf16(1) / two
            );
        }
    }
}

/// Caches and queries that errors are the mean of: one draw's lie up to a third apart.
const DRAWS: usize = 8;

/// Output error against f64 over the decoded rows, of unit data and logits of rms 1, 2 and 4.
fn errors(rng: &mut Rng, d: usize, isas: &[Isa]) {
    const RMS: [f32; 3] = [1.0, 2.0, 4.0];
    println!("\n| d {d}, ctx 4096, output relative to f64, mean of {DRAWS} | logit rms 1 | 2 | 4 |\n|---|---|---|---|");
    let pairs = pairs();
    let mut sums = vec![vec![[0.0; RMS.len()]; pairs.len()]; isas.len()];
    for _ in 0..DRAWS {
        let q = rng.vector(HEADS * GROUP * d);
        for (p, preset) in pairs.iter().enumerate() {
            let layout = RecordLayout::new(preset.1, preset.2, d, BLOCK).expect("a layout");
            let cache = common::Cache::random(layout, Isa::best(), 4096, rng);
            for (isa, sums) in isas.iter().zip(&mut sums) {
                let cache = cache.with_isa(*isa);
                for (rms, sum) in RMS.iter().zip(&mut sums[p]) {
                    let q: Vec<f32> = q.iter().map(|x| x * rms).collect();
                    let want = common::reference(&cache, &q, f64::from(logit_scale(d)), 0, 4096, |_, _| 0.0);
                    let queries = q.chunks_exact(GROUP * d);
                    let outputs = queries.map(|q| cache.attend(&common::query(&cache.kernel, q, GROUP, None), 0, 4096));
                    *sum += common::relative(&outputs.collect::<Vec<_>>().concat(), &want);
                }
            }
        }
    }
    for (isa, sums) in isas.iter().zip(&sums) {
        for (preset, sums) in pairs.iter().zip(sums) {
            let [a, b, c] = sums.map(|sum| sum / DRAWS as f64);
            println!("| {isa:?} {} | {a:.1e} | {b:.1e} | {c:.1e} |", preset.0);
        }
    }
}

/// The least time of a call, over .3 s.
fn least(mut f: impl FnMut()) -> f64 {
    let (mut best, start) = (f64::MAX, Instant::now());
    while start.elapsed().as_secs_f64() < 0.3 {
        let t = Instant::now();
        f();
        best = best.min(t.elapsed().as_secs_f64());
    }
    best
}

/// A chunk of 512 query tokens, causal, at the end of 4,096: one kv head, one thread.
fn prefill(rng: &mut Rng, d: usize, isas: &[Isa]) {
    const CTX: usize = 4096;
    println!(
        "\n| d {d}: 512 query tokens x {GROUP} heads over {CTX}, one kv head, one thread | ms | GMAC/s |\n|---|---|---|"
    );
    let transform = transforms(rng, d).remove(0);
    let vectors = rng.vector(PARTITION * GROUP * d);
    let more = [("f32", Format::F32, Format::F32), ("q8_0/q8_0", Format::Affine8, Format::Int8)];
    for preset in pairs().iter().chain(&more) {
        let layout = RecordLayout::new(preset.1, preset.2, d, BLOCK).expect("a layout");
        let cache = common::Cache::random(layout, Isa::best(), CTX, rng);
        let records: Vec<&[u8]> = cache.records.iter().map(Vec::as_slice).collect();
        for isa in isas {
            let kernel = Kernel::new(layout, *isa);
            let transform = preset.1.is_rotated().then_some(&transform);
            let mut parts = vec![0f32; PARTITION * kernel.part_len(GROUP)];
            let seconds = least(|| {
                let query = |q| kernel.query(q, GROUP, logit_scale(d), transform);
                let queries: Vec<Query> = vectors.chunks_exact(GROUP * d).map(query).collect();
                for (i, records) in records.chunks(PARTITION / BLOCK).enumerate() {
                    let visible = |row: usize| (CTX - PARTITION + row + 1 - i * PARTITION).min(PARTITION);
                    let rows = queries.iter().enumerate().map(|(r, query)| Row { query, from: 0, to: visible(r) });
                    let rows: Vec<Row<'_>> = rows.collect();
                    let job = Job { records, prefetch: &[], first_position: i * PARTITION, rows: &rows };
                    kernel.attend(&job, &mut parts);
                }
            });
            let products = 2 * PARTITION * GROUP * d * (CTX - PARTITION / 2);
            println!("| {isa:?} {} | {:.1} | {:.1} |", preset.0, seconds * 1e3, products as f64 / seconds / 1e9);
        }
    }
}

fn encode(rng: &mut Rng, d: usize) {
    let (mut k, v) = (rng.vector(HEADS * d), rng.vector(HEADS * d));
    println!("\n| d {d}: encode and store K and V of {HEADS} kv heads | us a token and layer |\n|---|---|");
    for (name, k_format, v_format) in pairs() {
        let mut pool = Pool::new(RecordLayout::new(k_format, v_format, d, BLOCK).expect("a layout"), 64);
        let kernel = Kernel::new(pool.layout, Isa::best());
        let seconds = least(|| {
            for i in 0..64 {
                for head in 0..HEADS {
                    let (k, v) = (black_box(&k[head * d..][..d]), black_box(&v[head * d..][..d]));
                    kernel.store(pool.record_mut(i, head), i as usize % BLOCK, k, v);
                }
            }
        });
        println!("| {name} | {:.2} |", seconds / 64.0 * 1e6);
    }
    let transforms = transforms(rng, d);
    let angles = transforms[0].tables().rope().angles(&[70_000]);
    let seconds = least(|| {
        for _ in 0..64 {
            let heads = k.chunks_exact_mut(d).zip(&transforms);
            heads.for_each(|(k, transform)| transform.apply(black_box(k), 70_000, &angles));
        }
    });
    println!("| subtracting the mean of K, RoPE and pair scales | {:.2} |", seconds / 64.0 * 1e6);
    let layout = RecordLayout::new(Format::Tc4, Format::Tc4, d, BLOCK).expect("a layout");
    let (kernel, q) = (Kernel::new(layout, Isa::best()), rng.vector(HEADS * GROUP * d));
    let seconds = least(|| {
        for (q, transform) in q.chunks_exact(GROUP * d).zip(&transforms) {
            black_box(kernel.query(black_box(q), GROUP, logit_scale(d), Some(transform)));
        }
    });
    println!("| preparing the queries of {HEADS} kv heads (balanced, centred) | {:.2} |", seconds * 1e6);
}

fn main() {
    // `cargo bench` appends `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let list = |i: usize, or: &[usize]| match args.get(i) {
        Some(s) => s.split(',').map(|x| x.parse().expect("a number")).collect(),
        None => or.to_vec(),
    };
    let seconds: f64 = args.first().map_or(5.0, |s| s.parse().expect("seconds"));
    let chosen =
        |isa: &Isa| args.get(3).is_none_or(|s| s.split(',').any(|s| s.eq_ignore_ascii_case(&format!("{isa:?}"))));
    let isas: Vec<Isa> = Isa::available().into_iter().rev().filter(|isa| *isa != Isa::Scalar).filter(chosen).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a thread pool");
    let mut rng = Rng(88_172_645_463_325_252);
    for d in list(1, &[128, 64]) {
        if args.len() < 5 {
            encode(&mut rng, d);
            errors(&mut rng, d, &isas);
            prefill(&mut rng, d, &isas);
        }
        let contexts = list(2, &[1024, 4096, 16384, 65536]);
        pool.install(|| awake(|| speed(&mut rng, d, &contexts, seconds, &isas, args.get(4))));
    }
}

/// As a step of the engine: a thread that slept between two calls would be timed waking.
fn awake(f: impl FnOnce()) {
    let (leader, done) = (rayon::current_thread_index(), AtomicBool::new(false));
    rayon::in_place_scope(|scope| {
        scope.spawn_broadcast(|_, context| {
            while Some(context.index()) != leader && !done.load(Ordering::Acquire) {
                if rayon::yield_now() != Some(rayon::Yield::Executed) {
                    std::hint::spin_loop();
                }
            }
        });
        f();
        done.store(true, Ordering::Release);
    });
}
