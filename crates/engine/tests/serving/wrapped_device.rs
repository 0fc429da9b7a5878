//! A device that is looked at, and that fails.
use attention::{ForwardContext, StateId};
use candle_core::{Device, Result, Tensor};
use compute::{
    ComputeDevice, CpuDevice, DeltaNetInput, DeltaNetWeights, ExpertWeights, PlacedLayer, PlacedWeight, Precision,
    Rows, StoredMatrix,
};
use std::sync::{Arc, Mutex};

/// The CPU as a GPU is: it says that it compiles, notes how many rows of logits were read each time and how, and can
/// fail.
#[derive(Default)]
pub struct WrappedDevice {
    pub logits: Mutex<Vec<(&'static str, usize)>>,
    /// What the device says of its failure.
    pub failure: Mutex<Option<String>>,
}

impl WrappedDevice {
    fn note(&self, how: &'static str, rows: &Tensor) {
        self.logits.lock().unwrap().push((how, rows.dim(0).unwrap()));
    }
}

impl ComputeDevice for WrappedDevice {
    fn compiles_on_first_use(&self) -> bool {
        true
    }
    fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap().clone()
    }
    fn read(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<f32>>> {
        if let Some(failure) = self.failure() {
            candle_core::bail!("a read after this: {failure}");
        }
        self.note("whole", tensors[0]);
        CpuDevice.read(tensors)
    }
    fn largest(&self, rows: &Tensor, count: usize) -> Result<Option<Vec<(u32, f32)>>> {
        if self.failure().is_some() {
            candle_core::bail!("the largest of a failed device's logits");
        }
        self.note("largest", rows);
        CpuDevice.largest(rows, count)
    }
    fn tensors(&self) -> &Device {
        CpuDevice.tensors()
    }
    fn place(&self, w: Arc<dyn StoredMatrix>, bias: Option<&[f32]>, precision: Precision) -> Result<PlacedWeight> {
        CpuDevice.place(w, bias, precision)
    }
    fn rows(&self, x: &Tensor) -> Result<Rows> {
        CpuDevice.rows(x)
    }
    fn products(&self, x: &Rows, weights: &[&PlacedWeight]) -> Result<Vec<Tensor>> {
        CpuDevice.products(x, weights)
    }
    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
        CpuDevice.rms_norm(x, weight, eps)
    }
    fn add_rms_norm(&self, x: &Tensor, delta: &Tensor, weight: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
        CpuDevice.add_rms_norm(x, delta, weight, eps)
    }
    fn silu_mul(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        CpuDevice.silu_mul(gate, up)
    }
    fn sigmoid_mul(&self, gate: &Tensor, x: &Tensor) -> Result<Tensor> {
        CpuDevice.sigmoid_mul(gate, x)
    }
    fn place_delta_net(&self, weights: DeltaNetWeights) -> Result<PlacedLayer> {
        CpuDevice.place_delta_net(weights)
    }
    fn delta_net(
        &self,
        net: &PlacedLayer,
        input: DeltaNetInput<'_>,
        state: StateId,
        ctx: &ForwardContext<'_>,
    ) -> Result<Tensor> {
        CpuDevice.delta_net(net, input, state, ctx)
    }
    fn place_experts(&self, weights: ExpertWeights) -> Result<PlacedLayer> {
        CpuDevice.place_experts(weights)
    }
    fn experts(&self, experts: &PlacedLayer, x: &Tensor, logits: &Tensor) -> Result<Tensor> {
        CpuDevice.experts(experts, x, logits)
    }
}
