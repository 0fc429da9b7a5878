//! Measures the means that centring subtracts, while a model runs.
use crate::{AttentionBackend, AttentionPlan, BatchLayout, KvMeans, LayerId, ModelGeometry};
use candle_core::{DType, Device, Result, Tensor};
use kv::{BlockCopy, BlockId, KvLayout};
use std::sync::{Arc, Mutex};

/// The first tokens of a text are left out: their keys are unlike all others ("attention sinks", Xiao et al.,
/// arXiv:2309.17453).
const FIRST_TOKENS: u32 = 4;

/// A backend that passes everything on to another one, which stores K and V exactly, and sums up what is written.
pub struct CalibrationBackend {
    inner: Box<dyn AttentionBackend>,
    sums: Mutex<Vec<Sums>>,
}

/// Sums over the rows written to one layer.
#[derive(Clone)]
struct Sums {
    rows: usize,
    /// `[kv_heads][head_dim]`, before RoPE.
    keys: Vec<f64>,
    /// `[kv_heads][head_dim]`
    values: Vec<f64>,
    /// The sum of all squared elements of the keys.
    energy: f64,
}

impl CalibrationBackend {
    /// `inner` must store the layers of `geometry`.
    pub fn new(inner: Box<dyn AttentionBackend>, geometry: &ModelGeometry) -> Self {
        let empty = |len| Sums { rows: 0, keys: vec![0.0; len], values: vec![0.0; len], energy: 0.0 };
        let sums = geometry.layers.iter().map(|l| empty(l.kv_heads * l.head_dim)).collect();
        CalibrationBackend { inner, sums: Mutex::new(sums) }
    }

    /// The means of K (before RoPE) and V, and the share of the keys' energy that lies in their means, averaged over
    /// layers.
    pub fn finish(self) -> (KvMeans, f64) {
        let sums = self.sums.into_inner().unwrap_or_else(|e| e.into_inner());
        let mean = |sums: &[f64], rows: usize| sums.iter().map(|s| (s / rows.max(1) as f64) as f32).collect();
        let share = |s: &Sums| {
            let rows = s.rows.max(1) as f64;
            let constant: f64 = s.keys.iter().map(|x| (x / rows).powi(2)).sum();
            constant * rows / s.energy.max(f64::MIN_POSITIVE)
        };
        let total: f64 = sums.iter().map(share).sum();
        let means = KvMeans {
            keys: sums.iter().map(|s| mean(&s.keys, s.rows)).collect(),
            values: sums.iter().map(|s| mean(&s.values, s.rows)).collect(),
        };
        (means, total / sums.len().max(1) as f64)
    }

    fn add(&self, layer: LayerId, k: &Tensor, v: &Tensor, positions: &[u32]) -> Result<()> {
        let rows = |t: &Tensor| t.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_from(1)?.to_vec2::<f32>();
        let (k, v) = (rows(k)?, rows(v)?);
        let mut sums = self.sums.lock().unwrap_or_else(|e| e.into_inner());
        let sums = &mut sums[layer.0];
        for ((k, v), _) in k.into_iter().zip(v).zip(positions).filter(|(_, p)| **p >= FIRST_TOKENS) {
            sums.rows += 1;
            sums.energy += k.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            sums.keys.iter_mut().zip(&k).for_each(|(s, x)| *s += f64::from(*x));
            sums.values.iter_mut().zip(&v).for_each(|(s, x)| *s += f64::from(*x));
        }
        Ok(())
    }
}

impl AttentionBackend for CalibrationBackend {
    fn spec(&self) -> &KvLayout {
        self.inner.spec()
    }

    fn allocate(&mut self, num_blocks: usize) -> Result<()> {
        self.inner.allocate(num_blocks)
    }

    fn allocated_bytes(&self) -> usize {
        self.inner.allocated_bytes()
    }

    fn plan(&mut self, layout: Arc<BatchLayout>) -> Result<AttentionPlan> {
        self.inner.plan(layout)
    }

    fn write(&self, layer: LayerId, k: &Tensor, v: &Tensor, plan: &AttentionPlan) -> Result<()> {
        self.add(layer, k, v, &plan.layout.positions)?;
        self.inner.write(layer, k, v, plan)
    }

    fn attend(&self, layer: LayerId, q: &Tensor, plan: &AttentionPlan) -> Result<Tensor> {
        self.inner.attend(layer, q, plan)
    }

    fn copy_blocks(&self, copies: &[BlockCopy]) -> Result<()> {
        self.inner.copy_blocks(copies)
    }

    fn read_block(&self, block: BlockId, out: &mut [u8]) -> Result<()> {
        self.inner.read_block(block, out)
    }

    fn write_block(&self, block: BlockId, bytes: &[u8]) -> Result<()> {
        self.inner.write_block(block, bytes)
    }
}
