//! A model's row-wise operations, one launch each.
use crate::backend::GpuBackend;
use crate::executor::{Executor, Launch};
use crate::launch::{self, NormBuffers, TOP_SLICE, TopBuffers, top_slices};
use crate::pace::rows_at_once;
use attention::RowOps;
use candle_core::{Error, Result, Tensor, bail};

impl<E: Executor> GpuBackend<E> {
    fn import(&self, tensor: &Tensor) -> Result<E::Buffer> {
        self.executor.import(tensor)
    }

    /// Memory for a tensor of `like`'s shape.
    fn room(&self, like: &Tensor) -> Result<E::Buffer> {
        self.executor.create_tensor(like.elem_count() * 4).map_err(Error::wrap)
    }

    fn export(&self, buffer: &E::Buffer, like: &Tensor) -> Result<Tensor> {
        self.executor.export(buffer, like.dims(), like.device())
    }

    fn launch(&self, launch: Launch<'_, E::Buffer>) -> Result<()> {
        self.run(&[launch])
    }

    /// x, or its sum with `delta`, normed; and that sum.
    fn norm(&self, x: &Tensor, delta: Option<&Tensor>, weight: &Tensor, eps: f32) -> Result<(Tensor, Option<Tensor>)> {
        let width = weight.elem_count();
        if x.dims().last() != Some(&width) || width == 0 || delta.is_some_and(|d| d.dims() != x.dims()) {
            bail!("a norm of {width} over {:?} and {:?}", x.dims(), delta.map(Tensor::dims));
        }
        let (from, weight, out) = (self.import(x)?, self.import(weight)?, self.room(x)?);
        let added = delta.map(|delta| Ok::<_, Error>((self.import(delta)?, self.room(x)?))).transpose()?;
        let (delta, sum) = added.as_ref().map_or((&self.nothing, &self.nothing), |(delta, sum)| (delta, sum));
        let buffers = NormBuffers { x: &from, delta, sum, weight: &weight, out: &out };
        let sizes = (width, added.is_some(), eps);
        self.launch(launch::add_rms_norm(x.elem_count() / width, sizes, &buffers))?;
        let sum = added.as_ref().map(|(_, sum)| self.export(sum, x)).transpose()?;
        Ok((self.export(&out, x)?, sum))
    }

    fn gated(&self, gate: &Tensor, x: &Tensor, silu: bool) -> Result<Tensor> {
        if gate.dims() != x.dims() {
            bail!("a gate of {:?} for {:?}", gate.dims(), x.dims());
        }
        let (gate, from, out) = (self.import(gate)?, self.import(x)?, self.room(x)?);
        self.launch(launch::gate_mul(x.elem_count(), silu, [&gate, &from, &out]))?;
        self.export(&out, x)
    }
}

impl<E: Executor> RowOps for GpuBackend<E> {
    fn start_product(&self, rows: usize, elements: usize) -> Result<usize> {
        // A lane operation a multiply-add.
        let row = elements as u64;
        let some = rows_at_once(rows, row, self.executor.most_work());
        self.executor.start(some as u64 * row).map_err(Error::wrap)?;
        Ok(some)
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

    fn largest(&self, rows: &Tensor, count: usize) -> Result<Option<Vec<(u32, f32)>>> {
        let (n, width) = rows.dims2()?;
        let slices = top_slices(width);
        if count == 0 || count > width || count * slices > TOP_SLICE {
            return Ok(None);
        }
        let create = |words: usize| self.executor.create(4 * words).map_err(Error::wrap);
        let (logits, per_slice, all) = (self.import(rows)?, n * slices * count, n * count);
        let (slice_values, slice_indices) = (create(per_slice)?, create(per_slice)?);
        let (values, indices) = (create(all)?, create(all)?);
        let buffers = TopBuffers {
            logits: &logits,
            slice_values: &slice_values,
            slice_indices: &slice_indices,
            values: &values,
            indices: &indices,
        };
        self.run(&launch::top(n, width, count, &buffers))?;
        let read = |buffer: &E::Buffer| {
            let mut bytes = vec![0; 4 * all];
            self.executor.download(buffer, 0, &mut bytes).map_err(Error::wrap)?;
            Ok::<_, Error>(bytes.as_chunks::<4>().0.to_vec())
        };
        let (values, indices) = (read(&values)?, read(&indices)?);
        let pair = |(value, index): (&[u8; 4], &[u8; 4])| (u32::from_le_bytes(*index), f32::from_le_bytes(*value));
        Ok(Some(values.iter().zip(&indices).map(pair).collect()))
    }
}
