//! The attention backend on a Mac's GPU, under the suite of every backend, and what Apple's compilers say of the
//! kernels: what the emulator cannot show.
#![cfg(any(target_os = "macos", metal_double))]
#![allow(clippy::unwrap_used)] // helpers of tests
mod compilers;

use attention::{AttentionBackend, Centring, KeyCentring, ModelGeometry};
use candle_core::{Device, MetalDevice, Tensor};
use compute::{ComputeDevice, CpuDevice, DeltaNetSizes, HeadOrder, Precision, Routing};
use conformance::layers::{DeltaNet, MIXTURE_BOUND, Mixture, relative_error};
use conformance::rows::Stored;
use conformance::{Case, rows};
use kv::KvLayout;
use matmul::WeightType;
use metal::macos::MetalExecutor;
use metal::{AttendKernel, GpuBackend, GpuDevice};
use std::sync::Arc;
use turboquant::Format;

fn backend(layout: KvLayout, geometry: &ModelGeometry, centring: &Centring) -> Box<dyn AttentionBackend> {
    let executor = MetalExecutor::new(&metal_device());
    Box::new(GpuBackend::new(executor, layout, geometry, centring, AttendKernel::Mma).unwrap())
}

fn device() -> Device {
    metal::macos::open().unwrap()
}

fn metal_device() -> MetalDevice {
    let Device::Metal(metal) = device() else { panic!("a Mac without a GPU") };
    metal
}

fn make(layout: KvLayout, geometry: ModelGeometry) -> Box<dyn AttentionBackend> {
    backend(layout, &geometry, &Centring::none(&geometry))
}

/// With means taken out of K that are as large as the noise itself, and pair scales.
fn make_centred(layout: KvLayout, geometry: ModelGeometry) -> Box<dyn AttentionBackend> {
    let constants = conformance::large_constants(&geometry);
    let of_layer = |i: usize| KeyCentring::of(layout.layers()[i].record.k());
    let centring = Centring::new(&geometry, &constants, of_layer).unwrap();
    backend(layout, &geometry, &centring)
}

const BASE: Case = Case {
    k: Format::F16,
    v: Format::F16,
    head_dim: 64,
    kv_heads: 2,
    group: 3,
    block_size: 16,
    sliding_window: None,
    rope: true,
};

/// Storage rounding as on the CPU; products of halves add 2^-11 of the largest output.
#[test]
fn outputs_match_f64() {
    for (format, tolerance) in [(Format::F16, 3e-3), (Format::Bf16, 1.6e-2)] {
        for head_dim in [64, 80, 96, 128, 256, 512] {
            for (group, block_size) in [(1, 16), (4, 32), (7, 16), (8, 32)] {
                let case = Case { k: format, v: format, head_dim, group, block_size, ..BASE };
                conformance::matches_reference(&make, &device(), case, tolerance);
            }
        }
    }
}

#[test]
fn a_sliding_window_sees_its_tokens_alone() {
    for window in [1, 40, 600] {
        conformance::matches_reference(&make, &device(), Case { sliding_window: Some(window), ..BASE }, 3e-3);
    }
}

#[test]
fn results_do_not_depend_on_the_batch() {
    for (k, v) in [
        (Format::F16, Format::F16),
        (Format::Tq8, Format::Tc4),
        (Format::Tc5, Format::Tc5),
        (Format::Tc4, Format::Tc4),
        (Format::Tc3, Format::Tc3),
        (Format::Affine8, Format::Lloyd3),
    ] {
        conformance::is_batch_invariant(&make, &device(), Case { k, v, ..BASE });
        if k != Format::Affine8 {
            conformance::is_batch_invariant(&make_centred, &device(), Case { k, v, ..BASE });
        }
    }
}

#[test]
fn blocks_are_copied_and_moved() {
    conformance::blocks_move(&make, &device(), Case { k: Format::Tc4, v: Format::Tc3, ..BASE });
}

#[test]
fn rows_are_computed() {
    let metal = metal_device();
    let executor = MetalExecutor::new(&metal);
    let gpu = GpuDevice::new(executor, Device::Metal(metal)).unwrap();
    let (error, of_products) = (rows::error(&gpu).unwrap(), rows::products_error(&gpu).unwrap());
    assert!(error < rows::BOUND, "{error:.1e}");
    assert!(of_products < rows::PRODUCTS_BOUND, "{of_products:.1e}");
}

/// The bounds are those of `tools/msl-emu/tests/layers.rs`.
#[test]
fn delta_nets_and_mixtures_are_those_of_the_cpu() {
    let metal = metal_device();
    let executor = MetalExecutor::new(&metal);
    let gpu = GpuDevice::new(executor, Device::Metal(metal)).unwrap();
    let sizes = DeltaNetSizes {
        key_heads: 1,
        value_heads: 2,
        key_dim: 128,
        value_dim: 128,
        conv_kernel: 4,
        order: HeadOrder::Grouped,
    };
    let routing = Routing { per_token: 4, normalized: true };
    let mixture = Mixture { kinds: [WeightType::Bf16; 3], hidden: 64, inner: 32, experts: 16, routing };
    let [got, want] = [&gpu as &dyn ComputeDevice, &CpuDevice].map(|device| {
        let net = DeltaNet::new(device, sizes).unwrap();
        let mut rows = net.step(&[(2, 0..17)]).unwrap().concat();
        net.states.copy(2, 3).unwrap();
        rows.extend(net.step(&[(0, 0..2), (3, 17..20)]).unwrap().concat());
        [rows, mixture.run(device, 0..40).unwrap()]
    });
    let off = [0, 1].map(|i| relative_error(&got[i], &want[i]));
    assert!(off[0] < 32.0 * 20.0 * 2f32.powi(-24) && off[1] < MIXTURE_BOUND, "{off:?}");
}

/// Rows from the middle of a tensor, a number of rows for each of the kernels, and a number of outputs that is no
/// multiple of 8. Both sides round activations, the CPU to 8 bits and the GPU to 11: 1/127 of the largest of a
/// quantisation block, a third of that on the mean, is 0.6 % of norms here.
#[test]
fn quantised_products_are_those_of_the_cpu() {
    const K: usize = 256;
    let metal = metal_device();
    let executor = MetalExecutor::new(&metal);
    let gpu = GpuDevice::new(executor, Device::Metal(metal)).unwrap();
    let values = |len: usize, seed: u32| -> Vec<f32> {
        (0..len as u32).map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 8e6 - 1.05).collect()
    };
    for kind in WeightType::ALL {
        for (n, rows) in [64, 66].into_iter().flat_map(|n| [1, 8, 9, 17, 40].map(|rows| (n, rows))) {
            let matrix = Stored::random(kind, n, K, 1);
            let product = |device: &dyn ComputeDevice| {
                let x = Tensor::from_vec(values((rows + 3) * K, 7), (rows + 3, K), device.tensors()).unwrap();
                let weight = device.place(Arc::clone(&matrix), None, Precision::Fast).unwrap();
                let product = |x: &Tensor| device.products(&device.rows(x).unwrap(), &[&weight]).unwrap();
                let y = product(&x.narrow(0, 3, rows).unwrap().force_contiguous().unwrap());
                let moved = product(&x.narrow(0, 3, rows).unwrap());
                let alone = product(&x.narrow(0, 3, 1).unwrap());
                [&y[0], &moved[0], &alone[0]].map(|y| device.read(&[y]).unwrap().remove(0))
            };
            let ([got, moved, alone], [want, ..]) = (product(&gpu), product(&CpuDevice));
            assert_eq!(got, moved, "{} {n} x {rows}: rows from the middle", kind.name());
            assert_eq!(got[..n], alone, "{} {n} x {rows}: a row alone", kind.name());
            let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|x| x * x).sum::<f32>().sqrt();
            let off = norm(&mut got.iter().zip(&want).map(|(a, b)| a - b)) / norm(&mut want.iter().copied());
            assert!(off < 0.02, "{} {n} x {rows}: {off:.1e}", kind.name());
        }
    }
}
