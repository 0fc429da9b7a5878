//! The operations of a model beside attention, on a GPU: launches for products and for each operation on rows.
mod delta_net;
mod experts;
mod products;
mod states;

use crate::executor::{Executor, Launch};
use crate::launch::{self, Gate, MATVEC_ROWS, NormBuffers, NormOperandBuffers, TOP_SLICE, TopBuffers, top_slices};
use crate::tables::words;
use attention::{ForwardContext, StateId, StateLayout, StatePool};
use candle_core::{Device, Error, Result, Tensor, bail};
use compute::{
    ComputeDevice, DeltaNetInput, DeltaNetWeights, ExpertWeights, PlacedLayer, PlacedWeight, Precision, Rows,
    StoredMatrix, Sum,
};
use delta_net::PlacedDeltaNet;
use experts::PlacedExperts;
use matmul::WeightType;
use products::{GpuRows, Packed, Placed, Products};
use states::GpuStates;
use std::sync::Arc;

/// A GPU as a [`ComputeDevice`].
pub struct GpuDevice<E: Executor> {
    executor: Arc<E>,
    tensors: Device,
    /// Bound where a kernel reads nothing.
    nothing: E::Buffer,
    /// See [`Self::with_matvec_types`].
    matvec_types: Vec<WeightType>,
}

impl<E: Executor> GpuDevice<E> {
    /// `tensors`: where Candle's tensors lie that `executor` takes and gives.
    ///
    /// Errors: no memory on the device.
    pub fn new(executor: E, tensors: Device) -> Result<Self> {
        let nothing = executor.buffer(&[]).map_err(Error::wrap)?;
        Ok(GpuDevice { executor: Arc::new(executor), tensors, nothing, matvec_types: Vec::new() })
    }

    /// Multiplies up to [`MATVEC_ROWS`] rows with weights of these types by `matvec`, which is faster where a GPU has
    /// no lane operations to spare; the bits of a row then depend on whether there are more rows than that.
    pub fn with_matvec_types(self, types: Vec<WeightType>) -> Self {
        GpuDevice { matvec_types: types, ..self }
    }

    /// The executor of the launches.
    pub fn executor(&self) -> &E {
        &self.executor
    }

    /// Memory for a tensor of `like`'s shape.
    fn room(&self, like: &Tensor) -> Result<E::Buffer> {
        self.executor.create_activation(like.elem_count() * 4).map_err(Error::wrap)
    }

    fn export(&self, buffer: &E::Buffer, like: &Tensor) -> Result<Tensor> {
        self.executor.export(buffer, like.dims(), like.device())
    }

    fn launch(&self, launches: &[Launch<'_, E::Buffer>]) -> Result<()> {
        self.executor.run(launches).map_err(Error::wrap)
    }

    /// Prepares the inputs of a norm of x, or of its sum with `delta`, and the buffer for that sum.
    ///
    /// Errors: tensors of other shapes; no memory.
    fn norm_input(&self, x: &Tensor, delta: Option<&Tensor>, weight: &Tensor) -> Result<NormInput<E::Buffer>> {
        let width = weight.elem_count();
        if x.dims().last() != Some(&width) || width == 0 || delta.is_some_and(|d| d.dims() != x.dims()) {
            bail!("a norm of {width} over {:?} and {:?}", x.dims(), delta.map(Tensor::dims));
        }
        let import = |tensor| self.executor.import(tensor);
        let added = delta.map(|delta| Ok::<_, Error>((import(delta)?, self.room(x)?))).transpose()?;
        Ok(NormInput { x: import(x)?, weight: import(weight)?, added })
    }

    /// The norm of x, or of its sum with `delta`; and that sum.
    fn norm(&self, x: &Tensor, delta: Option<&Tensor>, weight: &Tensor, eps: f32) -> Result<(Tensor, Option<Tensor>)> {
        let (input, out, width) = (self.norm_input(x, delta, weight)?, self.room(x)?, weight.elem_count());
        let (delta, sum) = input.delta_and_sum(&self.nothing);
        let buffers = NormBuffers { x: &input.x, delta, sum, weight: &input.weight, out: &out };
        let sizes = (width, input.added.is_some(), eps);
        self.launch(&[launch::add_rms_norm(x.elem_count() / width, sizes, &buffers)])?;
        Ok((self.export(&out, x)?, self.sum(&input, x)?))
    }

    /// The sum that a norm has made, of x's shape.
    fn sum(&self, input: &NormInput<E::Buffer>, x: &Tensor) -> Result<Option<Tensor>> {
        input.added.as_ref().map(|(_, sum)| self.export(sum, x)).transpose()
    }

    /// Prepares the products of some rows.
    fn of_rows<'a>(&'a self, rows: &'a Rows) -> Result<Products<'a, E>> {
        let Self { executor, nothing, matvec_types, .. } = self;
        Ok(Products { executor, rows: rows.get()?, experts: None, nothing, matvec_types })
    }

    /// The product of some rows as a tensor.
    fn matrix(&self, out: &E::Buffer, rows: &Rows, weight: &PlacedWeight) -> Result<Tensor> {
        self.executor.export(out, &[rows.num_rows(), weight.rows()], &self.tensors)
    }

    fn gated(&self, gate: &Tensor, x: &Tensor, by: Gate) -> Result<Tensor> {
        let (gate, from, out) = (self.executor.import(gate)?, self.executor.import(x)?, self.room(x)?);
        self.launch(&[launch::gate_mul(x.elem_count(), by, [&gate, &from, &out])])?;
        self.export(&out, x)
    }
}

/// The inputs of a norm.
struct NormInput<B> {
    x: B,
    weight: B,
    /// The term that is added to x, and the buffer for the sum.
    added: Option<(B, B)>,
}

impl<B> NormInput<B> {
    fn delta_and_sum<'a>(&'a self, nothing: &'a B) -> (&'a B, &'a B) {
        self.added.as_ref().map_or((nothing, nothing), |(delta, sum)| (delta, sum))
    }
}

/// Runs work in the driver's scope and returns what it gives.
fn scoped<E: Executor, T>(executor: &E, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (mut work, mut result) = (Some(work), None);
    executor.scope(&mut || result = work.take().map(|work| work()));
    result.unwrap_or_else(|| Err(Error::Msg("the device ran nothing".to_owned())))
}

impl<E: Executor + 'static> ComputeDevice for GpuDevice<E> {
    fn tensors(&self) -> &Device {
        &self.tensors
    }

    fn pass(&self, work: &mut dyn FnMut()) {
        self.executor.scope(work);
    }

    fn compiles_on_first_use(&self) -> bool {
        true
    }

    fn order_of_sums(&self) -> String {
        let types: Vec<&str> = self.matvec_types.iter().map(|kind| kind.name()).collect();
        format!("up to {MATVEC_ROWS} rows by matvec: {}", types.join(" "))
    }

    fn is_exact_by_row(&self) -> bool {
        self.matvec_types.is_empty()
    }

    fn failure(&self) -> Option<String> {
        self.executor.failure().map(|error| error.to_string())
    }

    fn read(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<f32>>> {
        scoped(&*self.executor, || {
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
        let view = matrix.view();
        let placed = scoped(&*self.executor, || Placed::new(&*self.executor, view, bias, precision))?;
        let n = view.n();
        matrix.forget();
        Ok(PlacedWeight::new(n, placed))
    }

    fn rows(&self, x: &Tensor) -> Result<Rows> {
        let (rows, k) = x.dims2()?;
        Ok(Rows::new(rows, GpuRows::floats(self.executor.import(x)?, [rows, k])))
    }

    fn products(&self, x: &Rows, weights: &[&PlacedWeight]) -> Result<Vec<Tensor>> {
        let placed = weights.iter().map(|weight| weight.get()).collect::<Result<Vec<_>>>()?;
        let outs = self.of_rows(x)?.each(&placed)?;
        outs.iter().zip(weights).map(|(out, weight)| self.matrix(out, x, weight)).collect()
    }

    fn product_onto(&self, x: &Tensor, rows: &Rows, weight: &PlacedWeight) -> Result<Sum> {
        if x.dims() != [rows.num_rows(), weight.rows()] {
            bail!("a product of [{}, {}] onto {:?}", rows.num_rows(), weight.rows(), x.dims());
        }
        match self.of_rows(rows)?.onto(weight.get()?, &self.executor.import(x)?)? {
            Some(out) => Ok(Sum { x: self.matrix(&out, rows, weight)?, delta: None }),
            None => Ok(Sum { x: x.clone(), delta: self.products(rows, &[weight])?.pop() }),
        }
    }

    fn gated_product(&self, x: &Rows, gate: &PlacedWeight, up: &PlacedWeight) -> Result<Rows> {
        match self.of_rows(x)?.gated(gate.get()?, up.get()?)? {
            Some(out) => Ok(Rows::new(x.num_rows(), GpuRows::floats(out, [x.num_rows(), gate.rows()]))),
            None => {
                let products = self.products(x, &[gate, up])?;
                self.rows(&self.silu_mul(&products[0], &products[1])?)
            }
        }
    }

    fn norm_rows(&self, x: &mut Sum, weight: &Tensor, eps: f32) -> Result<Rows> {
        let (rows, k) = x.x.dims2()?;
        if rows <= MATVEC_ROWS && !self.matvec_types.is_empty() {
            let normed = x.norm(self, weight, eps)?;
            return self.rows(&normed);
        }
        let input = self.norm_input(&x.x, x.delta.take().as_ref(), weight)?;
        let packed = Packed::create(&*self.executor, rows, k)?;
        let (delta, sum) = input.delta_and_sum(&self.nothing);
        let Packed { halves: operand, sums } = &packed;
        let buffers = NormOperandBuffers { x: &input.x, delta, weight: &input.weight, sum, operand, sums };
        self.launch(&[launch::norm_operand(rows, (k, input.added.is_some(), eps), &buffers)])?;
        if let Some(sum) = self.sum(&input, &x.x)? {
            x.x = sum;
        }
        Ok(Rows::new(rows, GpuRows::packed(packed, [rows, k])))
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
        if gate.dims() != up.dims() {
            bail!("a gate of {:?} for {:?}", gate.dims(), up.dims());
        }
        self.gated(gate, up, Gate::Silu)
    }

    fn sigmoid_mul(&self, gate: &Tensor, x: &Tensor) -> Result<Tensor> {
        let (width, rows) = x.dims().split_last().map_or((1, &[][..]), |(width, rows)| (*width, rows));
        match gate.dims().split_last() {
            Some((1, of)) if of == rows => self.gated(gate, x, Gate::Sigmoid(width)),
            _ if gate.dims() == x.dims() => self.gated(gate, x, Gate::Sigmoid(1)),
            _ => bail!("a gate of {:?} for {:?}", gate.dims(), x.dims()),
        }
    }

    fn select_rows(&self, x: &Tensor, rows: &[u32]) -> Result<Tensor> {
        let (count, width) = x.dims2()?;
        if let Some(row) = rows.iter().find(|row| **row as usize >= count) {
            bail!("row {row} of {count}");
        }
        let numbers = self.executor.buffer(&words(rows.iter().copied())).map_err(Error::wrap)?;
        let out = self.executor.create_activation(rows.len() * width * 4).map_err(Error::wrap)?;
        self.launch(&[launch::gather_rows(rows.len(), width, [&self.executor.import(x)?, &numbers, &out])])?;
        self.executor.export(&out, &[rows.len(), width], x.device())
    }

    fn states(&self, layout: StateLayout, num_slots: usize) -> Result<StatePool> {
        let memory = scoped(&*self.executor, || GpuStates::new(&self.executor, &layout, num_slots))?;
        Ok(StatePool::new(layout, num_slots, Box::new(memory)))
    }

    fn place_delta_net(&self, weights: DeltaNetWeights) -> Result<PlacedLayer> {
        scoped(&*self.executor, || Ok(PlacedLayer::new(PlacedDeltaNet::new(&*self.executor, &weights)?)))
    }

    fn delta_net(
        &self,
        net: &PlacedLayer,
        input: DeltaNetInput<'_>,
        state: StateId,
        ctx: &ForwardContext<'_>,
    ) -> Result<Tensor> {
        self.delta_net_of(net.get()?, input, state, ctx)
    }

    fn place_experts(&self, weights: ExpertWeights) -> Result<PlacedLayer> {
        scoped(&*self.executor, || Ok(PlacedLayer::new(PlacedExperts::new(&*self.executor, weights)?)))
    }

    fn experts(&self, experts: &PlacedLayer, x: &Tensor, logits: &Tensor) -> Result<Tensor> {
        self.experts_of(experts.get()?, x, logits)
    }

    fn largest(&self, rows: &Tensor, count: usize) -> Result<Option<Vec<(u32, f32)>>> {
        let (n, width) = rows.dims2()?;
        let slices = top_slices(width);
        if count == 0 || count > width || count * slices > TOP_SLICE {
            return Ok(None);
        }
        let create = |words: usize| self.executor.create(4 * words).map_err(Error::wrap);
        scoped(&*self.executor, || {
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
