//! Measures the means that centring subtracts, while a model runs.
use crate::{AttentionPlan, BackendHook, KvMeans, LayerId, ModelGeometry};
use candle_core::{DType, Device, Result, Tensor};
use std::sync::Mutex;

/// The first tokens of a text are left out: their keys are unlike all others ("attention sinks", Xiao et al.,
/// arXiv:2309.17453).
const FIRST_TOKENS: u32 = 4;

/// Sums up the K and V of a model that runs over an exact cache.
pub struct MeanCalibration {
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

impl MeanCalibration {
    /// Nothing has been summed up of the layers of `geometry` yet.
    pub fn new(geometry: &ModelGeometry) -> Self {
        let empty = |len| Sums { rows: 0, keys: vec![0.0; len], values: vec![0.0; len], energy: 0.0 };
        let sums = geometry.layers.iter().map(|l| empty(l.kv_heads * l.head_dim)).collect();
        MeanCalibration { sums: Mutex::new(sums) }
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

impl BackendHook for MeanCalibration {
    fn store(&self, layer: LayerId, k: &Tensor, v: &Tensor, plan: &AttentionPlan) -> Result<(Tensor, Tensor)> {
        self.add(layer, k, v, &plan.layout.positions)?;
        Ok((k.clone(), v.clone()))
    }
}
