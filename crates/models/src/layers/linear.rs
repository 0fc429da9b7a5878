//! Projections: on the CPU straight from the mapped file, summed in an order fixed by k (crate `matmul`).
use crate::loader::StoredWeight;
use candle_core::{CpuStorage, Device, Layout, Result, Shape, Tensor, bail};

pub(crate) struct Linear {
    weight: StoredWeight,
    bias: Option<Bias>,
}

struct Bias {
    tensor: Tensor,
    values: Vec<f32>,
}

impl Linear {
    /// `bias`: `[out_features]`.
    pub fn new(weight: StoredWeight, bias: Option<Vec<f32>>, device: &Device) -> Result<Self> {
        let bias = match bias {
            Some(values) => Some(Bias { tensor: Tensor::from_slice(&values, values.len(), device)?, values }),
            None => None,
        };
        Ok(Linear { weight, bias })
    }

    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(|b| b.values.as_slice())
    }

    pub fn out_features(&self) -> usize {
        self.weight.view().n()
    }

    /// x: `[rows, in_features]` f32 -> `[rows, out_features]` f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.apply_op1_no_bwd(&Product(&self.weight))?;
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
