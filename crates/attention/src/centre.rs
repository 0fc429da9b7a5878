//! Centring: the constant part of K and V that need not be stored.
//!
//! Much of a key's energy before RoPE, and some of a value's, is one vector per layer and kv head. It is taken out before the codec
//! sees the vector and put back exactly: to each logit what it lacks, a function of query and position alone, and to each
//! output the mean of V, since attention weights sum to 1.
use crate::{ModelGeometry, RopeConvention};
use candle_core::{Error, Result, bail};
use turboquant::{DEFAULT_FAST_PAIRS, Format, KeyCentre, Pairing, Rope};

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

/// How the keys of a layer are centred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyCentring {
    Off,
    /// For coded keys: slow pairs and a few fast ones, followed by parabolas that are off by less than the codec.
    Followed,
    /// For keys stored as floats: all pairs, exact to f32 (on a GPU to 2e-7 of a pair's amplitude, by polynomials).
    Exact,
}

impl KeyCentring {
    /// As keys stored in `format` need it.
    pub fn of(format: Format) -> Self {
        if format.is_rotated() { KeyCentring::Followed } else { KeyCentring::Exact }
    }
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

    /// `keys(layer)`: how that layer's K is centred; `values(layer)`: whether its V is.
    ///
    /// Errors: means whose shape is not the model's, or that are not numbers.
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
        let pairing = match geometry.rope.convention {
            RopeConvention::Half => Pairing::HalfSplit,
            RopeConvention::Interleaved => Pairing::Interleaved,
        };
        let layers = geometry.layers.iter().enumerate().map(|(i, layer)| {
            let (d, len) = (layer.head_dim, layer.kv_heads * layer.head_dim);
            if means.keys[i].len() != len || means.values[i].len() != len {
                bail!("layer {i}: a mean of {} elements for {len}", means.keys[i].len());
            }
            let frequencies = &geometry.rope.inv_freq;
            // As exact floats every pair can be taken out; the choice of a few fast ones is one of cost.
            let (rope, fast_pairs) = match keys(i) {
                KeyCentring::Exact => (Some(Rope::exact(d, frequencies, pairing)), usize::MAX),
                KeyCentring::Followed => (Some(Rope::new(d, frequencies, pairing)), DEFAULT_FAST_PAIRS),
                KeyCentring::Off => (None, 0),
            };
            let rope = rope.transpose().map_err(Error::wrap)?;
            let centres = rope.map(|rope| {
                let centre = |mean| KeyCentre::new(&rope, mean, fast_pairs).map_err(Error::wrap);
                means.keys[i].chunks_exact(d).map(centre).collect::<Result<_>>()
            });
            Ok(LayerCentre {
                keys: centres.transpose()?.unwrap_or_default(),
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
