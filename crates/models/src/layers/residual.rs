//! The residual stream: what a layer's blocks read through a norm and add to.
use super::RmsNorm;
use attention::ForwardContext;
use candle_core::{Result, Tensor, bail};

/// `[rows, hidden_size]`. What a block gives is added when the next norm reads the stream, in one pass where the device has it.
pub(crate) struct Residual {
    x: Tensor,
    delta: Option<Tensor>,
}

impl Residual {
    pub fn new(x: Tensor) -> Self {
        Residual { x, delta: None }
    }

    /// The stream, normed.
    pub fn norm(&mut self, norm: &RmsNorm, ctx: &ForwardContext<'_>) -> Result<Tensor> {
        match self.delta.take() {
            None => norm.forward(&self.x, ctx),
            Some(delta) => {
                let (x, normed) = norm.add(&self.x, &delta, ctx)?;
                self.x = x;
                Ok(normed)
            }
        }
    }

    /// Adds what a block gives. Every block reads the stream through a norm.
    pub fn add(&mut self, delta: Tensor) -> Result<()> {
        match self.delta.replace(delta) {
            None => Ok(()),
            Some(_) => bail!("two blocks were added to the residual stream without a norm between them"),
        }
    }

    /// These rows alone. rows: `[n]`, u32.
    pub fn select(self, rows: &Tensor) -> Result<Self> {
        let select = |x: Tensor| x.index_select(rows, 0);
        Ok(Residual { x: select(self.x)?, delta: self.delta.map(select).transpose()? })
    }
}
