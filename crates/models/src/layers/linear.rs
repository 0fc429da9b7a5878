//! Linear layers: on the CPU straight from the mapped file, summed in an order fixed by k (crate `matmul`); on a GPU by
//! Candle.
use super::gpu;
use super::rowwise::row_ops;
use crate::error::ModelError;
use crate::weights::{StoredWeight, Weights};
use attention::{ForwardContext, RowOps};
use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};
use matmul::{Product, Weight};

/// x times the transpose of a weight, plus a bias where the layer has one.
pub(crate) struct Linear {
    place: Place,
    out_features: usize,
    bias: Option<Vec<f32>>,
}

/// Where the weight is.
enum Place {
    Cpu(StoredWeight),
    /// With the bias, if there is one.
    Gpu(gpu::Weight, Option<Tensor>),
}

impl Linear {
    /// Loads `name.weight`, `[n, k]`, and `name.bias` if `bias`.
    pub fn load(w: &Weights, name: &str, n: usize, k: usize, bias: bool) -> std::result::Result<Self, ModelError> {
        let weight = w.matrix(&format!("{name}.weight"), n, k)?;
        let bias = if bias { Some(w.vector(&format!("{name}.bias"), n)?) } else { None };
        Ok(Self::new(weight, bias, w.device(), w.gpu_type())?)
    }

    /// Loads `name.weight`, `[n, k]`, as it is stored, to be multiplied in f32: for a small matrix whose errors would
    /// be large ones.
    pub fn load_exact(w: &Weights, name: &str, n: usize, k: usize) -> std::result::Result<Self, ModelError> {
        let weight = w.exact_matrix(&format!("{name}.weight"), n, k)?;
        Ok(Self::new(weight, None, w.device(), w.gpu_type().map(|_| DType::F32))?)
    }

    /// `bias`: `[out_features]`. `gpu_type`: what a GPU computes in; `None`: products are the CPU's.
    pub fn new(weight: StoredWeight, bias: Option<Vec<f32>>, device: &Device, gpu_type: Option<DType>) -> Result<Self> {
        let out_features = weight.view().n();
        let place = match gpu_type {
            None => Place::Cpu(weight),
            Some(compute) => {
                let bias = bias.as_ref().map(|bias| Tensor::from_slice(bias, bias.len(), device)).transpose()?;
                Place::Gpu(gpu::Weight::new(&weight, compute, device)?, bias)
            }
        };
        Ok(Linear { place, out_features, bias })
    }

    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    pub fn is_on_gpu(&self) -> bool {
        matches!(self.place, Place::Gpu(..))
    }

    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// x: `[rows, in_features]` f32 -> `[rows, out_features]` f32.
    pub fn forward(&self, x: &Tensor, ctx: &ForwardContext<'_>) -> Result<Tensor> {
        let [y] = Self::forward_all([self], x, ctx)?;
        Ok(y)
    }

    /// Several projections of the same rows; on the CPU their threads meet once for all.
    pub fn forward_all<const N: usize>(
        projections: [&Self; N],
        x: &Tensor,
        ctx: &ForwardContext<'_>,
    ) -> Result<[Tensor; N]> {
        Self::products(projections, x, row_ops(ctx))
    }

    pub(super) fn products<const N: usize>(
        projections: [&Self; N],
        x: &Tensor,
        ops: &dyn RowOps,
    ) -> Result<[Tensor; N]> {
        let outputs: Vec<Tensor> = match projections.iter().map(|p| p.on_cpu()).collect::<Option<Vec<_>>>() {
            Some(on_cpu) => multiply(&on_cpu, x)?,
            None => projections.iter().map(|p| p.forward_on_gpu(x, ops)).collect::<Result<_>>()?,
        };
        outputs.try_into().map_err(|_| candle_core::Error::Msg("as many outputs as projections".into()))
    }

    fn on_cpu(&self) -> Option<(Weight<'_>, Option<&[f32]>)> {
        match &self.place {
            Place::Cpu(weight) => Some((weight.view(), self.bias())),
            Place::Gpu(..) => None,
        }
    }

    fn forward_on_gpu(&self, x: &Tensor, ops: &dyn RowOps) -> Result<Tensor> {
        let Place::Gpu(weight, bias) = &self.place else { bail!("a projection of the CPU beside one of the GPU") };
        let y = self.in_turns(weight, x, ops)?;
        match bias {
            Some(bias) => y.broadcast_add(bias),
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

/// The rows of x times each weight, plus its bias.
fn multiply(projections: &[(Weight<'_>, Option<&[f32]>)], x: &Tensor) -> Result<Vec<Tensor>> {
    let (rows, k) = x.dims2()?;
    if let Some((weight, _)) = projections.iter().find(|(weight, _)| weight.k() != k) {
        bail!("a projection of {} inputs was given {k}", weight.k());
    }
    let (storage, layout) = x.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(data)), Some((from, to))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("a projection takes contiguous f32 rows")
    };
    let mut outputs: Vec<_> = projections.iter().map(|(weight, _)| vec![0f32; rows * weight.n()]).collect();
    let products = projections.iter().zip(&mut outputs);
    let mut products: Vec<_> = products.map(|((weight, _), out)| Product { weight: *weight, out }).collect();
    matmul::matmul_all(&data[from..to], &mut products);
    let biased = outputs.into_iter().zip(projections).map(|(mut out, (weight, bias))| {
        if let Some(bias) = bias {
            let rows = out.chunks_exact_mut(weight.n());
            rows.for_each(|row| row.iter_mut().zip(*bias).for_each(|(y, b)| *y += b));
        }
        Tensor::from_vec(out, (rows, weight.n()), &Device::Cpu)
    });
    biased.collect()
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
                let [y] = Linear::products([&linear], &x, &ops).unwrap();
                (y.to_vec2::<f32>().unwrap(), ops.started.into_inner().unwrap())
            };
            let (whole, once) = product(rows);
            let (parts, thrice) = product(3);
            assert_eq!(whole, parts, "{}", kind.name());
            assert_eq!(once, [(7, n * k)]);
            assert_eq!(thrice, [(7, n * k), (4, n * k), (1, n * k)]);
        }
    }
}
