//! What attention has to know of a model.
use candle_core::{Result, bail};
use turboquant::Rope;

/// A layer that owns a KV cache.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerGeometry {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Multiplies the logits; 1 / sqrt(head_dim) unless the model says otherwise.
    pub scale: f32,
    /// A token sees at most this many tokens, itself included.
    pub sliding_window: Option<usize>,
    /// The rotary embedding of this layer's queries and keys; `None` for a layer without positions (NoPE).
    pub rope: Option<Rope>,
}

impl LayerGeometry {
    /// The size of a GQA group: query heads of each kv head.
    pub fn group(&self) -> usize {
        self.num_heads / self.kv_heads
    }
}

/// All that attention knows of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelGeometry {
    /// The layers that own a KV cache, in order; [`crate::LayerId`] counts these.
    pub layers: Vec<LayerGeometry>,
}

impl ModelGeometry {
    /// The different embeddings of all layers, and for each layer the index of its own: a step's angles are computed
    /// once for each.
    ///
    /// # Errors
    /// A layer whose RoPE has more pairs than half of its head size.
    pub fn ropes(&self) -> Result<(Vec<Rope>, Vec<Option<usize>>)> {
        let mut ropes: Vec<Rope> = Vec::new();
        let layers = self.layers.iter().map(|layer| {
            let Some(rope) = &layer.rope else { return Ok(None) };
            if rope.pairs() > layer.head_dim / 2 {
                bail!("{} RoPE pairs for head_dim {}; allowed: up to half of it", rope.pairs(), layer.head_dim);
            }
            Ok(Some(ropes.iter().position(|known| known == rope).unwrap_or_else(|| {
                ropes.push(rope.clone());
                ropes.len() - 1
            })))
        });
        let layers = layers.collect::<Result<_>>()?;
        Ok((ropes, layers))
    }
}
