//! What every backend must do, as checks that any of them can be put through.
//!
//! The reference is attention in f64 over the rows the backend itself gives back ([`Fixture::expect`]), so a check
//! judges the attention and not the codec; codecs are judged where they live. A failure is a panic that names the case.
#![warn(missing_docs)]

pub mod layers;
pub mod rows;
#[path = "../../../crates/matmul/tests/common/mod.rs"]
pub mod weights;

use attention::{AttentionBackend, BatchLayout, KeyConstants, LayerGeometry, LayerId, ModelGeometry, Rope};
use candle_core::{Device, Tensor};
use kv::{BlockPool, BlockTable, KvLayout};
use std::sync::Arc;
use turboquant::Format;

/// Makes the backend under test.
pub type Make<'a> = &'a dyn Fn(KvLayout, ModelGeometry) -> Box<dyn AttentionBackend>;

/// Shape of one case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The format of keys.
    pub k: Format,
    /// The format of values.
    pub v: Format,
    /// Elements of a head's vector.
    pub head_dim: usize,
    /// Heads of K and V.
    pub kv_heads: usize,
    /// Query heads for each kv head.
    pub group: usize,
    /// Tokens of a block.
    pub block_size: usize,
    /// The number of tokens that a row sees, itself included; `None` if it sees all.
    pub sliding_window: Option<usize>,
    /// Whether keys and queries are rotated.
    pub rope: bool,
}

impl Case {
    /// RoPE over three quarters of a head, with an attention factor, so that neither can be forgotten.
    fn rope(&self) -> Rope {
        let pairs = self.head_dim * 3 / 8;
        let frequencies = (0..pairs).map(|i| 1e4f32.powf(-(i as f32) / pairs as f32)).collect();
        Rope::new(frequencies, 1.1).expect("frequencies of at most 1")
    }

    /// A model of one such layer.
    fn model(&self) -> (KvLayout, ModelGeometry) {
        let kv = (self.kv_heads, self.head_dim, self.k, self.v);
        let layout = KvLayout::new(self.block_size, [kv]).expect("a valid case");
        let layer = LayerGeometry {
            num_heads: self.kv_heads * self.group,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            sliding_window: self.sliding_window,
            rope: self.rope.then(|| self.rope()),
        };
        (layout, ModelGeometry { layers: vec![layer] })
    }
}

/// A backend with one layer, and tokens to feed it.
pub struct Fixture {
    case: Case,
    backend: Box<dyn AttentionBackend>,
    pool: BlockPool,
    device: Device,
}

/// Deterministic noise in about [-1.7, 1.7] of variance 1.
pub fn noise(seed: u64, index: u64) -> f32 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32 * 3.46 - 1.73
}

/// Constants of keys whose means are as large as the noise itself, with another mean at position 0 and pair scales of
/// .77 to 1.3.
pub fn large_constants(geometry: &ModelGeometry) -> KeyConstants {
    let of = |seed: u64| -> Vec<Vec<f32>> {
        let layer = |l: &LayerGeometry| (0..l.kv_heads * l.head_dim).map(|i| noise(seed, i as u64)).collect();
        geometry.layers.iter().map(layer).collect()
    };
    let mut scales = of(1002);
    for (layer, scales) in geometry.layers.iter().zip(&mut scales) {
        let pairs = layer.rope.as_ref().map_or(0, Rope::pairs);
        for head in scales.chunks_exact_mut(layer.head_dim) {
            head.iter_mut().for_each(|s| *s = (0.15 * *s).exp());
            head.copy_within(..pairs, pairs);
        }
    }
    KeyConstants { means: of(1000), first_means: of(1001), scales }
}

/// One sequence's q, k and v, each a function of seed and position alone.
#[derive(Clone, Copy)]
pub struct Tokens {
    /// The seed, which tells sequences apart.
    pub seed: u64,
}

impl Tokens {
    fn rows(&self, what: u64, width: usize, positions: std::ops::Range<usize>) -> Vec<f32> {
        positions
            .flat_map(|p| (0..width).map(move |i| (p * width + i) as u64))
            .map(|i| noise(self.seed * 3 + what, i))
            .collect()
    }
}

/// The part of a sequence that one step computes.
pub struct SequencePart<'a> {
    /// The sequence's q, k and v.
    pub tokens: Tokens,
    /// The sequence's blocks.
    pub table: &'a mut BlockTable,
    /// The position of the part's first token.
    pub start: usize,
    /// The number of the part's tokens.
    pub len: usize,
}

impl Fixture {
    /// Makes the backend with one layer and memory for `num_blocks` blocks.
    pub fn new(make: Make<'_>, device: &Device, case: Case, num_blocks: usize) -> Self {
        let (layout, geometry) = case.model();
        let mut backend = make(layout, geometry);
        backend.allocate(num_blocks).expect("memory for the pool");
        Fixture { case, backend, pool: BlockPool::new(num_blocks), device: device.clone() }
    }

    /// Returns the backend under test.
    pub fn backend(&self) -> &dyn AttentionBackend {
        &*self.backend
    }

    /// Runs one step; returns each slice's output rows, `[len][num_heads][head_dim]`.
    pub fn step(&mut self, parts: &mut [SequencePart<'_>]) -> Vec<Vec<f32>> {
        let Case { head_dim, kv_heads, group, .. } = self.case;
        let mut layout = BatchLayout::default();
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        for s in parts.iter_mut() {
            let copies = s.table.prepare_write(&self.pool, s.start, s.start + s.len).expect("enough blocks");
            self.backend.copy_blocks(&copies).expect("copies");
            layout.push(s.start, s.len, s.table);
            let at = s.start..s.start + s.len;
            q.extend(s.tokens.rows(0, kv_heads * group * head_dim, at.clone()));
            k.extend(s.tokens.rows(1, kv_heads * head_dim, at.clone()));
            v.extend(s.tokens.rows(2, kv_heads * head_dim, at));
        }
        let rows = layout.num_tokens();
        let tensor =
            |data: Vec<f32>, heads| Tensor::from_vec(data, (rows, heads, head_dim), &self.device).expect("a tensor");
        let (q, k, v) = (tensor(q, kv_heads * group), tensor(k, kv_heads), tensor(v, kv_heads));
        let plan = self.backend.plan(Arc::new(layout)).expect("a plan");
        self.backend.write(LayerId(0), &k, &v, &plan).expect("write");
        let out = self.backend.attend(LayerId(0), &q, &plan).expect("attend");
        let out: Vec<f32> = out.flatten_all().and_then(|t| t.to_vec1()).expect("f32 output");
        let width = kv_heads * group * head_dim;
        let mut at = 0;
        parts
            .iter()
            .map(|s| {
                at += s.len * width;
                out[at - s.len * width..at].to_vec()
            })
            .collect()
    }

    /// Rows of heads after RoPE, in f64 from its definition.
    fn roped(&self, rows: Vec<f32>, positions: std::ops::Range<usize>) -> Vec<f64> {
        let (d, rope) = (self.case.head_dim, self.case.rope());
        let heads = rows.len() / d / positions.len();
        let mut out: Vec<f64> = rows.into_iter().map(f64::from).collect();
        if !self.case.rope {
            return out;
        }
        for (i, head) in out.chunks_exact_mut(d).enumerate() {
            let position = (positions.start + i / heads) as f64;
            for (pair, frequency) in rope.frequencies().iter().enumerate() {
                let (sin, cos) = (position * f64::from(*frequency)).sin_cos();
                let (x, y, factor) = (head[pair], head[pair + rope.pairs()], f64::from(rope.attention_factor()));
                head[pair] = factor * (x * cos - y * sin);
                head[pair + rope.pairs()] = factor * (x * sin + y * cos);
            }
        }
        out
    }

    /// Attention in f64 over exact K and V, for formats that store them (nearly) exactly.
    pub fn expect(&self, tokens: Tokens, positions: std::ops::Range<usize>) -> Vec<f32> {
        let Case { head_dim: d, kv_heads, group, sliding_window, .. } = self.case;
        let q = self.roped(tokens.rows(0, kv_heads * group * d, positions.clone()), positions.clone());
        let k = self.roped(tokens.rows(1, kv_heads * d, 0..positions.end), 0..positions.end);
        let v = tokens.rows(2, kv_heads * d, 0..positions.end);
        let mut out = Vec::with_capacity(q.len());
        for (row, position) in positions.enumerate() {
            let first = sliding_window.map_or(0, |w| (position + 1).saturating_sub(w));
            for head in 0..kv_heads * group {
                let q = &q[(row * kv_heads * group + head) * d..][..d];
                let at = |t: usize| (t * kv_heads + head / group) * d;
                let dot = |t: usize| q.iter().zip(&k[at(t)..][..d]).map(|(a, b)| a * b).sum::<f64>();
                let logits: Vec<f64> = (first..=position).map(|t| dot(t) / (d as f64).sqrt()).collect();
                let max = logits.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = logits.iter().map(|l| (l - max).exp()).collect();
                let total: f64 = weights.iter().sum();
                out.extend((0..d).map(|i| {
                    let sum: f64 = (first..=position).zip(&weights).map(|(t, w)| w * f64::from(v[at(t) + i])).sum();
                    (sum / total) as f32
                }));
            }
        }
        out
    }
}

/// Contexts that end at every kind of edge: inside a block, at its end, inside a partition, at its end.
pub const EDGES: [usize; 8] = [1, 15, 16, 17, 33, 511, 512, 1100];

/// Checks the outputs of one prefill at every length of [`EDGES`] against f64, within `tolerance` of the largest
/// output.
pub fn matches_reference(make: Make<'_>, device: &Device, case: Case, tolerance: f32) {
    for len in EDGES {
        let mut f = Fixture::new(make, device, case, 2 * len.div_ceil(case.block_size) + 2);
        let tokens = Tokens { seed: len as u64 };
        let mut table = BlockTable::new(case.block_size);
        let got = f.step(&mut [SequencePart { tokens, table: &mut table, start: 0, len }]).remove(0);
        let from = len.saturating_sub(20);
        let want = f.expect(tokens, from..len);
        let width = got.len() / len;
        let scale = want.iter().fold(0f32, |m, x| m.max(x.abs()));
        for (i, (g, w)) in got[from * width..].iter().zip(&want).enumerate() {
            assert!((g - w).abs() <= tolerance * scale, "{case:?}, context {len}, element {i}: {g} against {w}");
        }
    }
}

/// Checks that a sequence has the same bits alone in one piece, in chunks of 7, token by token, and in a batch with
/// others.
pub fn is_batch_invariant(make: Make<'_>, device: &Device, case: Case) {
    let (len, tokens) = (560, Tokens { seed: 1 });
    let whole = run_in_chunks(make, device, case, tokens, len, len);
    for chunk in [7, 1, 512] {
        assert_same_bits(
            &whole,
            &run_in_chunks(make, device, case, tokens, len, chunk),
            case,
            &format!("chunks of {chunk}"),
        );
    }
    let mut f = Fixture::new(make, device, case, 200);
    let mut tables: Vec<_> = (0..4).map(|_| BlockTable::new(case.block_size)).collect();
    let mut got = Vec::new();
    let mut start = 0;
    // Companions of other lengths, prefilling and decoding, in changing company.
    for (i, len_of_step) in [100usize, 1, 300, 1, 158].into_iter().enumerate() {
        let mut parts: Vec<SequencePart<'_>> = Vec::new();
        for (s, table) in tables.iter_mut().enumerate().rev() {
            if s == 0 {
                parts.push(SequencePart { tokens, table, start, len: len_of_step });
            } else if (i + s) % 2 == 0 || i == 0 {
                let at = table.capacity();
                parts.push(SequencePart { tokens: Tokens { seed: 90 + s as u64 }, table, start: at, len: 1 + 37 * s });
            }
        }
        got.extend(f.step(&mut parts).pop().expect("the sequence's own rows"));
        start += len_of_step;
    }
    assert_same_bits(&whole, &got, case, "a batch");
}

fn run_in_chunks(make: Make<'_>, device: &Device, case: Case, tokens: Tokens, len: usize, chunk: usize) -> Vec<f32> {
    let mut f = Fixture::new(make, device, case, len.div_ceil(case.block_size));
    let mut table = BlockTable::new(case.block_size);
    let chunks = (0..len).step_by(chunk).map(|start| {
        let len = chunk.min(len - start);
        f.step(&mut [SequencePart { tokens, table: &mut table, start, len }]).remove(0)
    });
    chunks.collect::<Vec<_>>().concat()
}

fn assert_same_bits(want: &[f32], got: &[f32], case: Case, how: &str) {
    assert_eq!(want.len(), got.len());
    let differs = want.iter().zip(got).position(|(a, b)| a.to_bits() != b.to_bits());
    assert!(differs.is_none(), "{case:?}: element {differs:?} differs in {how}");
}

/// A forked sequence copies the block it writes; a block read and written elsewhere is the same block.
pub fn blocks_move(make: Make<'_>, device: &Device, case: Case) {
    let tokens = Tokens { seed: 5 };
    let mut f = Fixture::new(make, device, case, 16);
    let mut table = BlockTable::new(case.block_size);
    let len = case.block_size + 5;
    f.step(&mut [SequencePart { tokens, table: &mut table, start: 0, len }]);
    let mut fork = table.clone();
    let other = Tokens { seed: 6 };
    f.step(&mut [SequencePart { tokens: other, table: &mut fork, start: len, len: 1 }]);
    let forked = f.step(&mut [SequencePart { tokens, table: &mut table, start: len, len: 1 }]).remove(0);
    let alone = run_in_chunks(make, device, case, tokens, len + 1, len);
    let width = forked.len();
    assert_same_bits(&alone[len * width..], &forked, case, "a fork");

    let mut bytes = vec![0; f.backend.spec().bytes_per_block()];
    let mut moved = BlockTable::new(case.block_size);
    moved.prepare_write(&f.pool, 0, len + 1).expect("enough blocks");
    for (from, to) in table.ids().into_iter().zip(moved.ids()) {
        f.backend.read_block(from, &mut bytes).expect("read");
        f.backend.write_block(to, &bytes).expect("write");
    }
    let mut again =
        |table: &mut BlockTable| f.step(&mut [SequencePart { tokens, table, start: len + 1, len: 1 }]).remove(0);
    let (here, there) = (again(&mut table), again(&mut moved));
    assert_same_bits(&here, &there, case, "moved blocks");
}
