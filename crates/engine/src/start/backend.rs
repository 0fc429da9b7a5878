//! The one place where a device is given what computes on it: a model beside its attention, and attention.
use crate::error::StartError;
use attention::{AttentionBackend, Centring, CpuBackend, ModelGeometry};
use candle_core::Device;
use compute::{ComputeDevice, CpuDevice};
use kv::KvLayout;
use std::sync::Arc;
use turboquant::Format;

/// The format that keeps most of K and V on a device: f32, or f16 on a GPU, which has no kernels for f32.
pub fn most_exact_format(device: &Device) -> Format {
    if device.is_cpu() { Format::F32 } else { Format::F16 }
}

/// What computes a model beside its attention on a device. A GPU's kernels are compiled for the head size.
///
/// Errors: a device that nothing is written for.
#[cfg_attr(not(all(target_os = "macos", feature = "metal")), allow(unused_variables))]
pub(crate) fn compute_device(device: &Device, geometry: &ModelGeometry) -> Result<Arc<dyn ComputeDevice>, StartError> {
    match device {
        Device::Cpu => Ok(Arc::new(CpuDevice)),
        #[cfg(all(target_os = "macos", feature = "metal"))]
        Device::Metal(metal) => {
            let executor = executor(metal, geometry)?;
            let float = ::metal::macos::compute_type(metal);
            Ok(Arc::new(::metal::GpuDevice::new(executor, device.clone(), float)?))
        }
        other => Err(unsupported(other)),
    }
}

/// The attention backend for a cache of this layout, a model and a device. It has no blocks yet.
///
/// Errors: a device or a shape that no backend supports. Nothing falls back.
pub fn select(
    layout: KvLayout,
    geometry: &ModelGeometry,
    centring: Centring,
    device: &Device,
) -> Result<Box<dyn AttentionBackend>, StartError> {
    match device {
        Device::Cpu => Ok(Box::new(CpuBackend::new(layout, geometry.clone(), centring)?)),
        #[cfg(all(target_os = "macos", feature = "metal"))]
        Device::Metal(device) => {
            let executor = executor(device, geometry)?;
            Ok(Box::new(::metal::GpuBackend::new(executor, layout, geometry, &centring, ::metal::Form::Mma)?))
        }
        other => Err(unsupported(other)),
    }
}

/// Runs the kernels, which are compiled for the head size if all layers have the same.
#[cfg(all(target_os = "macos", feature = "metal"))]
fn executor(
    device: &candle_core::MetalDevice,
    geometry: &ModelGeometry,
) -> Result<::metal::macos::MetalExecutor, StartError> {
    let head_dim = geometry.layers.first().map(|l| l.head_dim);
    let head_dim = head_dim.filter(|d| geometry.layers.iter().all(|l| l.head_dim == *d));
    Ok(::metal::macos::MetalExecutor::new(device, head_dim).map_err(candle_core::Error::wrap)?)
}

fn unsupported(device: &Device) -> StartError {
    StartError::Device(format!("{:?}", device.location()))
}
