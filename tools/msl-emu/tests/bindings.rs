//! A wrong buffer index is found without a Mac: by the emulator, or by the numbers.
#![allow(clippy::unwrap_used)] // helpers of tests
mod common;
use candle_core::{DType, Device, Tensor};
use common::*;
use compute::ComputeDevice;
use conformance::rows;
use metal::{AttendKernel, Executor, GpuDevice, Launch};
use msl_emu::{Emulator, EmulatorExecutor, Memory, Watched};
use std::panic::{AssertUnwindSafe, catch_unwind};
use turboquant::{Format, Side};

/// An executor that swaps two buffer indices of one kernel.
fn misbound(emulator: &'static Emulator, kernel: &'static str, swapped: [u32; 2]) -> impl Executor<Buffer = Memory> {
    let run = move |inner: &EmulatorExecutor, launches: &[Launch<'_, Memory>]| {
        for launch in launches {
            let swap = |index| match swapped {
                [a, b] if launch.kernel.starts_with(kernel) && index == a => b,
                [a, b] if launch.kernel.starts_with(kernel) && index == b => a,
                _ => index,
            };
            let bindings = launch.bindings.iter().map(|binding| metal::Binding {
                index: swap(binding.index),
                buffer: binding.buffer,
                offset: binding.offset,
                access: binding.access,
            });
            let launch = Launch {
                kernel: launch.kernel.clone(),
                constants: launch.constants.clone(),
                grid: launch.grid,
                threads: launch.threads,
                bindings: bindings.collect(),
                params: launch.params.clone(),
                work: launch.work,
            };
            inner.run(&[launch])?;
        }
        Ok(())
    };
    Watched { inner: executor(emulator, 0), most_work: u64::MAX, run }
}

/// Relative error of a row and a chunk, and a tenth of that of the stored keys, whose int8 codes cost half a percent;
/// infinite where the emulator refuses.
fn error(emulator: &'static Emulator, decode: AttendKernel, kernel: &'static str, swapped: [u32; 2]) -> f64 {
    let case = Case { centred: true, decode, ..Case::new(Format::Tq8, Format::Tc4, 64) };
    let run = || {
        let mut cache = Cache::new(misbound(emulator, kernel, swapped), case, 50);
        cache.write();
        let (q, rows) = (cache.query(5, 1), cache.query(6, 20));
        let mut got = cache.attend(&q, 49, 50);
        let width = got.len();
        got.extend_from_slice(&cache.attend(&rows, 30, 50)[..width]);
        let mut want = cache.expect(&q, 49);
        want.extend(cache.expect(&rows[..width], 30));
        let keys = cache.pages(1);
        let stored: Vec<f64> = (0..50).flat_map(|t| keys[t / 16].vector(Side::K, t % 16)).collect();
        let given: Vec<f32> = (0..50).flat_map(|t| cache.given(Side::K, t, 1)).collect();
        relative(&got, &want).max(0.1 * relative(&given, &stored))
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(f64::INFINITY)
}

#[test]
fn swapped_buffers_are_found() {
    let Some(emulator) = Emulator::fast() else { return };
    assert!(error(emulator, AttendKernel::Mma, "none", [0, 1]) < 1e-3);
    for (decode, kernel, swaps) in [
        (AttendKernel::Mma, "write", &[[0, 1], [2, 3], [3, 5], [5, 6], [6, 7]][..]),
        (AttendKernel::Mma, "query", &[[2, 5], [3, 4], [4, 6], [6, 7], [8, 9]]),
        (AttendKernel::Mma, "attend_mma", &[[0, 3], [1, 2], [4, 6], [7, 8]]),
        (AttendKernel::Vec, "attend_vec", &[[0, 3], [4, 6], [7, 8]]),
        (AttendKernel::Mma, "prefill", &[[2, 4], [5, 6]]),
        (AttendKernel::Mma, "reduce", &[[0, 1], [2, 3], [3, 4]]),
    ] {
        for swapped in swaps {
            let error = error(emulator, decode, kernel, *swapped);
            assert!(error > 1e-2, "{kernel} with {swapped:?} swapped: {error:.1e}");
        }
    }
}

/// Largest error of what is row by row; infinite where the emulator refuses.
fn rows_error(emulator: &'static Emulator, kernel: &'static str, swapped: [u32; 2]) -> f64 {
    let run = || {
        let executor = misbound(emulator, kernel, swapped);
        rows::error(&GpuDevice::new(executor, Device::Cpu).unwrap()).unwrap()
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(f64::INFINITY)
}

#[test]
fn rows_are_computed_and_swapped_buffers_found() {
    let Some(emulator) = Emulator::checked() else { return };
    let error = rows_error(emulator, "none", [0, 1]);
    assert!(error < rows::BOUND, "{error:.1e}");
    for (kernel, swaps) in [
        ("rms_norm", &[[0, 1], [1, 2]][..]),
        ("add_rms_norm", &[[0, 2], [1, 2], [3, 4]]),
        ("gate_mul", &[[0, 1], [1, 2]]),
        ("top_rows", &[[0, 1], [2, 3]]),
    ] {
        for swapped in swaps {
            let error = rows_error(emulator, kernel, *swapped);
            assert!(error > 1e-2, "{kernel} with {swapped:?} swapped: {error:.1e}");
        }
    }
}

#[test]
fn rows_of_other_shapes_are_refused() {
    let Some(emulator) = Emulator::checked() else { return };
    let device = GpuDevice::new(executor(emulator, 0), Device::Cpu).unwrap();
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let x = zeros(&[2, 6]);
    assert!(device.rms_norm(&x, &zeros(&[5]), 1e-6).is_err());
    assert!(device.add_rms_norm(&x, &zeros(&[3, 6]), &zeros(&[6]), 1e-6).is_err());
    assert!(device.silu_mul(&x, &zeros(&[2, 5])).is_err());
    assert!(device.largest(&x, 7).unwrap().is_none());
}
