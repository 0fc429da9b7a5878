//! Projections: on the CPU straight from the mapped file, summed in an order fixed by k (crate `matmul`); on a GPU by Candle.
use super::gpu;
use crate::loader::StoredWeight;
use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Tensor, bail};

pub(crate) struct Linear {
    weight: Place,
    out_features: usize,
    bias: Option<Bias>,
}

/// Where the weight is.
enum Place {
    Cpu(StoredWeight),
    Gpu(gpu::Weight),
}

struct Bias {
    tensor: Tensor,
    values: Vec<f32>,
}

impl Linear {
    /// `bias`: `[out_features]`. `gpu_type`: what a GPU computes in; `None`: products are the CPU's.
    pub fn new(weight: StoredWeight, bias: Option<Vec<f32>>, device: &Device, gpu_type: Option<DType>) -> Result<Self> {
        let bias = match bias {
            Some(values) => Some(Bias { tensor: Tensor::from_slice(&values, values.len(), device)?, values }),
            None => None,
        };
        let out_features = weight.view().n();
        let weight = match gpu_type {
            None => Place::Cpu(weight),
            Some(compute) => Place::Gpu(gpu::Weight::new(&weight, compute, device)?),
        };
        Ok(Linear { weight, out_features, bias })
    }

    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(|b| b.values.as_slice())
    }

    pub fn is_on_gpu(&self) -> bool {
        matches!(self.weight, Place::Gpu(_))
    }

    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// x: `[rows, in_features]` f32 -> `[rows, out_features]` f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.weight {
            Place::Cpu(weight) => x.apply_op1_no_bwd(&Product(weight))?,
            Place::Gpu(weight) => weight.forward(x)?,
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(&bias.tensor),
            None => Ok(y),
        }
    }
}

struct Product<'a>(&'a StoredWeight);

impl candle_core::CustomOp1 for Product<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let weight = self.0.view();
        let (rows, k) = layout.shape().dims2()?;
        let (CpuStorage::F32(x), Some((from, to))) = (storage, layout.contiguous_offsets()) else {
            bail!("a projection takes contiguous f32 rows")
        };
        if k != weight.k() {
            bail!("a projection of {} inputs was given {k}", weight.k());
        }
        let mut out = vec![0f32; rows * weight.n()];
        matmul::matmul(&x[from..to], weight, &mut out);
        Ok((CpuStorage::F32(out), Shape::from((rows, weight.n()))))
    }
}
