//! The residual stream: what attention and MLP read through a norm and add to.
use super::RmsNorm;
use candle_core::{Result, Tensor, bail};

/// The residual stream of a step's rows, `[rows, hidden_size]`. What attention or an MLP gives is added when the next
/// norm reads the stream, in one pass where the device has that.
pub(crate) struct Residual {
    x: Tensor,
    delta: Option<Tensor>,
}

impl Residual {
    /// A stream that begins as `x`, the embedding's rows.
    pub fn new(x: Tensor) -> Self {
        Residual { x, delta: None }
    }

    /// The norm of the stream.
    pub fn norm(&mut self, norm: &RmsNorm) -> Result<Tensor> {
        match self.delta.take() {
            None => norm.forward(&self.x),
            Some(delta) => {
                let (x, normed) = norm.add(&self.x, &delta)?;
                self.x = x;
                Ok(normed)
            }
        }
    }

    /// Adds to the stream.
    ///
    /// Errors: a second addition without a norm between the two, which no layer makes.
    pub fn add(&mut self, delta: Tensor) -> Result<()> {
        match self.delta.replace(delta) {
            None => Ok(()),
            Some(_) => bail!("the residual stream was added to twice without a norm between"),
        }
    }

    /// The stream of the rows `rows` alone: `[n]`, u32.
    pub fn select(self, rows: &Tensor) -> Result<Self> {
        let select = |x: Tensor| x.index_select(rows, 0);
        Ok(Residual { x: select(self.x)?, delta: self.delta.map(select).transpose()? })
    }
}
