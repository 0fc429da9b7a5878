//! Linear layers.
use crate::error::LoadResult;
use crate::weights::{StoredWeight, Weights};
use candle_core::{Error, Result, Tensor};
use compute::{ComputeDevice, PlacedWeight, Precision, Rows, Sum};
use std::sync::Arc;

/// x times the transpose of a weight, plus a bias where the layer has one.
pub(crate) struct Linear {
    device: Arc<dyn ComputeDevice>,
    weight: PlacedWeight,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// Loads `name.weight`, `[n, k]`, and `name.bias` if `bias`.
    pub fn load(w: &Weights, name: &str, n: usize, k: usize, bias: bool) -> LoadResult<Self> {
        let weight = w.matrix(&format!("{name}.weight"), n, k)?;
        let bias = if bias { Some(w.vector(&format!("{name}.bias"), n)?) } else { None };
        Ok(Self::new(weight, bias, Precision::Fast, w.device())?)
    }

    /// Loads `name.weight`, `[n, k]`, as it is stored, to be multiplied in f32: for a small matrix whose errors would
    /// be large ones.
    pub fn load_exact(w: &Weights, name: &str, n: usize, k: usize) -> LoadResult<Self> {
        let weight = w.exact_matrix(&format!("{name}.weight"), n, k)?;
        Ok(Self::new(weight, None, Precision::Exact, w.device())?)
    }

    /// A layer of a weight that is loaded already. `bias`: `[n]`.
    pub fn new(
        weight: StoredWeight,
        bias: Option<Vec<f32>>,
        precision: Precision,
        device: &Arc<dyn ComputeDevice>,
    ) -> Result<Self> {
        let weight = device.place(Arc::new(weight), bias.as_deref(), precision)?;
        Ok(Linear { device: Arc::clone(device), weight, bias })
    }

    /// The bias, `[n]`.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// Rows of k elements -> `[rows, n]` f32.
    pub fn forward(&self, x: &Rows) -> Result<Tensor> {
        let [y] = Self::forward_all([self], x)?;
        Ok(y)
    }

    /// A tensor `[rows, k]` f32 -> `[rows, n]` f32.
    pub fn forward_tensor(&self, x: &Tensor) -> Result<Tensor> {
        self.forward(&self.device.rows(x)?)
    }

    /// The sum of `x`, `[rows, n]`, and the layer of some rows.
    pub fn forward_onto(&self, x: &Tensor, rows: &Rows) -> Result<Sum> {
        self.device.product_onto(x, rows, &self.weight)
    }

    /// Several layers of the same rows, which the device may compute together.
    pub fn forward_all<const N: usize>(layers: [&Self; N], x: &Rows) -> Result<[Tensor; N]> {
        let products = layers[0].device.products(x, &layers.map(|layer| &layer.weight))?;
        products.try_into().map_err(|_| Error::Msg("as many products as weights".into()))
    }

    /// silu(gate) * up, for a projection.
    pub fn gated(gate: &Self, up: &Self, x: &Rows) -> Result<Rows> {
        gate.device.gated_product(x, &gate.weight, &up.weight)
    }
}
