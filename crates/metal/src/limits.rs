//! The limits of Apple's GPUs on launches and buffers, and the errors for those that exceed them.
use crate::executor::{ExecError, Launch};

/// Bytes of threadgroup memory that every Apple Silicon GPU has.
const THREADGROUP_BYTES: usize = 32 << 10;
/// The number of buffers that a kernel can be given: `[[buffer(0)]]` to `[[buffer(30)]]`.
const BUFFERS: u32 = 31;

fn exceeded(kernel: &str, message: String) -> ExecError {
    ExecError::Kernel { kernel: kernel.to_owned(), message }
}

/// Errors: more threads a threadgroup than the compiled kernel's registers leave room for; a buffer index that there is
/// not.
pub fn check_launch<B>(launch: &Launch<'_, B>, most_threads: usize) -> Result<(), ExecError> {
    if launch.threads as usize > most_threads {
        let threads = launch.threads;
        let message = format!("{threads} threads a threadgroup; its registers leave room for {most_threads}");
        return Err(exceeded(&launch.kernel, format!("{message}{}", hint(&launch.kernel))));
    }
    let indices = launch.bindings.iter().map(|binding| binding.index).chain([launch.params.0]);
    match indices.max() {
        Some(index) if index >= BUFFERS => {
            let message = format!("buffer index {index} is not allowed; allowed: 0 to {}", BUFFERS - 1);
            Err(exceeded(&launch.kernel, message))
        }
        _ => Ok(()),
    }
}

/// Errors: a kernel that declares more threadgroup memory than a GPU has.
pub fn check_threadgroup_memory(kernel: &str, bytes: usize) -> Result<(), ExecError> {
    if bytes > THREADGROUP_BYTES {
        let message = format!("{bytes} bytes of threadgroup memory; allowed: {THREADGROUP_BYTES}");
        return Err(exceeded(kernel, message));
    }
    Ok(())
}

/// Errors: a buffer that is larger than the GPU's largest, which is half of the memory on some Macs.
pub fn check_buffer(bytes: usize, most: usize) -> Result<(), ExecError> {
    if bytes > most {
        let message = format!("a buffer of this GPU has at most {most}");
        return Err(ExecError::Memory { wanted: bytes, message });
    }
    Ok(())
}

/// The error for a kernel that Apple's compiler cannot make into a pipeline, mostly because it needs too many
/// registers.
pub fn not_made(kernel: &str, message: &str) -> ExecError {
    exceeded(kernel, format!("{message}{}", hint(kernel)))
}

/// The flags to try if a kernel does not fit a GPU.
fn hint(kernel: &str) -> &'static str {
    match kernel {
        _ if kernel.starts_with("attend_mma") => "; try --decode-kernel vec or --device cpu",
        _ if kernel.starts_with("attend_vec") => "; try --decode-kernel mma or --device cpu",
        _ => "; try --device cpu",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::GpuDevice;
    use crate::executor::Executor;
    use crate::launch::{Gate, gate_mul};
    use candle_core::Device;
    use compute::{ComputeDevice, Precision, StoredMatrix};
    use matmul::{Weight, WeightType};
    use std::sync::Arc;

    /// A GPU whose largest buffer has 100 bytes.
    struct Small;

    impl Executor for Small {
        type Buffer = ();

        fn largest_buffer(&self) -> usize {
            100
        }
        fn create(&self, _: usize) -> Result<(), ExecError> {
            Ok(())
        }
        fn upload(&self, (): &(), _: usize, _: &[u8]) -> Result<(), ExecError> {
            Ok(())
        }
        fn download(&self, (): &(), _: usize, _: &mut [u8]) -> Result<(), ExecError> {
            Ok(())
        }
        fn run(&self, _: &[Launch<'_, ()>]) -> Result<(), ExecError> {
            Ok(())
        }
    }

    /// Rows of 5 f32 values.
    struct Rows(Vec<u8>);

    impl StoredMatrix for Rows {
        fn view(&self) -> Weight<'_> {
            Weight::new(WeightType::F32, self.0.len() / 20, 5, &self.0).unwrap()
        }
        fn forget(&self) {}
    }

    #[test]
    fn a_weight_larger_than_a_buffer_is_refused() {
        let device = GpuDevice::new(Small, Device::Cpu).unwrap();
        let place = |rows: usize| device.place(Arc::new(Rows(vec![0; 20 * rows])), None, Precision::Exact);
        place(5).unwrap();
        let error = place(6).err().unwrap().to_string();
        assert!(error.contains("120") && error.contains("100"), "{error}");
    }

    #[test]
    fn more_threads_than_registers_leave_room_for_are_an_error_by_name() {
        let launch = gate_mul(1000, Gate::Silu, [&(), &(), &()]);
        assert_eq!(check_launch(&launch, 256), Ok(()));
        let error = check_launch(&launch, 224).unwrap_err().to_string();
        assert!(["gate_mul", "256 threads", "224"].iter().all(|part| error.contains(part)), "{error}");
    }

    #[test]
    fn a_buffer_index_that_there_is_not_is_an_error() {
        let mut launch = gate_mul(1000, Gate::Silu, [&(), &(), &()]);
        launch.bindings[1].index = 30;
        assert_eq!(check_launch(&launch, 256), Ok(()));
        launch.params.0 = 31;
        let error = check_launch(&launch, 256).unwrap_err().to_string();
        assert!(error.contains("gate_mul") && error.contains("31") && error.contains("0 to 30"), "{error}");
    }

    #[test]
    fn threadgroup_memory_ends_at_32_kib() {
        assert_eq!(check_threadgroup_memory("write_d64", 32_768), Ok(()));
        let error = check_threadgroup_memory("write_d64", 32_784).unwrap_err().to_string();
        assert!(["write_d64", "32784", "32768"].iter().all(|part| error.contains(part)), "{error}");
    }

    #[test]
    fn a_buffer_that_is_too_large_is_named_with_the_largest() {
        assert_eq!(check_buffer(1 << 32, 1 << 32), Ok(()));
        let error = check_buffer((1 << 32) + 1, 1 << 32).unwrap_err().to_string();
        assert!(error.contains("4294967297") && error.contains("4294967296"), "{error}");
    }

    #[test]
    fn a_kernel_that_does_not_fit_names_the_flag_that_takes_another() {
        let error = not_made("attend_mma_d256_c1_u2", "exceeds available temporary registers").to_string();
        for part in ["attend_mma_d256_c1_u2", "temporary registers", "--decode-kernel vec"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(not_made("attend_vec_d512_u2", "").to_string().contains("--decode-kernel mma"));
        assert!(!not_made("prefill_d256_u2", "").to_string().contains("--decode-kernel"));
    }
}
