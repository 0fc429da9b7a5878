//! Centring and pair scales: what keys go through so that the codec loses less of them.
//!
//! Much of a key's energy before RoPE lies in one vector per layer and kv head, the mean. It is subtracted before RoPE
//! and the codec see the key, and given back exactly: each logit gets `q · RoPE(mean)`, a function of query and
//! position alone. The key at position 0 is unlike all others and has a mean of its own. After RoPE every pair is
//! multiplied by its pair scale, and queries by the inverse.
use crate::{LayerGeometry, ModelGeometry};
use candle_core::{Error, Result, bail};
use turboquant::{CorrectionTables, DEFAULT_HIGH_PAIRS, Format, HeadConstants, KeyTransform, Rope};

/// The constants of the keys of every layer that owns a KV cache: `[layer][kv_heads x head_dim]` each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeyConstants {
    /// Means of keys before RoPE.
    pub means: Vec<Vec<f32>>,
    /// Means of the keys at position 0.
    pub first_means: Vec<Vec<f32>>,
    /// Pair scales, the same for both elements of a RoPE pair.
    pub scales: Vec<Vec<f32>>,
}

impl KeyConstants {
    /// The biases of a model's K projections as means at all positions, without pair scales.
    pub fn of_bias(bias: Vec<Vec<f32>>) -> Self {
        let scales = bias.iter().map(|layer| vec![1.0; layer.len()]).collect();
        KeyConstants { first_means: bias.clone(), means: bias, scales }
    }
}

/// How the keys of a layer are centred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyCentring {
    /// For coded keys: low-frequency RoPE pairs and a few others; the mean correction is off by less than the codec.
    /// Pairs are scaled.
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

/// What the keys of every layer go through before they are stored.
#[derive(Debug, Clone)]
pub struct Centring {
    /// By layer, in the order of [`crate::LayerId`], and kv head; none for a layer whose keys are stored as they are.
    pub layers: Vec<Vec<KeyTransform>>,
}

impl Centring {
    /// Keys are stored as they are.
    pub fn none(geometry: &ModelGeometry) -> Self {
        Centring { layers: vec![Vec::new(); geometry.layers.len()] }
    }

    /// Whether the keys of all layers are stored as they are.
    pub fn is_none(&self) -> bool {
        self.layers.iter().all(Vec::is_empty)
    }

    /// `keys(layer)`: how that layer's keys are centred.
    ///
    /// # Errors
    /// Constants of other layers or sizes than the model's, with elements that are not finite, or with scales that are
    /// not positive or that RoPE would mix.
    pub fn new(
        geometry: &ModelGeometry,
        constants: &KeyConstants,
        keys: impl Fn(usize) -> KeyCentring,
    ) -> Result<Self> {
        let KeyConstants { means, first_means, scales } = constants;
        let n = geometry.layers.len();
        for (what, layers) in [("means", means), ("first means", first_means), ("scales", scales)] {
            if layers.len() != n {
                bail!("{what} of the keys of {} layers for a model of {n}", layers.len());
            }
            for (i, (values, layer)) in layers.iter().zip(&geometry.layers).enumerate() {
                let len = layer.kv_heads * layer.head_dim;
                if values.len() != len {
                    bail!("layer {i}: {what} of {} elements for {len}", values.len());
                }
            }
        }
        let layers = geometry.layers.iter().enumerate();
        let layers = layers.map(|(i, layer)| layer_transforms(layer, keys(i), &means[i], &first_means[i], &scales[i]));
        Ok(Centring { layers: layers.collect::<Result<_>>()? })
    }
}

/// What a layer's keys go through, by kv head, with constants of `[kv_heads x head_dim]` each.
pub(crate) fn layer_transforms(
    layer: &LayerGeometry,
    centring: KeyCentring,
    means: &[f32],
    first_means: &[f32],
    scales: &[f32],
) -> Result<Vec<KeyTransform>> {
    let d = layer.head_dim;
    let rope = match &layer.rope {
        Some(rope) => rope.clone(),
        None => Rope::new(Vec::new(), 1.0).map_err(Error::wrap)?,
    };
    // Keys stored as floats lose the mean of every pair, since choosing a few high-frequency pairs only saves time; and
    // a pair scale is of no use to them.
    let ones = vec![1.0; d];
    let (tables, high_pairs, scaled) = match centring {
        KeyCentring::Exact => (CorrectionTables::exact(&rope, d), usize::MAX, false),
        KeyCentring::Approximated => (CorrectionTables::new(&rope, d), DEFAULT_HIGH_PAIRS, true),
    };
    let tables = tables.map_err(Error::wrap)?;
    let heads = means.chunks_exact(d).zip(first_means.chunks_exact(d)).zip(scales.chunks_exact(d));
    let transform = |((mean, first_mean), scale)| {
        let constants = HeadConstants { mean, first_mean, scale: if scaled { scale } else { &ones } };
        KeyTransform::new(&tables, constants, high_pairs).map_err(Error::wrap)
    };
    heads.map(transform).collect()
}
