//! The one place where a device is given what computes on it: a model beside its attention, and attention.
use super::device::{DecodeKernel, GpuProducts};
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

/// What computes a model beside its attention on a device.
///
/// Errors: a device that nothing is written for.
#[cfg_attr(not(all(any(target_os = "macos", metal_double), feature = "metal")), allow(unused_variables))]
pub(crate) fn compute_device(device: &Device, products: GpuProducts) -> Result<Arc<dyn ComputeDevice>, StartError> {
    match device {
        Device::Cpu => Ok(Arc::new(CpuDevice)),
        #[cfg(all(any(target_os = "macos", metal_double), feature = "metal"))]
        Device::Metal(metal) => {
            let executor = ::metal::macos::MetalExecutor::new(metal);
            let types = products.matvec_types(&::metal::macos::name(metal));
            Ok(Arc::new(::metal::GpuDevice::new(executor, device.clone())?.with_matvec_types(types)))
        }
        other => Err(unsupported(other)),
    }
}

/// The attention backend for a cache of this layout, a model and a device. It has no blocks yet.
///
/// Errors: a device or a shape that no backend supports; a kernel that the device does not have or that cannot
/// serve the model. Nothing falls back.
pub fn select(
    layout: KvLayout,
    geometry: &ModelGeometry,
    centring: Centring,
    device: &Device,
    decode: DecodeKernel,
) -> Result<Box<dyn AttentionBackend>, StartError> {
    if decode == DecodeKernel::Vec && device.is_cpu() {
        let message = "is vec, a kernel of GPUs; this model runs on the CPU".to_owned();
        return Err(StartError::flag("--decode-kernel", message));
    }
    match device {
        Device::Cpu => Ok(Box::new(CpuBackend::new(layout, geometry.clone(), centring)?)),
        #[cfg(all(any(target_os = "macos", metal_double), feature = "metal"))]
        Device::Metal(device) => {
            let executor = ::metal::macos::MetalExecutor::new(device);
            let kernel = match decode {
                DecodeKernel::Mma => ::metal::AttendKernel::Mma,
                DecodeKernel::Vec => ::metal::AttendKernel::Vec,
            };
            Ok(Box::new(::metal::GpuBackend::new(executor, layout, geometry, &centring, kernel)?))
        }
        other => Err(unsupported(other)),
    }
}

fn unsupported(device: &Device) -> StartError {
    StartError::Device(format!("{:?}", device.location()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use attention::LayerGeometry;
    use turboquant::KvPair;

    #[test]
    fn a_kernel_of_gpus_is_refused_on_the_cpu() {
        let layer =
            LayerGeometry { num_heads: 4, kv_heads: 2, head_dim: 64, scale: 1.0, sliding_window: None, rope: None };
        let geometry = ModelGeometry { layers: vec![layer] };
        let pair = KvPair::both(Format::Bf16);
        let layout = KvLayout::new(16, [(2, 64, pair.k, pair.v)]).unwrap();
        let centring = Centring::none(&geometry);
        let error = select(layout, &geometry, centring, &Device::Cpu, DecodeKernel::Vec).err().unwrap().to_string();
        assert!(error.contains("--decode-kernel") && error.contains("vec") && error.contains("CPU"), "{error}");
    }
}
