//! What is computed at start on a device that compiles what it runs.
use super::*;
use candle_core::{Device, Result, Tensor};
use compute::{ComputeDevice, CpuDevice, ExpertOutput, PlacedWeight, Precision, StoredMatrix};
use engine::{launch, load};
use std::sync::{Arc, Mutex};

/// The CPU, which says that it compiles, and notes how many rows of logits were read each time and how.
#[derive(Default)]
struct Compiling {
    logits: Mutex<Vec<(&'static str, usize)>>,
}

impl Compiling {
    fn note(&self, how: &'static str, rows: &Tensor) {
        self.logits.lock().unwrap().push((how, rows.dim(0).unwrap()));
    }
}

impl ComputeDevice for Compiling {
    fn compiles_on_first_use(&self) -> bool {
        true
    }
    fn read(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<f32>>> {
        self.note("whole", tensors[0]);
        CpuDevice.read(tensors)
    }
    fn largest(&self, rows: &Tensor, count: usize) -> Result<Option<Vec<(u32, f32)>>> {
        self.note("largest", rows);
        CpuDevice.largest(rows, count)
    }
    fn tensors(&self) -> &Device {
        CpuDevice.tensors()
    }
    fn place(&self, w: Arc<dyn StoredMatrix>, bias: Option<&[f32]>, precision: Precision) -> Result<PlacedWeight> {
        CpuDevice.place(w, bias, precision)
    }
    fn products(&self, x: &Tensor, weights: &[&PlacedWeight]) -> Result<Vec<Tensor>> {
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
    fn mix(&self, num_rows: usize, experts: &[ExpertOutput]) -> Result<Tensor> {
        CpuDevice.mix(num_rows, experts)
    }
}

#[test]
fn a_device_that_compiles_has_computed_prompts_and_answers_before_it_serves() {
    for max_num_seqs in [1, 8] {
        let config = EngineConfig { max_num_seqs, ..config() };
        let mut bundle = load(&config).unwrap();
        let device = Arc::new(Compiling::default());
        bundle.device = device.clone();
        let (handle, thread) = launch(&config, bundle).unwrap();
        let logits = std::mem::take(&mut *device.logits.lock().unwrap());
        let rows = |how| logits.iter().filter(|(h, _)| *h == how).map(|(_, rows)| *rows).collect::<Vec<_>>();
        for how in ["largest", "whole"] {
            assert!(rows(how).contains(&1) && rows(how).contains(&2) == (max_num_seqs > 1), "{logits:?}");
        }
        assert_eq!(handle.stats().blocks_held, 0);
        let cold = start(&config).unwrap();
        let ask = |handle: &EngineHandle| answer(handle, GenerationRequest::greedy(prompt(1), 8));
        assert_eq!(ask(&handle), ask(&cold.0));
        stop((handle, thread));
        stop(cold);
    }
}
