//! What a model computes beside attention, on a GPU: a launch for each operation on rows, Candle's products.
mod products;

use crate::batch::rows_at_once;
use crate::executor::{Executor, Launch};
use crate::launch::{self, NormBuffers, TOP_SLICE, TopBuffers, top_slices};
use crate::limits::check_buffer;
use candle_core::{DType, Device, Error, Result, Tensor, bail};
use compute::{ComputeDevice, ExpertOutput, PlacedWeight, Precision, StoredMatrix};
use products::GpuWeight;
use std::sync::Arc;

/// A GPU as a [`ComputeDevice`].
pub struct GpuDevice<E: Executor> {
    executor: E,
    tensors: Device,
    /// The type in which floats are multiplied.
    float: DType,
    /// Bound where a kernel reads nothing.
    nothing: E::Buffer,
}

/// A weight in the GPU's memory, and its bias, `[n]`.
struct Placed {
    weight: GpuWeight,
    bias: Option<Tensor>,
    /// Multiply-adds of a row's product.
    work: u64,
}

impl<E: Executor> GpuDevice<E> {
    /// `tensors`: where Candle's tensors lie that `executor` takes and gives. `float`: the type in which floats are
    /// multiplied.
    ///
    /// Errors: no memory on the device.
    pub fn new(executor: E, tensors: Device, float: DType) -> Result<Self> {
        let nothing = executor.buffer(&[]).map_err(Error::wrap)?;
        Ok(GpuDevice { executor, tensors, float, nothing })
    }

    /// What runs the launches.
    pub fn executor(&self) -> &E {
        &self.executor
    }

    /// Memory for a tensor of `like`'s shape.
    fn room(&self, like: &Tensor) -> Result<E::Buffer> {
        self.executor.create_tensor(like.elem_count() * 4).map_err(Error::wrap)
    }

    fn export(&self, buffer: &E::Buffer, like: &Tensor) -> Result<Tensor> {
        self.executor.export(buffer, like.dims(), like.device())
    }

    fn launch(&self, launches: &[Launch<'_, E::Buffer>]) -> Result<()> {
        self.executor.run(launches).map_err(Error::wrap)
    }

    /// The norm of x, or of its sum with `delta`; and that sum.
    fn norm(&self, x: &Tensor, delta: Option<&Tensor>, weight: &Tensor, eps: f32) -> Result<(Tensor, Option<Tensor>)> {
        let width = weight.elem_count();
        if x.dims().last() != Some(&width) || width == 0 || delta.is_some_and(|d| d.dims() != x.dims()) {
            bail!("a norm of {width} over {:?} and {:?}", x.dims(), delta.map(Tensor::dims));
        }
        let import = |tensor| self.executor.import(tensor);
        let (from, weight, out) = (import(x)?, import(weight)?, self.room(x)?);
        let added = delta.map(|delta| Ok::<_, Error>((import(delta)?, self.room(x)?))).transpose()?;
        let (delta, sum) = added.as_ref().map_or((&self.nothing, &self.nothing), |(delta, sum)| (delta, sum));
        let buffers = NormBuffers { x: &from, delta, sum, weight: &weight, out: &out };
        let sizes = (width, added.is_some(), eps);
        self.launch(&[launch::add_rms_norm(x.elem_count() / width, sizes, &buffers)])?;
        let sum = added.as_ref().map(|(_, sum)| self.export(sum, x)).transpose()?;
        Ok((self.export(&out, x)?, sum))
    }

    fn gated(&self, gate: &Tensor, x: &Tensor, silu: bool) -> Result<Tensor> {
        if gate.dims() != x.dims() {
            bail!("a gate of {:?} for {:?}", gate.dims(), x.dims());
        }
        let (gate, from, out) = (self.executor.import(gate)?, self.executor.import(x)?, self.room(x)?);
        self.launch(&[launch::gate_mul(x.elem_count(), silu, [&gate, &from, &out])])?;
        self.export(&out, x)
    }

    /// A product, cut into several of fewer rows where one of all would keep the GPU from the display for too long.
    fn product(&self, x: &Tensor, placed: &Placed) -> Result<Tensor> {
        let rows = x.dim(0)?;
        let at_once = rows_at_once(rows, placed.work, self.executor.most_work());
        let product = |from: usize, rows: usize| {
            self.executor.start(rows as u64 * placed.work).map_err(Error::wrap)?;
            placed.weight.product(&x.narrow(0, from, rows)?)
        };
        let y = if at_once >= rows {
            product(0, rows)?
        } else {
            let products = (0..rows).step_by(at_once).map(|from| product(from, at_once.min(rows - from)));
            Tensor::cat(&products.collect::<Result<Vec<_>>>()?, 0)?
        };
        match &placed.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

/// Runs work in the driver's scope and returns what it gives.
fn scoped<E: Executor, T>(executor: &E, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (mut work, mut result) = (Some(work), None);
    executor.scope(&mut || result = work.take().map(|work| work()));
    result.unwrap_or_else(|| Err(Error::Msg("the device ran nothing".to_owned())))
}

impl<E: Executor> ComputeDevice for GpuDevice<E> {
    fn tensors(&self) -> &Device {
        &self.tensors
    }

    fn pass(&self, work: &mut dyn FnMut()) {
        self.executor.scope(work);
    }

    fn compiles_on_first_use(&self) -> bool {
        true
    }

    fn failure(&self) -> Option<String> {
        self.executor.failure().map(|error| error.to_string())
    }

    fn read(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<f32>>> {
        scoped(&self.executor, || {
            let flat = tensors.iter().map(|tensor| tensor.flatten_all()).collect::<Result<Vec<_>>>()?;
            let all = if let [one] = &*flat { one.to_vec1::<f32>()? } else { Tensor::cat(&flat, 0)?.to_vec1()? };
            if let Some(error) = self.executor.failure() {
                return Err(Error::wrap(error));
            }
            let mut rest = all.into_iter();
            Ok(flat.iter().map(|tensor| rest.by_ref().take(tensor.elem_count()).collect()).collect())
        })
    }

    fn place(&self, matrix: Arc<dyn StoredMatrix>, bias: Option<&[f32]>, precision: Precision) -> Result<PlacedWeight> {
        let float = match precision {
            Precision::Fast => self.float,
            Precision::Exact => DType::F32,
        };
        let view = matrix.view();
        check_buffer(view.bytes().len(), self.executor.largest_buffer()).map_err(Error::wrap)?;
        let (weight, bias) = scoped(&self.executor, || {
            let bias = bias.map(|bias| Tensor::from_slice(bias, bias.len(), &self.tensors)).transpose()?;
            Ok((GpuWeight::new(view, float, &self.tensors)?, bias))
        })?;
        let (n, work) = (view.n(), view.n() as u64 * view.k() as u64);
        matrix.forget();
        Ok(PlacedWeight::new(n, Placed { weight, bias, work }))
    }

    fn products(&self, x: &Tensor, weights: &[&PlacedWeight]) -> Result<Vec<Tensor>> {
        weights.iter().map(|weight| self.product(x, weight.get()?)).collect()
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
        Ok(self.norm(x, None, weight, eps)?.0)
    }

    fn add_rms_norm(&self, x: &Tensor, delta: &Tensor, weight: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
        match self.norm(x, Some(delta), weight, eps)? {
            (normed, Some(sum)) => Ok((sum, normed)),
            (_, None) => unreachable!("something was added"),
        }
    }

    fn silu_mul(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        self.gated(gate, up, true)
    }

    fn sigmoid_mul(&self, gate: &Tensor, x: &Tensor) -> Result<Tensor> {
        self.gated(gate, x, false)
    }

    /// Nothing is read back: each row's outputs are gathered in the order of the experts, weighed and added.
    fn mix(&self, num_rows: usize, experts: &[ExpertOutput]) -> Result<Tensor> {
        // Where each row's outputs lie among all outputs, and their weights, in the order of the experts.
        let mut places = vec![Vec::new(); num_rows];
        let routed = experts.iter().flat_map(|expert| expert.rows.iter().zip(&expert.weights));
        for (at, (row, weight)) in routed.enumerate() {
            places[*row as usize].push((at as u32, *weight));
        }
        let (places, weights): (Vec<u32>, Vec<f32>) = places.into_iter().flatten().unzip();
        let per_row = places.len() / num_rows.max(1);
        let index = Tensor::from_slice(&places, places.len(), &self.tensors)?;
        let weights = Tensor::from_slice(&weights, (weights.len(), 1), &self.tensors)?;
        let outputs: Vec<&Tensor> = experts.iter().map(|expert| &expert.output).collect();
        let each = Tensor::cat(&outputs, 0)?.index_select(&index, 0)?.broadcast_mul(&weights)?;
        let each = each.reshape((num_rows, per_row, ()))?;
        let first = each.narrow(1, 0, 1)?.squeeze(1)?;
        (1..per_row).try_fold(first, |sum, i| sum + each.narrow(1, i, 1)?.squeeze(1)?)
    }

    fn largest(&self, rows: &Tensor, count: usize) -> Result<Option<Vec<(u32, f32)>>> {
        let (n, width) = rows.dims2()?;
        let slices = top_slices(width);
        if count == 0 || count > width || count * slices > TOP_SLICE {
            return Ok(None);
        }
        let create = |words: usize| self.executor.create(4 * words).map_err(Error::wrap);
        scoped(&self.executor, || {
            let (logits, per_slice, all) = (self.executor.import(rows)?, n * slices * count, n * count);
            let (slice_values, slice_indices, top) = (create(per_slice)?, create(per_slice)?, create(2 * all)?);
            let buffers =
                TopBuffers { logits: &logits, slice_values: &slice_values, slice_indices: &slice_indices, top: &top };
            self.launch(&launch::top(n, width, count, &buffers))?;
            let mut bytes = vec![0; 8 * all];
            self.executor.download(&top, 0, &mut bytes).map_err(Error::wrap)?;
            let (values, indices) = bytes.as_chunks::<4>().0.split_at(all);
            let pair = |(value, index): (&[u8; 4], &[u8; 4])| (u32::from_le_bytes(*index), f32::from_le_bytes(*value));
            Ok(Some(values.iter().zip(indices).map(pair).collect()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::ExecError;
    use matmul::{Weight, WeightType};
    use std::sync::Mutex;

    /// Runs nothing, and notes the work that others announce.
    struct Announced {
        most_work: u64,
        started: Mutex<Vec<u64>>,
    }

    impl Executor for Announced {
        type Buffer = ();

        fn most_work(&self) -> u64 {
            self.most_work
        }
        fn start(&self, work: u64) -> std::result::Result<(), ExecError> {
            self.started.lock().unwrap().push(work);
            Ok(())
        }
        fn create(&self, _: usize) -> std::result::Result<(), ExecError> {
            Ok(())
        }
        fn upload(&self, _: &(), _: usize, _: &[u8]) -> std::result::Result<(), ExecError> {
            Ok(())
        }
        fn download(&self, _: &(), _: usize, _: &mut [u8]) -> std::result::Result<(), ExecError> {
            Ok(())
        }
        fn run(&self, _: &[Launch<'_, ()>]) -> std::result::Result<(), ExecError> {
            Ok(())
        }
    }

    struct Stored(WeightType, usize, usize, Vec<u8>);

    impl StoredMatrix for Stored {
        fn view(&self) -> Weight<'_> {
            Weight::new(self.0, self.1, self.2, &self.3).unwrap()
        }
        fn forget(&self) {}
    }

    #[test]
    fn a_product_that_is_cut_is_that_of_all_rows() {
        let (n, k, rows) = (24, 64, 7);
        let values = |len: usize| -> Vec<f32> { (0..len).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect() };
        let x = Tensor::from_vec(values(rows * k), (rows, k), &Device::Cpu).unwrap();
        for kind in [WeightType::F32, WeightType::Q8_0] {
            let bytes = matmul::quantize(kind, &values(n * k)).unwrap();
            let matrix: Arc<dyn StoredMatrix> = Arc::new(Stored(kind, n, k, bytes));
            let row = (n * k) as u64;
            let product = |rows_at_once: u64| {
                let executor = Announced { most_work: rows_at_once * row, started: Mutex::default() };
                let device = GpuDevice::new(executor, Device::Cpu, DType::F32).unwrap();
                let weight = device.place(matrix.clone(), Some(&values(n)), Precision::Fast).unwrap();
                let y = device.products(&x, &[&weight]).unwrap().remove(0);
                (y.to_vec2::<f32>().unwrap(), device.executor.started.into_inner().unwrap())
            };
            let (whole, once) = product(rows as u64);
            let (cut, thrice) = product(3);
            assert_eq!(whole, cut, "{}", kind.name());
            assert_eq!(once, [7 * row]);
            assert_eq!(thrice, [3 * row, 3 * row, row]);
        }
    }
}
