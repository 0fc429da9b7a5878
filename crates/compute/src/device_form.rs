//! Weights and layers in the form that a device makes of them and that only the device itself reads.
use candle_core::{Result, bail};
use std::any::Any;

/// A weight or a layer in a device's own form.
pub(crate) struct DeviceForm(Box<dyn Any + Send + Sync>);

impl DeviceForm {
    pub fn new<T: Send + Sync + 'static>(form: T) -> Self {
        DeviceForm(Box::new(form))
    }

    /// The form as its device's own type `T`. The error calls it `what`.
    ///
    /// Errors: the form of another device.
    pub fn get<T: 'static>(&self, what: &str) -> Result<&T> {
        match self.0.downcast_ref() {
            Some(form) => Ok(form),
            None => bail!("{what} of another device"),
        }
    }
}
