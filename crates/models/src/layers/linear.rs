//! Projections: on the CPU straight from the mapped file, summed in an order fixed by k (crate `matmul`); on a GPU by Candle.
use super::gpu;
use super::rowwise::row_ops;
use crate::loader::StoredWeight;
use attention::{ForwardContext, RowOps};
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
    pub fn forward(&self, x: &Tensor, ctx: &ForwardContext<'_>) -> Result<Tensor> {
        self.product(x, row_ops(ctx))
    }

    pub(super) fn product(&self, x: &Tensor, ops: &dyn RowOps) -> Result<Tensor> {
        let y = match &self.weight {
            Place::Cpu(weight) => x.apply_op1_no_bwd(&Product(weight))?,
            Place::Gpu(weight) => self.in_turns(weight, x, ops)?,
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(&bias.tensor),
            None => Ok(y),
        }
    }

    /// Some rows after the others where all would keep a GPU from others too long.
    fn in_turns(&self, weight: &gpu::Weight, x: &Tensor, ops: &dyn RowOps) -> Result<Tensor> {
        let (rows, k) = x.dims2()?;
        let start = |at: usize| ops.start_product(rows - at, k * self.out_features);
        let mut some = start(0)?;
        if some >= rows {
            return weight.forward(x);
        }
        let (mut products, mut at) = (Vec::new(), 0);
        loop {
            products.push(weight.forward(&x.narrow(0, at, some)?)?);
            at += some;
            if at == rows {
                return Tensor::cat(&products, 0);
            }
            some = start(at)?;
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

#[cfg(test)]
mod tests {
    use super::super::rowwise::CpuRows;
    use super::*;
    use matmul::WeightType;
    use std::sync::Mutex;

    /// The CPU's, on a device that may be given a few rows at once.
    struct Bounded {
        most: usize,
        started: Mutex<Vec<(usize, usize)>>,
    }

    impl RowOps for Bounded {
        fn start_product(&self, rows: usize, elements: usize) -> Result<usize> {
            self.started.lock().unwrap().push((rows, elements));
            Ok(rows.min(self.most))
        }
        fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
            CpuRows.rms_norm(x, weight, eps)
        }
        fn add_rms_norm(&self, x: &Tensor, delta: &Tensor, weight: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
            CpuRows.add_rms_norm(x, delta, weight, eps)
        }
        fn silu_mul(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
            CpuRows.silu_mul(gate, up)
        }
        fn sigmoid_mul(&self, gate: &Tensor, x: &Tensor) -> Result<Tensor> {
            CpuRows.sigmoid_mul(gate, x)
        }
        fn rope(&self, q: &Tensor, k: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<(Tensor, Tensor)> {
            CpuRows.rope(q, k, cos, sin)
        }
        fn largest(&self, rows: &Tensor, count: usize) -> Result<Option<Vec<(u32, f32)>>> {
            CpuRows.largest(rows, count)
        }
    }

    #[test]
    fn rows_in_turns_are_those_of_one_product() {
        let (n, k, rows) = (24, 64, 7);
        let values = |len: usize| -> Vec<f32> { (0..len).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect() };
        let x = Tensor::from_vec(values(rows * k), (rows, k), &Device::Cpu).unwrap();
        for kind in [WeightType::F32, WeightType::Q8_0] {
            let bytes = matmul::quantize(kind, &values(n * k)).unwrap();
            let weight = StoredWeight::owned(bytes, kind, (n, k)).unwrap();
            let linear = Linear::new(weight, Some(values(n)), &Device::Cpu, Some(DType::F32)).unwrap();
            let product = |most: usize| {
                let ops = Bounded { most, started: Mutex::default() };
                let y = linear.product(&x, &ops).unwrap().to_vec2::<f32>().unwrap();
                (y, ops.started.into_inner().unwrap())
            };
            let (whole, once) = product(rows);
            let (parts, thrice) = product(3);
            assert_eq!(whole, parts, "{}", kind.name());
            assert_eq!(once, [(7, n * k)]);
            assert_eq!(thrice, [(7, n * k), (4, n * k), (1, n * k)]);
        }
    }
}
