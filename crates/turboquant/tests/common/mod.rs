//! Data, caches and the f64 reference that the integration tests and the benchmark share.
#![allow(dead_code)] // each test uses a part
use turboquant::{Format, Isa, Job, Kernel, KeyTransform, PARTITION, Query, RecordLayout, Row, Side};

/// Xorshift64.
pub struct Rng(pub u64);

impl Rng {
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// In (0, 1).
    pub fn unit(&mut self) -> f32 {
        ((self.word() >> 40) as f32 + 0.5) / (1u64 << 24) as f32
    }

    pub fn normal(&mut self) -> f32 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f32::consts::TAU * self.unit()).cos()
    }

    pub fn vector(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }
}

/// Every format of one side, as the table of formats has them.
pub fn formats(side: Side) -> Vec<Format> {
    Format::all(side).collect()
}

/// One kv head's cache of a sequence; unwritten slots hold 0xff bytes, which are NaN as floats and as scales.
pub struct Cache {
    pub kernel: Kernel,
    pub records: Vec<Vec<u8>>,
    pub tokens: usize,
    /// Position of the first token; a multiple of `PARTITION`.
    pub first_position: usize,
    /// What was stored, K and V.
    pub stored: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Cache {
    pub fn new(layout: RecordLayout, isa: Isa) -> Cache {
        Cache {
            kernel: Kernel::new(layout, isa),
            records: Vec::new(),
            tokens: 0,
            first_position: 0,
            stored: Vec::new(),
        }
    }

    pub fn push(&mut self, k: &[f32], v: &[f32]) {
        let layout = *self.kernel.layout();
        let (block, slot) = (self.tokens / layout.block_size(), self.tokens % layout.block_size());
        if block == self.records.len() {
            self.records.push(vec![0xff; layout.bytes()]);
        }
        self.kernel.store(&mut self.records[block], slot, k, v);
        self.tokens += 1;
        self.stored.push((k.to_vec(), v.to_vec()));
    }

    /// `tokens` random tokens.
    pub fn random(layout: RecordLayout, isa: Isa, tokens: usize, rng: &mut Rng) -> Cache {
        let mut cache = Cache::new(layout, isa);
        for _ in 0..tokens {
            cache.push(&rng.vector(layout.head_dim()), &rng.vector(layout.head_dim()));
        }
        cache
    }

    /// Returns a cache of equal bytes under another instruction set.
    pub fn with_isa(&self, isa: Isa) -> Cache {
        let kernel = Kernel::new(*self.kernel.layout(), isa);
        let Cache { records, tokens, first_position, stored, .. } = self;
        Cache {
            kernel,
            records: records.clone(),
            tokens: *tokens,
            first_position: *first_position,
            stored: stored.clone(),
        }
    }

    pub fn row(&self, token: usize, side: Side) -> Vec<f32> {
        let layout = self.kernel.layout();
        let mut out = vec![0.0; layout.head_dim()];
        self.kernel.load(&self.records[token / layout.block_size()], token % layout.block_size(), side, &mut out);
        out
    }

    /// Output of one query over tokens `from..to`: partitions attended alone, merged in order.
    pub fn attend(&self, query: &Query, from: usize, to: usize) -> Vec<f32> {
        let (kernel, group) = (&self.kernel, query.group());
        let mut total = vec![f32::NAN; kernel.part_len(group)];
        kernel.reset(&mut total, group);
        let records: Vec<&[u8]> = self.records.iter().map(Vec::as_slice).collect();
        for (i, records) in records.chunks(PARTITION / kernel.layout().block_size()).enumerate() {
            let start = i * PARTITION;
            let clip = |t: usize| t.clamp(start, start + PARTITION) - start;
            let rows = [Row { query, from: clip(from), to: clip(to) }];
            let job = Job { records, prefetch: &[], first_position: self.first_position + start, rows: &rows };
            let mut part = vec![f32::NAN; total.len()];
            kernel.attend(&job, &mut part);
            kernel.merge(&mut total, &part, group);
        }
        let mut out = vec![0.0; group * kernel.layout().head_dim()];
        kernel.finish(&total, group, &mut out);
        out
    }
}

/// f64 attention over decoded rows: outputs `[group][head_dim]`. `missing(t)` is added to head g's logit of token t.
pub fn reference(
    cache: &Cache,
    q: &[f32],
    scale: f64,
    from: usize,
    to: usize,
    missing: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let d = cache.kernel.layout().head_dim();
    let rows = |side| -> Vec<Vec<f32>> { (from..to).map(|t| cache.row(t, side)).collect() };
    let (k, v) = (rows(Side::K), rows(Side::V));
    let mut out = Vec::new();
    for (g, q) in q.chunks_exact(d).enumerate() {
        let dot = |k: &Vec<f32>| k.iter().zip(q).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let logits: Vec<f64> = k.iter().enumerate().map(|(i, k)| dot(k) * scale + missing(g, from + i)).collect();
        let m = logits.iter().copied().fold(f64::MIN, f64::max);
        let p: Vec<f64> = logits.iter().map(|x| (x - m).exp()).collect();
        let l: f64 = p.iter().sum();
        out.extend((0..d).map(|i| p.iter().zip(&v).map(|(p, v)| p * f64::from(v[i])).sum::<f64>() / l));
    }
    out
}

/// |a - b| / |b|.
pub fn relative(a: &[f32], b: &[f64]) -> f64 {
    let (mut error, mut norm) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        error += (f64::from(*a) - b).powi(2);
        norm += b.powi(2);
    }
    (error / norm.max(1e-300)).sqrt()
}

/// 1 / sqrt(head_dim), as a model uses it.
pub fn logit_scale(head_dim: usize) -> f32 {
    1.0 / (head_dim as f32).sqrt()
}

pub fn query(kernel: &Kernel, q: &[f32], group: usize, transform: Option<&KeyTransform>) -> Query {
    kernel.query(q, group, logit_scale(kernel.layout().head_dim()), transform)
}

/// A scale of 1/2 to 2 for each of `pairs` RoPE pairs, and for each element without RoPE.
pub fn pair_scale(rng: &mut Rng, pairs: usize, d: usize) -> Vec<f32> {
    let mut scale: Vec<f32> = (0..d).map(|_| (2.0 * rng.unit() - 1.0).exp2()).collect();
    scale.copy_within(..pairs, pairs);
    scale
}
