//! The device that computes, and the memory it has.
use super::machine_memory::free_memory;
use crate::error::StartError;
use candle_core::Device;

/// What computes (`--device`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The GPU of an Apple Silicon Mac, where this program was built for it; else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of an Apple Silicon Mac.
    Metal,
}

/// The kernel that attends single rows on a GPU (`--decode-kernel`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DecodeKernel {
    /// `attend_mma`, whose bits are those of prefill.
    #[default]
    Mma,
    /// `attend_vec`, which sums in another order: fewer operations where a GPU has no matrix unit, and not measured on
    /// a Mac yet.
    Vec,
}

/// The value of a flag by its name; `values` are those of `names`, in order.
///
/// Errors: an unknown name, with the known ones.
fn named<T, const N: usize>(flag: &'static str, name: &str, names: [&str; N], values: [T; N]) -> Result<T, StartError> {
    let found = names.iter().zip(values).find(|(known, _)| **known == name);
    found
        .map(|(_, value)| value)
        .ok_or_else(|| StartError::flag(flag, format!("is {name}; it must be one of {}", names.join(", "))))
}

impl DecodeKernel {
    /// The flag's values.
    pub const NAMES: [&str; 2] = ["mma", "vec"];

    /// Parses the flag's value. Errors: an unknown name, with the known ones.
    pub fn parse(name: &str) -> Result<Self, StartError> {
        named("--decode-kernel", name, Self::NAMES, [DecodeKernel::Mma, DecodeKernel::Vec])
    }
}

/// How products with weights are computed on a GPU where a step has one or two rows (`--gpu-products`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpuProducts {
    /// By one order of sums for any number of rows: a row's bits depend on nothing but the row.
    Exact,
    /// By a kernel for so few rows: less work, and bits that are not those of a longer step.
    Fast,
    /// Fast for the types of weights with which exact products would make a step of this GPU more than a tenth slower.
    #[default]
    Auto,
}

impl GpuProducts {
    /// The flag's values.
    pub const NAMES: [&str; 3] = ["auto", "exact", "fast"];

    /// Parses the flag's value. Errors: an unknown name, with the known ones.
    pub fn parse(name: &str) -> Result<Self, StartError> {
        named("--gpu-products", name, Self::NAMES, [GpuProducts::Auto, GpuProducts::Exact, GpuProducts::Fast])
    }

    /// The types of weights that a GPU, by its name, multiplies by the kernel for few rows. The log says what that
    /// means.
    #[cfg(all(any(target_os = "macos", metal_double), feature = "metal"))]
    pub(crate) fn matvec_types(self, gpu: &str) -> Vec<matmul::WeightType> {
        let types = match self {
            GpuProducts::Exact => Vec::new(),
            GpuProducts::Fast => ::metal::multiplied_types(),
            GpuProducts::Auto => ::metal::slow_types(gpu),
        };
        let names: Vec<&str> = types.iter().map(|kind| kind.name()).collect();
        match &names[..] {
            [] => tracing::info!("products on {gpu}: exact, an answer's bits do not depend on what else is computed"),
            names => tracing::info!(
                "products on {gpu}: fast for steps of one or two rows with weights of {}, whose bits differ from those \
                 of longer steps; --gpu-products exact makes them equal, at more time a token",
                names.join(", ")
            ),
        }
        types
    }
}

impl DeviceChoice {
    /// The flag's values.
    pub const NAMES: [&str; 3] = ["auto", "cpu", "metal"];

    /// Parses the flag's value. Errors: an unknown name, with the known ones.
    pub fn parse(name: &str) -> Result<Self, StartError> {
        named("--device", name, Self::NAMES, [DeviceChoice::Auto, DeviceChoice::Cpu, DeviceChoice::Metal])
    }

    /// Opens the device. `auto` takes the CPU where there is no GPU that it could use, and logs the reason on a program
    /// that was built for one.
    ///
    /// Errors: `metal` where there is none, with the reason.
    pub fn open(self) -> Result<Device, StartError> {
        self.open_with(metal)
    }

    fn open_with(self, gpu: impl FnOnce() -> Result<Device, String>) -> Result<Device, StartError> {
        match self {
            DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Metal => gpu().map_err(|reason| StartError::flag("--device", format!("is metal; {reason}"))),
            DeviceChoice::Auto => Ok(gpu().unwrap_or_else(|reason| {
                if cfg!(all(any(target_os = "macos", metal_double), feature = "metal")) {
                    tracing::warn!("{reason}; the CPU computes");
                }
                Device::Cpu
            })),
        }
    }
}

/// The first macOS whose Metal has residency sets, which Candle's device cannot do without.
const FIRST_MACOS: u32 = 15;

/// Errors: a macOS, by its version such as "14.6.1", on which Candle's device would panic.
#[cfg_attr(not(all(any(target_os = "macos", metal_double), feature = "metal")), allow(dead_code))]
fn check_macos(version: &str) -> Result<(), String> {
    match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
        Some(major) if major < FIRST_MACOS => {
            Err(format!("this is macOS {version}; the GPU is used from macOS {FIRST_MACOS} on"))
        }
        _ => Ok(()),
    }
}

#[cfg(all(any(target_os = "macos", metal_double), feature = "metal"))]
fn metal() -> Result<Device, String> {
    if cfg!(target_os = "macos") {
        check_macos(&sysinfo::System::os_version().unwrap_or_default())?;
    }
    ::metal::macos::open().map_err(|e| e.to_string())
}

#[cfg(not(all(any(target_os = "macos", metal_double), feature = "metal")))]
fn metal() -> Result<Device, String> {
    Err("this program has no Metal: it was built for a system other than macOS, or with --no-default-features"
        .to_owned())
}

/// The instructions for which this CPU's kernels are written; `None` where there are none but the plain ones.
pub fn vector_instructions() -> Option<&'static str> {
    match matmul::Isa::best() {
        matmul::Isa::Avx512 => Some("AVX-512"),
        matmul::Isa::Avx2 => Some("AVX2"),
        matmul::Isa::Neon => Some("NEON"),
        matmul::Isa::Scalar => None,
    }
}

/// Free bytes for a cache on `device`; `None` where the system does not say.
pub(crate) fn free_on(device: &Device) -> Option<u64> {
    let free = free_memory();
    gpu_limit(device).map_or(free, |limit| Some(free.map_or(limit, |free| free.min(limit))))
}

/// Bytes that a GPU may use beside what it uses now; `None` for the CPU.
pub(super) fn gpu_limit(device: &Device) -> Option<u64> {
    match device {
        #[cfg(all(any(target_os = "macos", metal_double), feature = "metal"))]
        Device::Metal(metal) => {
            let set = ::metal::macos::working_set(metal, super::machine_memory::physical_memory());
            tracing::info!(
                "GPU memory: Metal recommends {} MiB of {} MiB, {} MiB are taken, {} MiB may be used",
                set.recommended >> 20,
                set.physical >> 20,
                set.allocated >> 20,
                set.usable >> 20
            );
            Some(set.usable)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_and_what_is_not_there_is_said() {
        assert_eq!(DeviceChoice::parse("cpu").unwrap(), DeviceChoice::Cpu);
        assert!(DeviceChoice::parse("gpu").unwrap_err().to_string().contains("auto, cpu, metal"));
        assert!(DeviceChoice::Cpu.open().unwrap().is_cpu());
        if cfg!(not(all(any(target_os = "macos", metal_double), feature = "metal"))) {
            assert!(DeviceChoice::Metal.open().unwrap_err().to_string().contains("--no-default-features"));
            assert!(DeviceChoice::Auto.open().unwrap().is_cpu());
        }
    }

    #[test]
    fn a_gpu_that_cannot_be_used_is_an_error_for_metal_alone() {
        let none = || Err("macOS offers this process no GPU".to_owned());
        assert!(DeviceChoice::Auto.open_with(none).unwrap().is_cpu());
        let error = DeviceChoice::Metal.open_with(none).unwrap_err().to_string();
        assert!(error.contains("--device") && error.contains("is metal; macOS offers this process no GPU"), "{error}");
    }

    #[test]
    fn a_macos_without_residency_sets_is_named() {
        let error = check_macos("14.6.1").unwrap_err();
        assert!(error.contains("macOS 14.6.1") && error.contains("macOS 15"), "{error}");
        for version in ["15.0", "15", "26.1", ""] {
            check_macos(version).unwrap();
        }
    }
}
