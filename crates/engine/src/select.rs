//! The one place where formats and device are chosen.
use crate::error::StartError;
use crate::kv_config::KvConfig;
use attention::{AttentionBackend, Centring, CpuBackend, ModelGeometry};
use candle_core::Device;

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
        other => Err(StartError::Device(format!("{:?}", other.location()))),
    }
}
