//! The residual stream: what attention and MLP read through a norm and add to.
use super::{Linear, RmsNorm};
use candle_core::{Result, Tensor, bail};
use compute::{ComputeDevice, Rows, Sum};

/// The residual stream of a step's rows, `[rows, hidden_size]`. What attention or an MLP gives is added by the product
/// that gives it, or when the next norm reads the stream, whichever the device does in one pass.
pub(crate) struct Residual(Sum);

impl Residual {
    /// A stream that begins as `x`, the embedding's rows.
    pub fn new(x: Tensor) -> Self {
        Residual(Sum { x, delta: None })
    }

    /// The norm of the stream, for projections.
    pub fn norm(&mut self, norm: &RmsNorm) -> Result<Rows> {
        norm.rows_of(&mut self.0)
    }

    /// The norm of the stream as a tensor.
    pub fn norm_tensor(&mut self, norm: &RmsNorm) -> Result<Tensor> {
        norm.of_sum(&mut self.0)
    }

    /// Adds the projection of some rows to the stream.
    ///
    /// Errors: the errors of `add`.
    pub fn add_projection(&mut self, layer: &Linear, rows: &Rows) -> Result<()> {
        self.check_read()?;
        self.0 = layer.forward_onto(&self.0.x, rows)?;
        Ok(())
    }

    /// Adds to the stream.
    ///
    /// Errors: a second addition without a norm between the two, which no layer makes.
    pub fn add(&mut self, delta: Tensor) -> Result<()> {
        self.check_read()?;
        self.0.delta = Some(delta);
        Ok(())
    }

    fn check_read(&self) -> Result<()> {
        match self.0.delta {
            None => Ok(()),
            Some(_) => bail!("the residual stream was added to twice without a norm between"),
        }
    }

    /// The stream of the rows `rows` alone.
    pub fn select(self, rows: &[u32], device: &dyn ComputeDevice) -> Result<Self> {
        if rows.len() == self.0.x.dim(0)? && rows.iter().enumerate().all(|(i, row)| i == *row as usize) {
            return Ok(self);
        }
        let select = |x: Tensor| device.select_rows(&x, rows);
        Ok(Residual(Sum { x: select(self.0.x)?, delta: self.0.delta.map(select).transpose()? }))
    }
}
