//! The CPU: products are summed in an order fixed by k (crate `matmul`), straight from where the weight is stored.
use crate::experts::CpuExperts;
use crate::rowwise::{Elementwise, RowNorm, exp};
use crate::spinning::with_spinning_pool;
use crate::{
    ComputeDevice, DeltaNetInput, DeltaNetWeights, ExpertWeights, PlacedLayer, PlacedWeight, Precision, Rows,
    StoredMatrix,
};
use attention::{ForwardContext, StateId};
use candle_core::{CpuStorage, Device, Result, Storage, Tensor, bail};
use matmul::Product;
use std::sync::Arc;

/// The CPU as a [`ComputeDevice`].
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuDevice;

/// A weight that stays where it is stored.
struct CpuWeight {
    matrix: Arc<dyn StoredMatrix>,
    bias: Option<Vec<f32>>,
}

impl ComputeDevice for CpuDevice {
    fn tensors(&self) -> &Device {
        &Device::Cpu
    }

    fn place(&self, weight: Arc<dyn StoredMatrix>, bias: Option<&[f32]>, _: Precision) -> Result<PlacedWeight> {
        let n = weight.view().n();
        Ok(PlacedWeight::new(n, CpuWeight { matrix: weight, bias: bias.map(<[f32]>::to_vec) }))
    }

    fn pass(&self, work: &mut dyn FnMut()) {
        with_spinning_pool(work);
    }

    fn rows(&self, x: &Tensor) -> Result<Rows> {
        Ok(Rows::new(x.dim(0)?, x.clone()))
    }

    /// The threads of all products meet once.
    fn products(&self, x: &Rows, weights: &[&PlacedWeight]) -> Result<Vec<Tensor>> {
        let x = x.get::<Tensor>()?;
        let (rows, k) = x.dims2()?;
        let weights = weights.iter().map(|weight| weight.get::<CpuWeight>()).collect::<Result<Vec<_>>>()?;
        if let Some(weight) = weights.iter().map(|weight| weight.matrix.view()).find(|weight| weight.k() != k) {
            bail!("a projection of {} inputs was given {k}", weight.k());
        }
        let (storage, layout) = x.storage_and_layout();
        let (Storage::Cpu(CpuStorage::F32(data)), Some((from, to))) = (&*storage, layout.contiguous_offsets()) else {
            bail!("a projection takes contiguous f32 rows")
        };
        let mut outputs: Vec<_> = weights.iter().map(|weight| vec![0f32; rows * weight.matrix.view().n()]).collect();
        let products = weights.iter().zip(&mut outputs);
        let mut products: Vec<_> = products.map(|(w, out)| Product { weight: w.matrix.view(), out }).collect();
        matmul::matmul_all(&data[from..to], &mut products);
        let biased = outputs.into_iter().zip(weights).map(|(mut out, weight)| {
            let n = weight.matrix.view().n();
            if let Some(bias) = &weight.bias {
                out.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
            }
            Tensor::from_vec(out, (rows, n), &Device::Cpu)
        });
        biased.collect()
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
        x.contiguous()?.apply_op2_no_bwd(weight, &RowNorm(eps))
    }

    fn add_rms_norm(&self, x: &Tensor, delta: &Tensor, weight: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
        let sum = x.apply_op2_no_bwd(delta, &Elementwise("add", |a: f32, b: f32| a + b))?;
        let normed = self.rms_norm(&sum, weight, eps)?;
        Ok((sum, normed))
    }

    fn silu_mul(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        gate.apply_op2_no_bwd(up, &Elementwise("silu-mul", |gate: f32, up: f32| gate / (1.0 + exp(-gate)) * up))
    }

    fn sigmoid_mul(&self, gate: &Tensor, x: &Tensor) -> Result<Tensor> {
        gate.apply_op2_no_bwd(x, &Elementwise("sigmoid-mul", |gate: f32, x: f32| x / (1.0 + exp(-gate))))
    }

    fn place_delta_net(&self, weights: DeltaNetWeights) -> Result<PlacedLayer> {
        Ok(PlacedLayer::new(weights))
    }

    fn delta_net(
        &self,
        net: &PlacedLayer,
        input: DeltaNetInput<'_>,
        state: StateId,
        ctx: &ForwardContext<'_>,
    ) -> Result<Tensor> {
        net.get::<DeltaNetWeights>()?.forward(input, state, ctx)
    }

    fn place_experts(&self, weights: ExpertWeights) -> Result<PlacedLayer> {
        Ok(PlacedLayer::new(CpuExperts::new(self, weights)?))
    }

    fn experts(&self, experts: &PlacedLayer, x: &Tensor, logits: &Tensor) -> Result<Tensor> {
        experts.get::<CpuExperts>()?.forward(self, x, logits)
    }

    /// The rows are in the CPU's memory: the caller reads them itself.
    fn largest(&self, _: &Tensor, _: usize) -> Result<Option<Vec<(u32, f32)>>> {
        Ok(None)
    }
}
