//! What is computed at start on a device that compiles what it runs.
use super::wrapped_device::WrappedDevice;
use super::*;
use engine::{launch, load};
use std::sync::Arc;

#[test]
fn a_device_that_compiles_has_computed_prompts_and_answers_before_it_serves() {
    for max_num_seqs in [1, 8] {
        let config = EngineConfig { max_num_seqs: Some(max_num_seqs), ..config() };
        let mut bundle = load(&config).unwrap();
        let device = Arc::new(WrappedDevice::default());
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
