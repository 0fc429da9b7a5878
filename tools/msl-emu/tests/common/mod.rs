//! Caches written by the kernels, their bytes taken apart, and attention in f64 over what they hold.
#![allow(dead_code)] // each test uses a part
#![allow(clippy::unwrap_used)] // helpers of tests
pub mod attempts;
pub mod helpers;
pub mod page;
pub mod products;

use attention::{AttentionBackend, BatchLayout, Centring, KeyCentring, LayerGeometry, LayerId, ModelGeometry, Rope};
use candle_core::{Device, Tensor};
use kv::{BlockCopy, BlockId, BlockPool, BlockTable, KvLayout};
use metal::{AttendKernel, Executor, GpuBackend};
use msl_emu::{Emulator, EmulatorExecutor};
use page::Page;
use std::ops::Range;
use std::sync::Arc;
use turboquant::{Format, Isa, Kernel, PARTITION, RecordLayout, Side, apply_rope};

#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub k: Format,
    pub v: Format,
    pub d: usize,
    pub group: usize,
    pub block_size: usize,
    pub centred: bool,
    /// How much larger the keys' means are than the noise.
    pub bias: f32,
    pub window: Option<usize>,
    pub decode: AttendKernel,
    pub order: u32,
}

impl Case {
    pub fn new(k: Format, v: Format, d: usize) -> Case {
        Case {
            k,
            v,
            d,
            group: 4,
            block_size: 16,
            centred: false,
            bias: 1.0,
            window: None,
            decode: AttendKernel::Mma,
            order: 0,
        }
    }
}

pub const KV_HEADS: usize = 2;

/// One sequence in a cache of its own; blocks in shuffled order.
pub struct Cache<E: Executor> {
    pub case: Case,
    pub backend: GpuBackend<E>,
    pub centring: Centring,
    pub geometry: ModelGeometry,
    table: BlockTable,
    pub tokens: usize,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

/// RoPE leaves some elements of the larger heads alone; at a head size of 80 it has an attention factor, below 1, since
/// larger logits would have larger errors than `bound` allows.
fn rope(case: &Case) -> Rope {
    let pairs = case.d / 2 - if case.d == 96 { 8 } else { 0 };
    let frequencies = (0..pairs).map(|i| 1e5f32.powf(-(i as f32) / pairs as f32)).collect();
    Rope::new(frequencies, if case.d == 80 { 0.9 } else { 1.0 }).unwrap()
}

fn geometry(case: &Case) -> ModelGeometry {
    let layer = LayerGeometry {
        num_heads: KV_HEADS * case.group,
        kv_heads: KV_HEADS,
        head_dim: case.d,
        scale: 1.0 / (case.d as f32).sqrt(),
        sliding_window: case.window,
        rope: Some(rope(case)),
    };
    ModelGeometry { layers: vec![layer] }
}

pub fn executor(emulator: &'static Emulator, order: u32) -> EmulatorExecutor {
    EmulatorExecutor { emulator, order }
}

impl<E: Executor> Cache<E> {
    pub fn new(executor: E, case: Case, tokens: usize) -> Self {
        let geometry = geometry(&case);
        let layout = KvLayout::new(case.block_size, [(KV_HEADS, case.d, case.k, case.v)]).unwrap();
        let mut constants = conformance::large_constants(&geometry);
        let means = constants.means.iter_mut().chain(&mut constants.first_means);
        means.flatten().for_each(|x| *x *= case.bias);
        let centring = match case.centred {
            true => Centring::new(&geometry, &constants, |_| KeyCentring::of(case.k)).unwrap(),
            false => Centring::none(&geometry),
        };
        let backend = GpuBackend::new(executor, layout, &geometry, &centring, case.decode);
        let mut backend = backend.unwrap();
        let blocks = tokens.div_ceil(case.block_size);
        let num_blocks = 2 * blocks + 1;
        backend.allocate(num_blocks).unwrap();
        // Every second block, in reverse.
        let pool = BlockPool::new(num_blocks);
        let mut table = BlockTable::new(case.block_size);
        let mut spare = BlockTable::new(case.block_size);
        for block in 0..blocks {
            let range = block * case.block_size..(block + 1) * case.block_size;
            table.prepare_write(&pool, range.start, range.end).unwrap();
            spare.prepare_write(&pool, range.start, range.end).unwrap();
        }
        let data = |seed, size: fn(usize) -> f32| {
            let width = KV_HEADS * case.d;
            (0..tokens * width).map(|i| size(i / width) * conformance::noise(seed, i as u64)).collect::<Vec<f32>>()
        };
        // Values grow by 30 after 60 tokens, so that the scale that weights are relative to has to move.
        let (mut k, v) = (data(1, |_| 1.0), data(2, |t| if t > 60 { 9.0 } else { 0.3 }));
        // What is taken out of keys is there.
        for (i, k) in k.chunks_mut(case.d).enumerate() {
            if let Some(transform) = centring.layers[0].get(i % KV_HEADS) {
                k.iter_mut().zip(transform.subtracted_at(i / KV_HEADS)).for_each(|(k, mean)| *k += mean);
            }
        }
        Cache { case, backend, centring, geometry, table, tokens, k, v }
    }

    fn tensor(&self, data: &[f32], heads: usize) -> Tensor {
        let rows = data.len() / heads / self.case.d;
        Tensor::from_slice(data, (rows, heads, self.case.d), &Device::Cpu).unwrap()
    }

    /// Stores tokens 0..`tokens`.
    pub fn write(&mut self) {
        let mut layout = BatchLayout::default();
        layout.push(0, self.tokens, &self.table);
        let plan = self.backend.plan(Arc::new(layout)).unwrap();
        let (k, v) = (self.tensor(&self.k, KV_HEADS), self.tensor(&self.v, KV_HEADS));
        self.backend.write(LayerId(0), &k, &v, &plan).unwrap();
    }

    pub fn query(&self, seed: u64, rows: usize) -> Vec<f32> {
        let n = rows * KV_HEADS * self.case.group * self.case.d;
        (0..n).map(|i| conformance::noise(seed, i as u64)).collect()
    }

    /// Attends rows `from..to`, whose queries are `q`.
    pub fn attend(&mut self, q: &[f32], from: usize, to: usize) -> Vec<f32> {
        self.attend_all(q, std::slice::from_ref(&(from..to)))
    }

    /// Attends rows of several sequences, which have the same tokens.
    pub fn attend_all(&mut self, q: &[f32], rows: &[Range<usize>]) -> Vec<f32> {
        let mut layout = BatchLayout::default();
        rows.iter().for_each(|rows| layout.push(rows.start, rows.len(), &self.table));
        let plan = self.backend.plan(Arc::new(layout)).unwrap();
        let q = self.tensor(q, KV_HEADS * self.case.group);
        self.backend.attend(LayerId(0), &q, &plan).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Copies every written block over one that is not, which then holds the same bytes; the source keeps its own.
    pub fn copy(&self) -> Result<(), String> {
        let block = |id| {
            let mut bytes = vec![0; self.backend.spec().bytes_per_block()];
            self.backend.read_block(id, &mut bytes).unwrap();
            bytes
        };
        let written = self.table.ids();
        let unused = (0..).map(BlockId).filter(|id| !written.contains(id));
        let copies: Vec<BlockCopy> =
            written.iter().zip(unused).map(|(from, to)| BlockCopy { from: *from, to }).collect();
        let before: Vec<Vec<u8>> = written.iter().map(|id| block(*id)).collect();
        self.backend.copy_blocks(&copies).unwrap();
        let wrong = copies.iter().zip(&before).find(|(c, before)| block(c.from) != **before || block(c.to) != **before);
        wrong.map_or(Ok(()), |(copy, _)| Err(format!("{copy:?}")))
    }

    pub fn record(&self) -> RecordLayout {
        self.backend.spec().layers()[0].record
    }

    /// The records of kv head `head`, block after block.
    pub fn pages(&self, head: usize) -> Vec<Page> {
        let record = self.record();
        let mut bytes = vec![0; self.backend.spec().bytes_per_block()];
        let page = |block| {
            self.backend.read_block(block, &mut bytes).unwrap();
            Page { record, bytes: bytes[head * record.bytes()..][..record.bytes()].to_vec() }
        };
        self.table.ids().into_iter().map(page).collect()
    }

    /// RoPE's angles at one position.
    fn angles(&self, position: usize) -> Vec<[f32; 2]> {
        rope(&self.case).angles(&[position as u32])
    }

    /// What is stored of a token of kv head `head`: of a key what its transform and RoPE make of it.
    pub fn given(&self, side: Side, token: usize, head: usize) -> Vec<f32> {
        let at = (token * KV_HEADS + head) * self.case.d;
        let mut x = if side == Side::K { &self.k } else { &self.v }[at..][..self.case.d].to_vec();
        match (side, self.centring.layers[0].get(head)) {
            (Side::K, Some(transform)) => transform.apply(&mut x, token, &self.angles(token)),
            (Side::K, None) => apply_rope(&mut x, &self.angles(token)),
            (Side::V, _) => {}
        }
        x
    }

    pub fn kernel(&self) -> Kernel {
        Kernel::new(self.record(), Isa::Scalar)
    }

    /// f64 attention of row `row` over what the cache holds: `[heads][head_dim]`. Missing logits follow the tables that
    /// kernels read.
    pub fn expect(&self, q: &[f32], row: usize) -> Vec<f64> {
        let Case { d, group, block_size, window, .. } = self.case;
        let scale = f64::from(self.geometry.layers[0].scale);
        let from = window.map_or(0, |w| (row + 1).saturating_sub(w));
        let mut out = Vec::new();
        for head in 0..KV_HEADS {
            let pages = self.pages(head);
            let rows = |side| -> Vec<Vec<f64>> {
                (from..=row).map(|t| pages[t / block_size].vector(side, t % block_size)).collect()
            };
            let (k, v) = (rows(Side::K), rows(Side::V));
            for q in q[head * group * d..][..group * d].chunks_exact(d) {
                let mut q = q.to_vec();
                apply_rope(&mut q, &self.angles(row));
                let lacks = self.lacks(&q, head, from..row + 1);
                if let Some(transform) = self.centring.layers[0].get(head) {
                    q.iter_mut().zip(transform.inverse_scale()).for_each(|(q, s)| *q *= s);
                }
                let dot = |k: &[f64]| k.iter().zip(&q).map(|(a, b)| a * f64::from(*b)).sum::<f64>();
                let logits: Vec<f64> = k.iter().zip(lacks).map(|(k, lacks)| (dot(k) + lacks) * scale).collect();
                let max = logits.iter().copied().fold(f64::MIN, f64::max);
                let p: Vec<f64> = logits.iter().map(|x| (x - max).exp()).collect();
                let l: f64 = p.iter().sum();
                out.extend((0..d).map(|i| p.iter().zip(&v).map(|(p, v)| p * v[i]).sum::<f64>() / l));
            }
        }
        out
    }

    /// What the logits of `positions` lack, before the scale.
    fn lacks(&self, q: &[f32], head: usize, positions: Range<usize>) -> Vec<f64> {
        let Some(transform) = self.centring.layers[0].get(head) else { return vec![0.0; positions.len()] };
        let (tables, mean) = (transform.tables(), transform.subtracted());
        let rope = tables.rope();
        let amplitudes = |pair: usize| {
            let ((x, y), factor) = (rope.elements(pair), f64::from(rope.attention_factor()));
            let [qx, qy, mx, my] = [q[x], q[y], mean[x], mean[y]].map(f64::from);
            [factor * (qx * mx + qy * my), factor * (qy * mx - qx * my)]
        };
        let turned = |pair: usize, t: usize| {
            let ([a, b], [cos, sin]) = (amplitudes(pair), rope.cos_sin(pair, t));
            [a * cos + b * sin, b * cos - a * sin]
        };
        let at = |t: usize| -> f64 {
            let (start, inside) = (t / PARTITION * PARTITION, t % PARTITION);
            let high = transform.high_pairs().iter().map(|pair| turned(*pair, t)[0]);
            let approximated = tables.approximated().iter().enumerate().map(|(i, pair)| {
                let [c, d] = turned(*pair, start);
                let (fit, middle) = match i < tables.very_low() {
                    true => (tables.very_low_quadratic(i), 255.5),
                    false => (tables.low_quadratic(i, inside / 32), (inside / 32 * 32) as f64 + 15.5),
                };
                let u = inside as f64 - middle;
                let [k0, k1, k2] = fit.map(|[of_c, of_d]| f64::from(of_c) * c + f64::from(of_d) * d);
                k0 + k1 * u + k2 * u * u
            });
            let first = q.iter().zip(transform.first_difference()).filter(|_| t == 0);
            let first = first.map(|(q, x)| f64::from(*q) * f64::from(*x));
            high.chain(approximated).chain(first).sum()
        };
        positions.map(at).collect()
    }
}

/// |a - b| / |b|; NaN is infinite.
pub fn relative(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let (mut error, mut norm) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        error += (f64::from(*a) - b).powi(2);
        norm += b.powi(2);
    }
    let relative = (error / norm.max(1e-300)).sqrt();
    if relative.is_nan() { f64::INFINITY } else { relative }
}
