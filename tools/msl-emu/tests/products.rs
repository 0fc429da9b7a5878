//! Products with weights against f64, in the emulator, in several orders of lanes.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod common;
use candle_core::{Device, Tensor};
use common::executor;
use common::products::Kernel;
use compute::{ComputeDevice, Precision};
use conformance::rows::{PRODUCTS_BOUND, Stored, products_error};
use matmul::{Affine, HalfFloat, WeightType};
use metal::{Executor, GpuDevice};
use msl_emu::{Emulator, EmulatorExecutor, Watched};
use std::sync::{Arc, Mutex};

#[test]
fn products_agree_with_f64_and_do_not_depend_on_other_rows() {
    let Some(emulator) = Emulator::fast() else { return };
    for (name, result) in common::products::all(|order| executor(emulator, order)) {
        assert_eq!(result, Ok(()), "{name}");
    }
}

/// The kernels under every check of the emulator, for types that read their blocks in different ways.
#[test]
fn products_make_no_mistake_that_the_emulator_finds() {
    let Some(emulator) = Emulator::checked() else { return };
    let floats = [WeightType::F32, WeightType::Bf16];
    let blocks = [WeightType::Q4_0, WeightType::Q4_K, WeightType::Q6_K, WeightType::Mxfp4, WeightType::IQ4_XS];
    let tables = [WeightType::IQ3_S, WeightType::IQ2_S, WeightType::IQ2_XXS, WeightType::TQ1_0];
    let (f16, bf16) = (HalfFloat::F16, HalfFloat::Bf16);
    let affine = [(2, 32, f16), (3, 64, bf16), (6, 128, f16), (8, 64, bf16)];
    let affine = affine.map(|(bits, group, scales)| WeightType::Affine(Affine::new(bits, group, scales).unwrap()));
    let mlx = affine.into_iter().chain([WeightType::Nvfp4]);
    for kind in floats.into_iter().chain(blocks).chain(tables).chain(mlx) {
        for (by, rows) in [(Kernel::Product, 1), (Kernel::Product, 33), (Kernel::Matvec, 2)] {
            if (kind, by) == (WeightType::F32, Kernel::Matvec) {
                continue;
            }
            let result = common::products::agrees(&executor(emulator, 3), (kind, by), (21, 512), rows);
            assert!(result.is_ok(), "{kind} with {rows} rows, {by:?}: {result:?}");
        }
    }
}

#[test]
fn a_product_that_is_cut_is_that_of_all_rows() {
    let Some(emulator) = Emulator::fast() else { return };
    let (n, k, rows) = (24, 64, 150);
    let values = |len: usize| -> Vec<f32> { (0..len).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect() };
    let x = Tensor::from_vec(values(rows * k), (rows, k), &Device::Cpu).unwrap();
    for kind in [WeightType::F32, WeightType::Q8_0] {
        let matrix = Stored::quantised(kind, n, k, &values(n * k));
        let product = |most_work: u64| {
            let launched = Arc::new(Mutex::new(Vec::new()));
            let noted = Arc::clone(&launched);
            let run = move |executor: &EmulatorExecutor, launches: &[metal::Launch<'_, _>]| {
                noted.lock().unwrap().extend(launches.iter().map(|launch| launch.kernel.clone()));
                executor.run(launches)
            };
            let watched = Watched { inner: EmulatorExecutor { emulator, order: 0 }, most_work, run };
            let device = GpuDevice::new(watched, Device::Cpu).unwrap();
            let weight = device.place(matrix.clone(), Some(&values(n)), Precision::Fast).unwrap();
            let y = device.products(&device.rows(&x).unwrap(), &[&weight]).unwrap().remove(0).to_vec2::<f32>().unwrap();
            let launched = std::mem::take(&mut *launched.lock().unwrap());
            (y, launched.iter().filter(|kernel| kernel.starts_with("product")).count())
        };
        let (whole, once) = product(u64::MAX);
        let (cut, thrice) = product(1);
        assert_eq!(whole, cut, "{kind}");
        assert_eq!((once, thrice), (1, 3), "{kind}");
    }
}

#[test]
fn products_of_a_device_agree_with_f64() {
    let Some(emulator) = Emulator::checked() else { return };
    let device = GpuDevice::new(executor(emulator, 2), Device::Cpu).unwrap();
    let error = products_error(&device).unwrap();
    assert!(error < PRODUCTS_BOUND, "{error:.1e}");
}
