//! The one place where formats and device are chosen.
use crate::error::StartError;
use attention::{AttentionBackend, CpuBackend, ModelGeometry};
use candle_core::Device;
use kv::KvLayout;
use turboquant::{Format, Side};

/// How K and V are stored.
#[derive(Debug, Clone, PartialEq)]
pub struct KvConfig {
    pub k: Format,
    pub v: Format,
    /// Tokens of a block: 16 or 32.
    pub block_size: usize,
}

impl KvConfig {
    /// Reads `--k-quant` and `--v-quant`. Errors: an unknown name, with the known ones.
    pub fn parse(k: &str, v: &str, block_size: usize) -> Result<Self, StartError> {
        let format = |flag: &'static str, side, name| {
            Format::parse(side, name).map_err(|e| StartError::Flag { flag, message: e.to_string() })
        };
        Ok(KvConfig { k: format("--k-quant", Side::K, k)?, v: format("--v-quant", Side::V, v)?, block_size })
    }

    /// Bytes, layer by layer. Errors: a head size that a format cannot hold.
    pub fn layout(&self, geometry: &ModelGeometry) -> Result<KvLayout, StartError> {
        let layers = geometry.layers.iter().map(|layer| (layer.kv_heads, layer.head_dim, self.k, self.v));
        Ok(KvLayout::new(self.block_size, layers)?)
    }
}

/// The attention backend for a cache, a model and a device. Nothing falls back: what cannot be had is an error.
pub fn select(
    config: &KvConfig,
    geometry: &ModelGeometry,
    device: &Device,
) -> Result<Box<dyn AttentionBackend>, StartError> {
    let layout = config.layout(geometry)?;
    match device {
        Device::Cpu => Ok(Box::new(CpuBackend::new(layout, geometry.clone())?)),
        other => Err(StartError::Device(format!("{:?}", other.location()))),
    }
}
