//! The one place where a device is given its attention backend.
use crate::error::StartError;
use attention::{AttentionBackend, Centring, CpuBackend, ModelGeometry};
use candle_core::Device;
use kv::KvLayout;
use turboquant::Format;

/// The format that keeps most of K and V on a device: f32, or f16 on a GPU, which has no kernels for f32.
pub fn most_exact_format(device: &Device) -> Format {
    if device.is_cpu() { Format::F32 } else { Format::F16 }
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
            let head_dim = geometry.layers.first().map(|l| l.head_dim);
            let head_dim = head_dim.filter(|d| geometry.layers.iter().all(|l| l.head_dim == *d));
            let executor = ::metal::macos::MetalExecutor::new(device, head_dim).map_err(candle_core::Error::wrap)?;
            Ok(Box::new(::metal::GpuBackend::new(executor, layout, geometry, &centring, ::metal::Form::Mma)?))
        }
        other => Err(StartError::Device(format!("{:?}", other.location()))),
    }
}
