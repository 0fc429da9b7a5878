//! Layers that kernels compute as a whole, in the emulator: gated delta nets and mixtures of experts.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod common;
use candle_core::Device;
use common::executor;
use compute::{ComputeDevice, CpuDevice, DeltaNetSizes, HeadOrder, Routing};
use conformance::layers::{DeltaNet, MIXTURE_BOUND, Mixture, relative_error};
use matmul::WeightType;
use metal::GpuDevice;
use msl_emu::{Emulator, EmulatorExecutor};

fn device(emulator: &'static Emulator, order: u32) -> GpuDevice<EmulatorExecutor> {
    GpuDevice::new(executor(emulator, order), Device::Cpu).unwrap()
}

/// One value head a key head and two, in either order of heads; a head that fills its simdgroups and one that does not.
const NETS: [DeltaNetSizes; 4] = [
    net([1, 2], [32, 40], 4, HeadOrder::Grouped),
    net([2, 2], [64, 8], 2, HeadOrder::Grouped),
    net([1, 1], [128, 128], 4, HeadOrder::Grouped),
    net([2, 6], [32, 16], 4, HeadOrder::Tiled),
];

const fn net(heads: [usize; 2], dims: [usize; 2], conv_kernel: usize, order: HeadOrder) -> DeltaNetSizes {
    let ([key_heads, value_heads], [key_dim, value_dim]) = (heads, dims);
    DeltaNetSizes { key_heads, value_heads, key_dim, value_dim, conv_kernel, order }
}

/// The tokens of a sequence, past those that a threadgroup has in memory at once.
const TOKENS: usize = 35;

/// The bound of the difference of two devices after `tokens` tokens: a token is a chain of some 16 roundings of f32, on
/// each device, and what they change stays in the state for as long as this remembers.
fn bound(tokens: usize) -> f32 {
    2.0 * 16.0 * tokens as f32 * 2f32.powi(-24)
}

#[test]
fn delta_nets_are_those_of_the_cpu() {
    let Some(emulator) = Emulator::fast() else { return };
    for (order, sizes) in (0..).zip(NETS) {
        let gpu = device(emulator, order);
        let [got, want] = [&gpu as &dyn ComputeDevice, &CpuDevice]
            .map(|device| DeltaNet::new(device, sizes).unwrap().step(&[(2, 0..TOKENS)]).unwrap().remove(0));
        let error = relative_error(&got, &want);
        println!("{sizes:?}: {error:.1e}");
        assert!(error < bound(TOKENS), "{sizes:?}: {error:.1e}");
    }
}

/// A sequence's rows have the same bits in chunks and beside other sequences, and when they go on from states that were
/// copied, or read back and written again.
#[test]
fn rows_of_a_delta_net_do_not_depend_on_chunks_and_company() {
    let Some(emulator) = Emulator::fast() else { return };
    for sizes in [NETS[0], NETS[3]] {
        check_chunks_and_company(&device(emulator, 1), sizes);
    }
}

fn check_chunks_and_company(device: &GpuDevice<EmulatorExecutor>, sizes: DeltaNetSizes) {
    let want = DeltaNet::new(device, sizes).unwrap().step(&[(2, 0..TOKENS)]).unwrap().remove(0);
    let net = DeltaNet::new(device, sizes).unwrap();
    let row = sizes.values();
    // Chunks of 1 and 2 tokens are shorter than the convolution. Slot 2 had another sequence before.
    net.step(&[(2, 0..3)]).unwrap();
    let mut got = net.step(&[(4, 0..17), (2, 0..2), (0, 0..1)]).unwrap().remove(1);
    got.extend(net.step(&[(2, 2..3), (4, 17..20)]).unwrap().remove(0));
    got.extend(net.step(&[(0, 1..2), (2, 3..20)]).unwrap().remove(1));
    net.states.copy(2, 3).unwrap();
    let kept = net.states.read(2).unwrap();
    got.extend(net.step(&[(2, 20..TOKENS)]).unwrap().remove(0));
    assert_eq!(got, want, "in chunks, beside others");
    net.states.write(1, &kept).unwrap();
    let other = net.states.read(3).unwrap();
    assert!(kept == other, "a copy of the states");
    // The inputs are those of slot 2's sequence, so its states come back there.
    net.states.copy(1, 2).unwrap();
    let again = net.step(&[(2, 20..TOKENS)]).unwrap().remove(0);
    assert_eq!(again, want[20 * row..], "behind a snapshot");
}

#[test]
fn delta_nets_make_no_mistake_that_the_emulator_finds() {
    let Some(emulator) = Emulator::checked() else { return };
    for (order, sizes) in [(0, NETS[0]), (7, NETS[1]), (3, NETS[3])] {
        let gpu = device(emulator, order);
        let [got, want] = [&gpu as &dyn ComputeDevice, &CpuDevice].map(|device| {
            let net = DeltaNet::new(device, sizes).unwrap();
            net.step(&[(0, 0..18), (1, 0..1)]).unwrap();
            net.step(&[(1, 1..2), (0, 18..19)]).unwrap().concat()
        });
        assert!(relative_error(&got, &want) < bound(19), "{sizes:?}");
    }
}

#[test]
fn delta_nets_without_kernels_are_refused_by_name() {
    let Some(emulator) = Emulator::fast() else { return };
    let device = device(emulator, 0);
    for (sizes, field) in [
        (DeltaNetSizes { key_dim: 48, ..NETS[0] }, "linear_key_head_dim is 48"),
        (DeltaNetSizes { value_dim: 12, ..NETS[0] }, "linear_value_head_dim is 12"),
        (DeltaNetSizes { value_dim: 256, ..NETS[0] }, "linear_value_head_dim is 256"),
    ] {
        let error = DeltaNet::new(&device, sizes).err().unwrap().to_string();
        assert!(error.contains(field), "{error}");
    }
}

fn mixture(kinds: [WeightType; 3], experts: usize, per_token: usize, normalized: bool) -> Mixture {
    Mixture { kinds, hidden: 64, inner: 32, experts, routing: Routing { per_token, normalized } }
}

/// Rows of a mixture are the CPU's, and the first and the last alone have the bits that they have among others.
fn check_mixture(gpu: &dyn ComputeDevice, mixture: &Mixture, rows: usize) {
    let [got, want] = [gpu, &CpuDevice].map(|device| mixture.run(device, 0..rows).unwrap());
    let error = relative_error(&got, &want);
    println!("{:?}: {error:.1e}", mixture.kinds);
    assert!(error < MIXTURE_BOUND, "{:?} with {rows} rows: {error:.1e}", mixture.kinds);
    for row in [0, rows - 1] {
        let alone = mixture.run(gpu, row..row + 1).unwrap();
        assert_eq!(alone, got[row * mixture.hidden..][..mixture.hidden], "row {row} alone and among {rows}");
    }
}

/// Tiles of both sizes, experts without rows, types of weights that share no launch.
#[test]
fn mixtures_are_those_of_the_cpu_and_rows_do_not_depend_on_others() {
    let Some(emulator) = Emulator::fast() else { return };
    use WeightType::{Bf16, F16, F32};
    for (order, (mixture, rows)) in (0..).zip([
        (mixture([F16; 3], 40, 3, true), 1),
        (mixture([Bf16; 3], 8, 2, true), 5),
        (mixture([Bf16, F16, F32], 5, 2, false), 40),
        (mixture([Bf16; 3], 3, 2, true), 70),
    ]) {
        check_mixture(&device(emulator, order), &mixture, rows);
    }
}

#[test]
fn mixtures_make_no_mistake_that_the_emulator_finds() {
    let Some(emulator) = Emulator::checked() else { return };
    for (order, rows) in [(0, 3), (7, 21)] {
        check_mixture(&device(emulator, order), &mixture([WeightType::Bf16; 3], 3, 2, true), rows);
    }
}
