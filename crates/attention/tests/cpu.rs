//! The CPU backend under the conformance suite.
#![allow(clippy::unwrap_used)] // helpers of tests
use attention::{AttentionBackend, Centring, CpuBackend, KeyCentring, LayerGeometry, ModelGeometry};
use candle_core::Device;
use conformance::Case;
use kv::KvLayout;
use turboquant::Format;

fn make(layout: KvLayout, geometry: ModelGeometry) -> Box<dyn AttentionBackend> {
    let centring = Centring::none(&geometry);
    Box::new(CpuBackend::new(layout, geometry, centring).unwrap())
}

/// With means taken out of K that are as large as the noise itself, and pair scales.
fn make_centred(layout: KvLayout, geometry: ModelGeometry) -> Box<dyn AttentionBackend> {
    let constants = conformance::large_constants(&geometry);
    let of_layer = |i: usize| KeyCentring::of(layout.layers()[i].record.k());
    let centring = Centring::new(&geometry, &constants, of_layer).unwrap();
    Box::new(CpuBackend::new(layout, geometry, centring).unwrap())
}

const BASE: Case = Case {
    k: Format::F32,
    v: Format::F32,
    head_dim: 64,
    kv_heads: 2,
    group: 3,
    block_size: 16,
    sliding_window: None,
    rope: true,
};

/// f32 storage leaves rounding of f32 sums: about sqrt(1100) x 6e-8, with room. 16-bit storage adds half a unit in the
/// last place of K (a logit of rms 1 moves by 2^-9 for bf16, 2^-12 for f16) and of V.
#[test]
fn outputs_match_f64() {
    for (format, tolerance) in [(Format::F32, 2e-5), (Format::F16, 2e-3), (Format::Bf16, 1.5e-2)] {
        for head_dim in [64, 80, 128] {
            for (group, block_size) in [(1, 16), (3, 32), (4, 32), (7, 16)] {
                let case = Case { k: format, v: format, head_dim, group, block_size, ..BASE };
                conformance::matches_reference(&make, &Device::Cpu, case, tolerance);
            }
        }
    }
}

/// Centring is exact: what is taken out of keys stored as floats comes back, to the rounding of a logit of some tens in
/// f32.
#[test]
fn centring_changes_nothing_but_rounding() {
    for head_dim in [64, 80, 128] {
        for block_size in [16, 32] {
            for rope in [true, false] {
                let case = Case { head_dim, block_size, rope, ..BASE };
                conformance::matches_reference(&make_centred, &Device::Cpu, case, 2e-4);
            }
        }
    }
}

#[test]
fn a_sliding_window_sees_its_tokens_alone() {
    for window in [1, 40, 600] {
        conformance::matches_reference(&make, &Device::Cpu, Case { sliding_window: Some(window), ..BASE }, 2e-5);
    }
}

#[test]
fn results_do_not_depend_on_the_batch() {
    for (k, v) in [
        (Format::F32, Format::F32),
        (Format::F16, Format::F16),
        (Format::Bf16, Format::Bf16),
        (Format::Tq8, Format::Tc4),
        (Format::Tc5, Format::Tc5),
        (Format::Tc4, Format::Tc4),
        (Format::Affine8, Format::Lloyd3),
    ] {
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                conformance::is_batch_invariant(&make, &Device::Cpu, Case { k, v, ..BASE });
                conformance::is_batch_invariant(&make_centred, &Device::Cpu, Case { k, v, ..BASE });
                conformance::is_batch_invariant(
                    &make,
                    &Device::Cpu,
                    Case { k, v, head_dim: 128, block_size: 32, group: 4, sliding_window: Some(300), ..BASE },
                );
            });
        }
    }
}

#[test]
fn blocks_are_copied_and_moved() {
    for (k, v) in [(Format::F32, Format::F32), (Format::Bf16, Format::Bf16), (Format::Tc4, Format::Tc3)] {
        conformance::blocks_move(&make, &Device::Cpu, Case { k, v, ..BASE });
    }
}

/// The byte formula, the memory taken and the blocks read back are one number, for every pair, head size and block
/// size.
#[test]
fn bytes_are_the_formula_everywhere() {
    for k in Format::names(turboquant::Side::K) {
        for v in Format::names(turboquant::Side::V) {
            for head_dim in [64, 80, 96, 128, 256] {
                for block_size in [16, 32] {
                    let (k, v) = (
                        Format::parse(turboquant::Side::K, k).unwrap(),
                        Format::parse(turboquant::Side::V, v).unwrap(),
                    );
                    if k.check(turboquant::Side::K, head_dim).is_err()
                        || v.check(turboquant::Side::V, head_dim).is_err()
                    {
                        continue;
                    }
                    let case = Case { k, v, head_dim, block_size, ..BASE };
                    let fixture = conformance::Fixture::new(&make, &Device::Cpu, case, 3);
                    let spec = fixture.backend().spec();
                    let formula = 2 * block_size * (k.row_bytes(head_dim) + v.row_bytes(head_dim));
                    assert_eq!(spec.bytes_per_block(), formula, "{case:?}");
                    assert_eq!(fixture.backend().allocated_bytes(), 3 * formula, "{case:?}");
                }
            }
        }
    }
}

/// When it is made, not in its first step.
#[test]
fn a_group_without_kernels_is_refused() {
    let backend = |num_heads| {
        let layer =
            LayerGeometry { num_heads, kv_heads: 2, head_dim: 64, scale: 0.125, sliding_window: None, rope: None };
        let geometry = ModelGeometry { layers: vec![layer] };
        let layout = KvLayout::new(16, [(2, 64, Format::Bf16, Format::Bf16)]).unwrap();
        let centring = Centring::none(&geometry);
        CpuBackend::new(layout, geometry, centring)
    };
    assert!(backend(32).is_ok());
    let error = backend(34).err().unwrap().to_string();
    assert!(error.contains("34 heads") && error.contains("2 kv heads") && error.contains("16"), "{error}");
}
