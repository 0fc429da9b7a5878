//! Products on a GPU: floats in the 16-bit type that it computes in, ggml's blocks as they are. Activations between
//! layers are f32.
//!
//! The order in which a product is summed is Candle's to choose, and may depend on the number of rows. Products of many
//! rows are cut (`Linear::in_turns`): a Mac's display waits for no more than a tenth of a second.
use crate::weights::StoredWeight;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::{GgmlDType, QMatMul};
use candle_core::{DType, Device, Module, Result, Tensor, WithDType, bail};
use half::{bf16, f16};
use matmul::WeightType;

/// A weight on a GPU.
pub(crate) enum Weight {
    /// `[n, k]`
    Floats(Tensor),
    /// `[n, k]` in ggml's quantisation blocks.
    Blocks(QMatMul),
}

impl Weight {
    /// Copies a weight to the device; its mapped pages are dropped.
    pub fn new(stored: &StoredWeight, compute: DType, device: &Device) -> Result<Self> {
        let view = stored.view();
        let (n, k) = (view.n(), view.k());
        let weight = match block_type(view.weight_type()) {
            Some(kind) => {
                let blocks = qtensor_from_ggml(kind, view.bytes(), vec![n, k], device)?;
                Weight::Blocks(QMatMul::from_qtensor(blocks)?)
            }
            None => Weight::Floats(floats(stored, compute, device)?),
        };
        stored.forget_rows(0..n);
        Ok(weight)
    }

    /// x: `[rows, k]` f32 -> `[rows, n]` f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Weight::Floats(weight) => x.to_dtype(weight.dtype())?.matmul(&weight.t()?)?.to_dtype(DType::F32),
            Weight::Blocks(blocks) => blocks.forward(&x.contiguous()?),
        }
    }
}

fn floats(stored: &StoredWeight, compute: DType, device: &Device) -> Result<Tensor> {
    let view = stored.view();
    let (n, k) = (view.n(), view.k());
    let own = match view.weight_type() {
        WeightType::F32 => DType::F32,
        WeightType::F16 => DType::F16,
        _ => DType::BF16,
    };
    if own == compute {
        return Tensor::from_raw_buffer(view.bytes(), own, &[n, k], device);
    }
    match compute {
        DType::F16 => converted(view, f16::from_f32, device),
        DType::BF16 => converted(view, bf16::from_f32, device),
        DType::F32 => converted(view, |x| x, device),
        other => bail!("projections are not computed in {other:?}"),
    }
}

fn converted<T: WithDType>(view: matmul::Weight<'_>, convert: impl Fn(f32) -> T, device: &Device) -> Result<Tensor> {
    let (n, k) = (view.n(), view.k());
    let mut row = vec![0f32; k];
    let mut all = Vec::with_capacity(n * k);
    for i in 0..n {
        matmul::dequantize_row(view, i, &mut row);
        all.extend(row.iter().map(|x| convert(*x)));
    }
    Tensor::from_vec(all, (n, k), device)
}

/// Candle's name of a quantised type; `None` for floats.
fn block_type(kind: WeightType) -> Option<GgmlDType> {
    match kind {
        WeightType::F32 | WeightType::F16 | WeightType::Bf16 => None,
        WeightType::Q4_0 => Some(GgmlDType::Q4_0),
        WeightType::Q4_1 => Some(GgmlDType::Q4_1),
        WeightType::Q5_0 => Some(GgmlDType::Q5_0),
        WeightType::Q5_1 => Some(GgmlDType::Q5_1),
        WeightType::Q8_0 => Some(GgmlDType::Q8_0),
        WeightType::Q2_K => Some(GgmlDType::Q2K),
        WeightType::Q3_K => Some(GgmlDType::Q3K),
        WeightType::Q4_K => Some(GgmlDType::Q4K),
        WeightType::Q5_K => Some(GgmlDType::Q5K),
        WeightType::Q6_K => Some(GgmlDType::Q6K),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Linear;
    use super::super::rowwise::CpuRows;
    use super::*;

    const N: usize = 24;
    const K: usize = 256;

    fn values(len: usize, seed: u32) -> Vec<f32> {
        (0..len as u32).map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 8e6 - 1.05).collect()
    }

    fn weight(kind: WeightType) -> StoredWeight {
        let bytes = matmul::quantize(kind, &values(N * K, 1)).unwrap();
        StoredWeight::owned(bytes, kind, (N, K)).unwrap()
    }

    /// Candle's CPU device stands in for a GPU: the same weights and the same products, but for rounding to the compute
    /// type and of activations to Candle's own blocks (8 bit, so within 1/127 of the largest activation times the sum
    /// of weights).
    #[test]
    fn every_type_multiplies_as_on_the_cpu() {
        let x = Tensor::from_vec(values(3 * K, 7), (3, K), &Device::Cpu).unwrap();
        for kind in WeightType::ALL {
            let want = Linear::new(weight(kind), None, &Device::Cpu, None).unwrap();
            let [want] = Linear::products([&want], &x, &CpuRows).unwrap();
            for compute in [DType::F32, DType::F16, DType::BF16] {
                let got = Weight::new(&weight(kind), compute, &Device::Cpu).unwrap().forward(&x).unwrap();
                let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
                let (got, want) = (flat(&got), flat(&want));
                let difference: Vec<f32> = got.iter().zip(&want).map(|(a, b)| a - b).collect();
                let relative = norm(&difference) / norm(&want);
                assert!(relative < 0.01, "{} in {compute:?}: {relative}", kind.name());
            }
        }
    }
}
