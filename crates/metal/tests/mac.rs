//! The attention backend on a Mac's GPU, under the suite of every backend: what the emulator cannot show.
#![cfg(all(target_os = "macos", feature = "metal"))]
#![allow(clippy::unwrap_used)] // helpers of tests
use attention::{AttentionBackend, Centring, KeyCentring, ModelGeometry};
use candle_core::{DType, Device};
use conformance::{Case, rows};
use kv::KvLayout;
use metal::macos::MetalExecutor;
use metal::{Form, GpuBackend, GpuDevice};
use turboquant::Format;

fn backend(layout: KvLayout, geometry: &ModelGeometry, centring: &Centring) -> Box<dyn AttentionBackend> {
    let Device::Metal(device) = device() else { panic!("a Mac without a GPU") };
    let executor = MetalExecutor::new(&device, Some(geometry.layers[0].head_dim)).unwrap();
    Box::new(GpuBackend::new(executor, layout, geometry, centring, Form::Mma).unwrap())
}

fn device() -> Device {
    Device::new_metal(0).unwrap()
}

fn make(layout: KvLayout, geometry: ModelGeometry) -> Box<dyn AttentionBackend> {
    backend(layout, &geometry, &Centring::none(&geometry))
}

/// With means taken out of K and V that are as large as the noise itself.
fn make_centred(layout: KvLayout, geometry: ModelGeometry) -> Box<dyn AttentionBackend> {
    let means = conformance::large_means(&geometry);
    let centring =
        Centring::new(&geometry, &means, |i| KeyCentring::of(layout.layers()[i].record.k()), |_| true).unwrap();
    backend(layout, &geometry, &centring)
}

const BASE: Case =
    Case { k: Format::F16, v: Format::F16, head_dim: 64, kv_heads: 2, group: 3, block_size: 16, sliding_window: None };

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
        (Format::Tq8, Format::Tq4),
        (Format::Tq5, Format::Tq5),
        (Format::Tq4, Format::Tq4),
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
    conformance::blocks_move(&make, &device(), Case { k: Format::Tq4, v: Format::Tq3, ..BASE });
}

#[test]
fn rows_are_computed() {
    let Device::Metal(metal) = device() else { panic!("a Mac without a GPU") };
    let executor = MetalExecutor::new(&metal, Some(64)).unwrap();
    let error = rows::error(&GpuDevice::new(executor, Device::Metal(metal), DType::F16).unwrap()).unwrap();
    assert!(error < rows::BOUND, "{error:.1e}");
}
