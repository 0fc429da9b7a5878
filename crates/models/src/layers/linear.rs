//! Projections: on the CPU straight from the mapped file, summed in an order fixed by k (crate `matmul`); on a GPU by Candle.
use super::gpu;
use crate::loader::StoredWeight;
use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};
use matmul::{Product, Weight};

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
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [y] = Self::forward_all([self], x)?;
        Ok(y)
    }

    /// Several projections of the same rows; on the CPU their threads meet once for all.
    pub fn forward_all<const N: usize>(projections: [&Self; N], x: &Tensor) -> Result<[Tensor; N]> {
        let outputs: Vec<Tensor> = match projections.iter().map(|p| p.on_cpu()).collect::<Option<Vec<_>>>() {
            Some(on_cpu) => multiply(&on_cpu, x)?,
            None => projections.iter().map(|p| p.forward_on_gpu(x)).collect::<Result<_>>()?,
        };
        outputs.try_into().map_err(|_| candle_core::Error::Msg("as many outputs as projections".into()))
    }

    fn on_cpu(&self) -> Option<(Weight<'_>, Option<&[f32]>)> {
        match &self.place {
            Place::Cpu(weight) => Some((weight.view(), self.bias())),
            Place::Gpu(..) => None,
        }
    }

    fn forward_on_gpu(&self, x: &Tensor) -> Result<Tensor> {
        let Place::Gpu(weight, bias) = &self.place else { bail!("a projection of the CPU beside one of the GPU") };
        let y = weight.forward(x)?;
        match bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
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
