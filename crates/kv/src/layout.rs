//! How many bytes a block takes, layer by layer: the only formula.
use thiserror::Error;
use turboquant::{Format, FormatError, RecordLayout};

/// One layer that owns a KV cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerKv {
    /// Heads of K and V.
    pub kv_heads: usize,
    /// The record of one block and one kv head.
    pub record: RecordLayout,
}

/// Why there is no layout.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// A format does not support a head size.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A block has another number of tokens than 16 or 32.
    #[error("--block-size is {0}; it must be 16 or 32")]
    BlockSize(usize),
    /// No layer owns a cache.
    #[error("the model has no layer with a KV cache")]
    NoLayers,
}

/// The layers of a model that own a KV cache, in order. A layer's page of a block is `kv_heads` records, one after the
/// other.
#[derive(Debug, Clone, PartialEq)]
pub struct KvLayout {
    block_size: usize,
    layers: Vec<LayerKv>,
}

impl KvLayout {
    /// The layout of blocks of `block_size` tokens. `layers` has the kv heads, the head_dim, the K format and the V
    /// format of each layer that owns a cache.
    ///
    /// Errors: a block size other than 16 or 32; a head size that a format cannot hold, with both named.
    pub fn new(
        block_size: usize,
        layers: impl IntoIterator<Item = (usize, usize, Format, Format)>,
    ) -> Result<Self, LayoutError> {
        Self::check_block_size(block_size)?;
        let layers = layers
            .into_iter()
            .map(|(kv_heads, head_dim, k, v)| {
                Ok(LayerKv { kv_heads, record: RecordLayout::new(k, v, head_dim, block_size)? })
            })
            .collect::<Result<Vec<_>, FormatError>>()?;
        if layers.is_empty() {
            return Err(LayoutError::NoLayers);
        }
        Ok(KvLayout { block_size, layers })
    }

    /// Errors: a block size other than 16 or 32.
    pub fn check_block_size(block_size: usize) -> Result<(), LayoutError> {
        if [16, 32].contains(&block_size) { Ok(()) } else { Err(LayoutError::BlockSize(block_size)) }
    }

    /// Tokens of a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// The layers that own a cache, in order.
    pub fn layers(&self) -> &[LayerKv] {
        &self.layers
    }

    /// Bytes of a page: one block in layer `layer`.
    pub fn page_bytes(&self, layer: usize) -> usize {
        self.layers[layer].kv_heads * self.layers[layer].record.bytes()
    }

    /// Bytes of one block over all layers: what the pool is sized by, what is allocated and what is reported.
    pub fn bytes_per_block(&self) -> usize {
        (0..self.layers.len()).map(|layer| self.page_bytes(layer)).sum()
    }

    /// Bytes of one token over all layers.
    pub fn bytes_per_token(&self) -> f64 {
        self.bytes_per_block() as f64 / self.block_size as f64
    }

    /// How many whole blocks fit into `memory` bytes.
    pub fn blocks_in(&self, memory: u64) -> usize {
        (memory / self.bytes_per_block() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published ratios against bf16 at d = 128, with the memory fixed.
    #[test]
    fn compression_ratios_are_the_published_ones() {
        let tokens = |k, v| KvLayout::new(16, [(8, 128, k, v)]).unwrap().blocks_in(1 << 34) as f64;
        let bf16 = tokens(Format::Bf16, Format::Bf16);
        for (k, v, ratio) in [
            (Format::Affine8, Format::Lloyd3, 2.56),
            (Format::Affine4, Format::Lloyd3, 3.76),
            (Format::Tc4, Format::Tc4, 3.87),
            (Format::Tq8, Format::Tq8, 1.96),
        ] {
            let got = tokens(k, v) / bf16;
            assert!((got - ratio).abs() < 0.012, "{k:?}/{v:?}: {got} against {ratio}");
        }
    }

    #[test]
    fn layers_may_differ() {
        let layout =
            KvLayout::new(32, [(2, 64, Format::Tq8, Format::Tc4), (4, 128, Format::Bf16, Format::Bf16)]).unwrap();
        assert_eq!(layout.page_bytes(0), 2 * 32 * (66 + 34));
        assert_eq!(layout.page_bytes(1), 4 * 32 * 512);
        assert_eq!(layout.bytes_per_block(), layout.page_bytes(0) + layout.page_bytes(1));
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let error = KvLayout::new(24, [(2, 64, Format::Bf16, Format::Bf16)]).unwrap_err().to_string();
        assert!(error.contains("--block-size") && error.contains("24"), "{error}");
        let error = KvLayout::new(16, [(2, 72, Format::Tc4, Format::Tc4)]).unwrap_err().to_string();
        assert!(error.contains("72") && error.contains("tc4"), "{error}");
        assert!(KvLayout::new(16, []).is_err());
    }
}
