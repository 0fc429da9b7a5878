//! Centring: the constant part of K and V that need not be stored.
//!
//! Much of a key's energy before RoPE, and some of a value's, is one vector per layer and kv head. It is taken out before the codec
//! sees the vector and put back exactly: to each logit what it lacks, a function of query and position alone, and to each
//! output the mean of V, since attention weights sum to 1.
use crate::{ModelGeometry, RopeConvention};
use candle_core::{Error, Result, bail};
use turboquant::{DEFAULT_FAST_PAIRS, KeyCentre, Pairing, Rope};

/// Means of each layer that owns a cache: `[kv_heads][head_dim]`, K before RoPE.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KvMeans {
    pub keys: Vec<Vec<f32>>,
    pub values: Vec<Vec<f32>>,
}

/// What is taken out of one layer's K and V, by kv head. Empty: nothing.
#[derive(Debug, Clone, Default)]
pub struct LayerCentre {
    pub keys: Vec<KeyCentre>,
    /// `[kv_heads][head_dim]`.
    pub values: Vec<Vec<f32>>,
}

/// What is taken out of every layer.
#[derive(Debug, Clone)]
pub struct Centring {
    pub layers: Vec<LayerCentre>,
}

impl Centring {
    /// Nothing is taken out.
    pub fn none(geometry: &ModelGeometry) -> Self {
        Centring { layers: vec![LayerCentre::default(); geometry.layers.len()] }
    }

    pub fn is_none(&self) -> bool {
        self.layers.iter().all(|l| l.keys.is_empty() && l.values.is_empty())
    }

    /// `keys(layer)`, `values(layer)`: whether that layer's K or V is centred.
    ///
    /// Errors: means whose shape is not the model's, or that are not numbers.
    pub fn new(
        geometry: &ModelGeometry,
        means: &KvMeans,
        keys: impl Fn(usize) -> bool,
        values: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        let n = geometry.layers.len();
        if means.keys.len() != n || means.values.len() != n {
            bail!("means of {} and {} layers for a model of {n}", means.keys.len(), means.values.len());
        }
        let pairing = match geometry.rope.convention {
            RopeConvention::Half => Pairing::HalfSplit,
            RopeConvention::Interleaved => Pairing::Interleaved,
        };
        let layers = geometry.layers.iter().enumerate().map(|(i, layer)| {
            let (d, len) = (layer.head_dim, layer.kv_heads * layer.head_dim);
            if means.keys[i].len() != len || means.values[i].len() != len {
                bail!("layer {i}: a mean of {} elements for {len}", means.keys[i].len());
            }
            let rope = Rope::new(d, &geometry.rope.inv_freq, pairing).map_err(Error::wrap)?;
            let centre = |mean: &[f32]| KeyCentre::new(&rope, mean, DEFAULT_FAST_PAIRS).map_err(Error::wrap);
            Ok(LayerCentre {
                keys: if keys(i) {
                    means.keys[i].chunks_exact(d).map(centre).collect::<Result<_>>()?
                } else {
                    Vec::new()
                },
                values: if values(i) {
                    means.values[i].chunks_exact(d).map(<[f32]>::to_vec).collect()
                } else {
                    Vec::new()
                },
            })
        });
        Ok(Centring { layers: layers.collect::<Result<_>>()? })
    }
}
