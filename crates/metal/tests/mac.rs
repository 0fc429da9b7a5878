//! The attention backend on a Mac's GPU, under the suite of every backend: what the emulator cannot show.
#![cfg(all(target_os = "macos", feature = "metal"))]
#![allow(clippy::unwrap_used)] // helpers of tests
use attention::conformance::{self, Case};
use attention::{AttentionBackend, Centring, KeyCentring, LayerGeometry, ModelGeometry, Rope, RopeConvention};
use candle_core::{Device, Tensor};
use kv::KvLayout;
use metal::macos::MetalExecutor;
use metal::{Element, GpuBackend};
use turboquant::Format;

fn backend(layout: KvLayout, geometry: &ModelGeometry, centring: &Centring) -> Box<dyn AttentionBackend> {
    let Device::Metal(device) = device() else { panic!("a Mac without a GPU") };
    let executor = MetalExecutor::new(&device, Some(geometry.layers[0].head_dim)).unwrap();
    Box::new(GpuBackend::new(executor, layout, geometry, centring, Element::F32).unwrap())
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
fn sharing_layers_read_their_owner() {
    conformance::sharing_layers_read_their_owner(&make, &device(), Case { k: Format::Tq4, v: Format::Tq4, ..BASE });
}

/// What is row by row against f64: f32 rounds, and sums over a row, by some 1e-6.
#[test]
fn rows_are_computed() {
    let layer = LayerGeometry { num_heads: 1, kv_heads: 1, head_dim: 64, scale: 1.0, sliding_window: None };
    let rope = Rope { inv_freq: vec![1.0; 32], convention: RopeConvention::Half, attention_factor: 1.0 };
    let geometry = ModelGeometry { layers: vec![layer], rope };
    let Device::Metal(metal) = device() else { panic!("a Mac without a GPU") };
    let executor = MetalExecutor::new(&metal, Some(64)).unwrap();
    let layout = KvLayout::new(16, [(1, 64, Format::F16, Format::F16)]).unwrap();
    let backend = GpuBackend::new(executor, layout, &geometry, &Centring::none(&geometry), Element::F32).unwrap();
    let ops = backend.row_ops().unwrap();
    let (device, d) = (Device::Metal(metal), 64);
    let noise = |seed: u64, n: usize| (0..n).map(|i| conformance::noise(seed, i as u64)).collect::<Vec<f32>>();
    let tensor = |x: &[f32], shape: &[usize]| Tensor::from_slice(x, shape, &device).unwrap();
    let read = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let close = |got: &Tensor, want: Vec<f64>| {
        for (got, want) in read(got).into_iter().zip(want) {
            assert!((f64::from(got) - want).abs() < 4e-6 * want.abs().max(1.0), "{got} for {want}");
        }
    };
    let (x, y, w) = (noise(1, 3 * d), noise(2, 3 * d), noise(3, d));
    let [a, b] = [&x, &y].map(|x| tensor(x, &[3, d]));
    let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let (x, y, w64) = (wide(&x), wide(&y), wide(&w));
    let (sum, normed) = ops.add_rms_norm(&a, &b, &tensor(&w, &[d]), 1e-6).unwrap();
    let sums: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
    let scaled = |row: &[f64]| {
        let scale = 1.0 / (row.iter().map(|x| x * x).sum::<f64>() / d as f64 + 1e-6).sqrt();
        row.iter().zip(&w64).map(|(x, w)| x * scale * w).collect::<Vec<f64>>()
    };
    close(&normed, sums.chunks(d).flat_map(scaled).collect());
    close(&sum, sums);
    let gate = |x: f64| 1.0 / (1.0 + (-x).exp());
    close(&ops.silu_mul(&a, &b).unwrap(), x.iter().zip(&y).map(|(x, y)| x * gate(*x) * y).collect());
    close(&ops.sigmoid_mul(&a, &b).unwrap(), x.iter().zip(&y).map(|(x, y)| gate(*x) * y).collect());
    let angles: Vec<f32> = noise(4, 3 * 24).iter().map(|x| 5.0 * x).collect();
    let [cos, sin] = [f32::cos, f32::sin].map(|f| angles.iter().map(|a| f(*a)).collect::<Vec<f32>>());
    let heads = |t: &Tensor| t.reshape((3, 1, d)).unwrap();
    let (q, k) = ops.rope(&heads(&a), &heads(&b), &tensor(&cos, &[3, 24]), &tensor(&sin, &[3, 24])).unwrap();
    for (got, mut want) in [(q, x), (k, y)] {
        for (row, (cos, sin)) in want.chunks_mut(d).zip(cos.chunks(24).zip(sin.chunks(24))) {
            for pair in 0..24 {
                let (a, b, c, s) = (row[pair], row[pair + 24], f64::from(cos[pair]), f64::from(sin[pair]));
                (row[pair], row[pair + 24]) = (a * c - b * s, a * s + b * c);
            }
        }
        close(&got, want);
    }
}
