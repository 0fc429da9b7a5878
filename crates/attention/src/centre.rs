//! Centring: the mean of K and V, which need not be stored with every token.
//!
//! Much of a key's energy before RoPE, and some of a value's, lies in one vector per layer and kv head, the mean. It is
//! subtracted before RoPE and the codec see the vector, and given back exactly: each logit gets `q . RoPE(mean)`, a
//! function of query and position alone, and each output gets the mean of V, since attention weights sum to 1.
use crate::ModelGeometry;
use candle_core::{Error, Result, bail};
use turboquant::{CorrectionTables, DEFAULT_HIGH_PAIRS, Format, KeyMean, Rope};

/// The means of every layer that owns a KV cache: `[layer][kv_heads x head_dim]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KvMeans {
    /// Means of keys before RoPE, by layer.
    pub keys: Vec<Vec<f32>>,
    /// Means of values, by layer.
    pub values: Vec<Vec<f32>>,
}

/// What is subtracted from one layer's K and V, by kv head. Empty lists: nothing.
#[derive(Debug, Clone, Default)]
pub struct LayerCentre {
    /// The mean of each kv head's keys.
    pub keys: Vec<KeyMean>,
    /// The mean of each kv head's values: `[kv_heads][head_dim]`.
    pub values: Vec<Vec<f32>>,
}

/// How the keys of a layer are centred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyCentring {
    /// Nothing is subtracted.
    Off,
    /// For coded keys: low-frequency RoPE pairs and a few others; the mean correction is off by less than the codec.
    Approximated,
    /// For keys stored as floats: all RoPE pairs, exact to f32's rounding (on a GPU to 2e-7 of a pair's amplitude, by
    /// polynomials).
    Exact,
}

impl KeyCentring {
    /// The way that keys stored in `format` need.
    pub fn of(format: Format) -> Self {
        if format.is_rotated() { KeyCentring::Approximated } else { KeyCentring::Exact }
    }
}

/// What is subtracted from every layer's K and V.
#[derive(Debug, Clone)]
pub struct Centring {
    /// By layer, in the order of [`crate::LayerId`].
    pub layers: Vec<LayerCentre>,
}

impl Centring {
    /// Nothing is subtracted.
    pub fn none(geometry: &ModelGeometry) -> Self {
        Centring { layers: vec![LayerCentre::default(); geometry.layers.len()] }
    }

    /// Whether nothing is subtracted from any layer.
    pub fn is_none(&self) -> bool {
        self.layers.iter().all(|l| l.keys.is_empty() && l.values.is_empty())
    }

    /// `keys(layer)`: how that layer's K is centred; `values(layer)`: whether its V is.
    ///
    /// # Errors
    /// Means of other layers or sizes than the model's, or with elements that are not finite.
    pub fn new(
        geometry: &ModelGeometry,
        means: &KvMeans,
        keys: impl Fn(usize) -> KeyCentring,
        values: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        let n = geometry.layers.len();
        if means.keys.len() != n || means.values.len() != n {
            bail!("means of {} and {} layers for a model of {n}", means.keys.len(), means.values.len());
        }
        let layers = geometry.layers.iter().enumerate().map(|(i, layer)| {
            let (d, len) = (layer.head_dim, layer.kv_heads * layer.head_dim);
            if means.keys[i].len() != len || means.values[i].len() != len {
                bail!("layer {i}: a mean of {} elements for {len}", means.keys[i].len());
            }
            let rope = match &layer.rope {
                Some(rope) => rope.clone(),
                None => Rope::new(Vec::new(), 1.0).map_err(Error::wrap)?,
            };
            // Keys stored as floats lose the mean of every pair; choosing a few high-frequency pairs only saves time.
            let (tables, high_pairs) = match keys(i) {
                KeyCentring::Exact => (Some(CorrectionTables::exact(&rope, d)), usize::MAX),
                KeyCentring::Approximated => (Some(CorrectionTables::new(&rope, d)), DEFAULT_HIGH_PAIRS),
                KeyCentring::Off => (None, 0),
            };
            let tables = tables.transpose().map_err(Error::wrap)?;
            let means_of_keys = tables.map(|tables| {
                let mean = |mean| KeyMean::new(&tables, mean, high_pairs).map_err(Error::wrap);
                means.keys[i].chunks_exact(d).map(mean).collect::<Result<_>>()
            });
            Ok(LayerCentre {
                keys: means_of_keys.transpose()?.unwrap_or_default(),
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
