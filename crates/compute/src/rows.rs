//! Rows of activations as products take them.
use crate::device_form::DeviceForm;
use candle_core::Result;

/// Rows in the form in which a device's products take them.
pub struct Rows {
    num_rows: usize,
    form: DeviceForm,
}

impl Rows {
    /// `num_rows` rows in the device's own form.
    pub fn new<T: Send + Sync + 'static>(num_rows: usize, form: T) -> Self {
        Rows { num_rows, form: DeviceForm::new(form) }
    }

    /// How many rows there are.
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// The rows in their device's own form `T`.
    ///
    /// Errors: rows of another device.
    pub fn get<T: 'static>(&self) -> Result<&T> {
        self.form.get("rows")
    }
}
