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
            // Candle's kernel writes beyond its output.
            Some(GgmlDType::Q2K) => {
                bail!("Q2_K weights are not multiplied on a GPU; take a file of Q3_K or more bits, or --device cpu")
            }
            Some(_) if has_ragged_rows(weight) => Ok(GpuWeight::Floats(floats(weight, float, device)?)),
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
            GpuWeight::Blocks(blocks) => {
                let (x, (rows, k)) = (at_start(x)?, x.dims2()?);
                if (2..=ROWS_BY_VECTOR).contains(&rows) {
                    return blocks.forward(&x.reshape((rows, 1, k))?)?.squeeze(1);
                }
                blocks.forward(&x)
            }
        }
    }
}

/// The rows of a product up to which each is multiplied as a vector. Candle's kernel for matrices pads rows to 32, so
/// that two of them would take longer than one after the other.
const ROWS_BY_VECTOR: usize = 4;

/// The rows in memory that begins with them: Candle's quantised products of matrices on Metal read from where the
/// memory begins, wherever in it the rows lie.
fn at_start(x: &Tensor) -> Result<Tensor> {
    if x.layout().start_offset() == 0 { x.contiguous() } else { x.force_contiguous() }
}

/// Whether Candle's kernels for K-quants would write beyond a product's rows, whose number they take to be a multiple
/// of 4. Such a weight is kept as floats.
fn has_ragged_rows(weight: matmul::Weight<'_>) -> bool {
    use WeightType::{Q3_K, Q4_K, Q5_K, Q6_K};
    matches!(weight.weight_type(), Q3_K | Q4_K | Q5_K | Q6_K) && !weight.n().is_multiple_of(4)
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

    fn quantised(kind: WeightType, n: usize) -> Result<GpuWeight> {
        let bytes = matmul::quantize(kind, &values(n * K, 1)).unwrap();
        GpuWeight::new(matmul::Weight::new(kind, n, K, &bytes).unwrap(), DType::F32, &Device::Cpu)
    }

    #[test]
    fn what_candles_kernels_would_write_beyond_is_refused_or_kept_as_floats() {
        let error = quantised(WeightType::Q2_K, N).err().unwrap().to_string();
        assert!(error.contains("Q2_K") && error.contains("--device cpu"), "{error}");
        for n in 5..9 {
            let floats = matches!(quantised(WeightType::Q6_K, n).unwrap(), GpuWeight::Floats(_));
            assert_eq!(floats, n != 8, "{n} rows");
            assert!(matches!(quantised(WeightType::Q8_0, n).unwrap(), GpuWeight::Blocks(_)), "{n} rows");
        }
    }

    #[test]
    fn rows_in_the_middle_of_a_tensor_get_memory_that_begins_with_them() {
        let x = Tensor::from_vec(values(8 * K, 3), (8, K), &Device::Cpu).unwrap();
        let middle = x.narrow(0, 3, 2).unwrap();
        assert!(middle.is_contiguous() && middle.layout().start_offset() > 0);
        let moved = at_start(&middle).unwrap();
        assert_eq!(moved.layout().start_offset(), 0);
        assert_eq!(moved.to_vec2::<f32>().unwrap(), middle.to_vec2::<f32>().unwrap());
    }

    #[test]
    fn a_few_rows_are_multiplied_as_each_of_them_alone() {
        let weight = quantised(WeightType::Q4_K, N).unwrap();
        for rows in 1..=ROWS_BY_VECTOR + 1 {
            let x = Tensor::from_vec(values(rows * K, 5), (rows, K), &Device::Cpu).unwrap();
            let together = weight.product(&x).unwrap();
            assert_eq!(together.dims(), [rows, N]);
            for row in 0..rows {
                let alone = weight.product(&x.narrow(0, row, 1).unwrap()).unwrap();
                let together = together.narrow(0, row, 1).unwrap();
                assert_eq!(alone.to_vec2::<f32>().unwrap(), together.to_vec2::<f32>().unwrap(), "row {row} of {rows}");
            }
        }
    }

    /// Candle's CPU device stands in for a GPU: the same weights and the same products, but for rounding to the float
    /// type and of activations to Candle's own blocks (8 bit, so within 1/127 of the largest activation times the sum
    /// of weights).
    #[test]
    fn every_type_multiplies_as_on_the_cpu() {
        let (rows, x) = (3, values(3 * K, 7));
        let tensor = Tensor::from_slice(&x, (rows, K), &Device::Cpu).unwrap();
        for kind in WeightType::ALL.into_iter().filter(|kind| *kind != WeightType::Q2_K) {
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
