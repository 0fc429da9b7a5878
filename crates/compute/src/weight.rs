//! Weights before and after a device has taken them.
use crate::device_form::DeviceForm;
use candle_core::Result;
use matmul::Weight;

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
    placed: DeviceForm,
}

impl PlacedWeight {
    /// A weight of `n` rows, in the device's own form.
    pub fn new<T: Send + Sync + 'static>(n: usize, placed: T) -> Self {
        PlacedWeight { n, placed: DeviceForm::new(placed) }
    }

    /// The rows of the matrix: how many elements a product has.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The weight in its device's own form `T`.
    ///
    /// Errors: a weight that another device has placed.
    pub fn get<T: 'static>(&self) -> Result<&T> {
        self.placed.get("a weight")
    }
}

/// What a device has of a layer that it computes as a whole, in the device's own form.
pub struct PlacedLayer(DeviceForm);

impl PlacedLayer {
    /// A layer in the device's own form.
    pub fn new<T: Send + Sync + 'static>(placed: T) -> Self {
        PlacedLayer(DeviceForm::new(placed))
    }

    /// The layer in its device's own form `T`.
    ///
    /// Errors: a layer that another device has placed.
    pub fn get<T: 'static>(&self) -> Result<&T> {
        self.0.get("a layer")
    }
}
