//! The one place where formats and device are chosen.
use crate::error::StartError;
use crate::kv_config::KvConfig;
use attention::{AttentionBackend, Centring, CpuBackend, ModelGeometry};
use candle_core::Device;
use turboquant::Format;

/// The format that keeps most of K and V: GPUs have no kernels for f32.
pub(crate) fn most_exact(device: &Device) -> Format {
    if device.is_cpu() { Format::F32 } else { Format::F16 }
}

/// The attention backend for a cache, a model and a device. Nothing falls back: what cannot be had is an error.
pub fn select(
    config: &KvConfig,
    geometry: &ModelGeometry,
    centring: Centring,
    device: &Device,
) -> Result<Box<dyn AttentionBackend>, StartError> {
    let layout = config.layout(geometry)?;
    match device {
        Device::Cpu => Ok(Box::new(CpuBackend::new(layout, geometry.clone(), centring)?)),
        #[cfg(all(target_os = "macos", feature = "metal"))]
        Device::Metal(device) => {
            let head_dim = geometry.layers.first().map(|l| l.head_dim);
            let head_dim = head_dim.filter(|d| geometry.layers.iter().all(|l| l.head_dim == *d));
            let executor = ::metal::macos::MetalExecutor::new(device, head_dim).map_err(candle_core::Error::wrap)?;
            // Activations are f32 between the layers.
            Ok(Box::new(::metal::GpuBackend::new(executor, layout, geometry, &centring, ::metal::Element::F32)?))
        }
        other => Err(StartError::Device(format!("{:?}", other.location()))),
    }
}
