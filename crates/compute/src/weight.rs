//! Weights before and after a device has taken them.
use candle_core::{Result, bail};
use matmul::Weight;
use std::any::Any;

/// A weight matrix `[n, k]` as a checkpoint has it.
pub trait StoredMatrix: Send + Sync {
    /// The matrix.
    fn view(&self) -> Weight<'_>;

    /// Called once the matrix has been copied to a device and will hardly be read again: its memory may be given back.
    fn forget(&self);
}

/// In what a device multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// The type that the device is fastest with.
    Fast,
    /// f32, for a small matrix whose errors would be large ones.
    Exact,
}

/// A weight where its device multiplies with it.
pub struct PlacedWeight {
    n: usize,
    placed: Box<dyn Any + Send + Sync>,
}

impl PlacedWeight {
    /// A weight of `n` rows, in the device's own form.
    pub fn new<T: Send + Sync + 'static>(n: usize, placed: T) -> Self {
        PlacedWeight { n, placed: Box::new(placed) }
    }

    /// The rows of the matrix: how many elements a product has.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The weight in its device's own form `T`.
    ///
    /// Errors: a weight that another device has placed.
    pub fn get<T: 'static>(&self) -> Result<&T> {
        match self.placed.downcast_ref() {
            Some(placed) => Ok(placed),
            None => bail!("a weight of another device"),
        }
    }
}

/// What a device has of a layer that it computes as a whole, in the device's own form.
pub struct PlacedLayer(Box<dyn Any + Send + Sync>);

impl PlacedLayer {
    /// A layer in the device's own form.
    pub fn new<T: Send + Sync + 'static>(placed: T) -> Self {
        PlacedLayer(Box::new(placed))
    }

    /// The layer in its device's own form `T`.
    ///
    /// Errors: a layer that another device has placed.
    pub fn get<T: 'static>(&self) -> Result<&T> {
        match self.0.downcast_ref() {
            Some(placed) => Ok(placed),
            None => bail!("a layer of another device"),
        }
    }
}
