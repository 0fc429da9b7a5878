//! Products on a GPU, by Candle: floats in the 16-bit type that the GPU is fast with, ggml's blocks as they are.
//!
//! The order in which a product is summed is Candle's to choose, and may depend on the number of rows.
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::{GgmlDType, QMatMul};
use candle_core::{DType, Device, Module, Result, Tensor, WithDType, bail};
use half::{bf16, f16};
use matmul::WeightType;

/// A weight in a GPU's memory.
pub(crate) enum GpuWeight {
    /// `[n, k]` in a float type.
    Floats(Tensor),
    /// `[n, k]` in ggml's quantisation blocks.
    Blocks(QMatMul),
}

impl GpuWeight {
    /// Copies a weight to the device; one of floats becomes `float`.
    pub fn new(weight: matmul::Weight<'_>, float: DType, device: &Device) -> Result<Self> {
        match block_type(weight.weight_type()) {
            Some(kind) => {
                let blocks = qtensor_from_ggml(kind, weight.bytes(), vec![weight.n(), weight.k()], device)?;
                Ok(GpuWeight::Blocks(QMatMul::from_qtensor(blocks)?))
            }
            None => Ok(GpuWeight::Floats(floats(weight, float, device)?)),
        }
    }

    /// x: `[rows, k]` f32 -> `[rows, n]` f32.
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            GpuWeight::Floats(weight) => x.to_dtype(weight.dtype())?.matmul(&weight.t()?)?.to_dtype(DType::F32),
            GpuWeight::Blocks(blocks) => blocks.forward(&x.contiguous()?),
        }
    }
}

fn floats(weight: matmul::Weight<'_>, float: DType, device: &Device) -> Result<Tensor> {
    let own = match weight.weight_type() {
        WeightType::F32 => DType::F32,
        WeightType::F16 => DType::F16,
        _ => DType::BF16,
    };
    if own == float {
        return Tensor::from_raw_buffer(weight.bytes(), own, &[weight.n(), weight.k()], device);
    }
    match float {
        DType::F16 => converted(weight, f16::from_f32, device),
        DType::BF16 => converted(weight, bf16::from_f32, device),
        DType::F32 => converted(weight, |x| x, device),
        other => bail!("products are not computed in {other:?}"),
    }
}

fn converted<T: WithDType>(weight: matmul::Weight<'_>, convert: impl Fn(f32) -> T, device: &Device) -> Result<Tensor> {
    let (n, k) = (weight.n(), weight.k());
    let mut row = vec![0f32; k];
    let mut all = Vec::with_capacity(n * k);
    for i in 0..n {
        matmul::dequantize_row(weight, i, &mut row);
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
    use super::*;

    const N: usize = 24;
    const K: usize = 256;

    fn values(len: usize, seed: u32) -> Vec<f32> {
        (0..len as u32).map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 8e6 - 1.05).collect()
    }

    /// Candle's CPU device stands in for a GPU: the same weights and the same products, but for rounding to the float
    /// type and of activations to Candle's own blocks (8 bit, so within 1/127 of the largest activation times the sum
    /// of weights).
    #[test]
    fn every_type_multiplies_as_on_the_cpu() {
        let (rows, x) = (3, values(3 * K, 7));
        let tensor = Tensor::from_slice(&x, (rows, K), &Device::Cpu).unwrap();
        for kind in WeightType::ALL {
            let bytes = matmul::quantize(kind, &values(N * K, 1)).unwrap();
            let weight = matmul::Weight::new(kind, N, K, &bytes).unwrap();
            let mut want = vec![0f32; rows * N];
            matmul::matmul_all(&x, &mut [matmul::Product { weight, out: &mut want }]);
            for float in [DType::F32, DType::F16, DType::BF16] {
                let got = GpuWeight::new(weight, float, &Device::Cpu).unwrap().product(&tensor).unwrap();
                let got = got.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
                let difference: Vec<f32> = got.iter().zip(&want).map(|(a, b)| a - b).collect();
                let relative = norm(&difference) / norm(&want);
                assert!(relative < 0.01, "{} in {float:?}: {relative}", kind.name());
            }
        }
    }
}
