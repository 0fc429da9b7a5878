//! Weights before and after a device has taken them.
use crate::device_form::DeviceForm;
use candle_core::Result;
use matmul::Weight;

/// A weight matrix as a checkpoint has it: `n` rows, one for each element of a product, of `k` elements each.
pub trait StoredMatrix: Send + Sync {
    /// The matrix.
    fn view(&self) -> Weight<'_>;

    /// Called once the matrix has been copied to a device and will hardly be read again: its memory may be given back.
    fn forget(&self);
}

/// The number type in which a device multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// The type that the device is fastest with.
    Fast,
    /// f32, for a small matrix whose errors would be large ones.
    Exact,
}

/// A weight as its device keeps it, for products.
pub struct PlacedWeight {
    rows: usize,
    placed: DeviceForm,
}

impl PlacedWeight {
    /// A weight of `rows` rows, in the device's own form.
    pub fn new<T: Send + Sync + 'static>(rows: usize, placed: T) -> Self {
        PlacedWeight { rows, placed: DeviceForm::new(placed) }
    }

    /// The number of rows of the matrix, which is how many elements a row's product has.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The weight in its device's own form `T`.
    ///
    /// Errors: a weight that another device has placed.
    pub fn get<T: 'static>(&self) -> Result<&T> {
        self.placed.get("a weight")
    }
}

/// A layer as its device keeps it, for devices that compute the layer as one operation.
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
