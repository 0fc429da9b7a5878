//! The device that computes, and the memory it has.
use super::memory::free_memory;
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

impl DecodeKernel {
    /// The flag's values.
    pub const NAMES: [&str; 2] = ["mma", "vec"];

    /// Parses the flag's value. Errors: an unknown name, with the known ones.
    pub fn parse(name: &str) -> Result<Self, StartError> {
        match name {
            "mma" => Ok(DecodeKernel::Mma),
            "vec" => Ok(DecodeKernel::Vec),
            other => {
                let message = format!("is {other}; it must be one of {}", Self::NAMES.join(", "));
                Err(StartError::flag("--decode-kernel", message))
            }
        }
    }
}

impl DeviceChoice {
    /// The flag's values.
    pub const NAMES: [&str; 3] = ["auto", "cpu", "metal"];

    /// Parses the flag's value. Errors: an unknown name, with the known ones.
    pub fn parse(name: &str) -> Result<Self, StartError> {
        match name {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "metal" => Ok(DeviceChoice::Metal),
            other => {
                Err(StartError::flag("--device", format!("is {other}; it must be one of {}", Self::NAMES.join(", "))))
            }
        }
    }

    /// Opens the device.
    ///
    /// Errors: `metal` where there is none, with the reason.
    pub fn open(self) -> Result<Device, StartError> {
        match self {
            DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Auto if !cfg!(all(target_os = "macos", feature = "metal")) => Ok(Device::Cpu),
            DeviceChoice::Auto | DeviceChoice::Metal => metal(),
        }
    }
}

#[cfg(all(target_os = "macos", feature = "metal"))]
fn metal() -> Result<Device, StartError> {
    Ok(Device::new_metal(0)?)
}

#[cfg(not(all(target_os = "macos", feature = "metal")))]
fn metal() -> Result<Device, StartError> {
    let message = "is metal; this program was built without Metal (on a Mac: cargo build --release --features metal)";
    Err(StartError::flag("--device", message))
}

/// Free bytes for a cache on `device`; `None` where the system does not say.
pub(crate) fn free_on(device: &Device) -> Option<u64> {
    let free = free_memory();
    match device {
        #[cfg(all(target_os = "macos", feature = "metal"))]
        Device::Metal(metal) => {
            let set = ::metal::macos::working_set(metal, super::memory::physical_memory());
            tracing::info!(
                "GPU memory: Metal recommends {} MiB of {} MiB, {} MiB are taken, {} MiB may be used",
                set.recommended >> 20,
                set.physical >> 20,
                set.allocated >> 20,
                set.usable >> 20
            );
            Some(free.map_or(set.usable, |free| free.min(set.usable)))
        }
        _ => free,
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
        if cfg!(not(feature = "metal")) {
            assert!(DeviceChoice::Metal.open().unwrap_err().to_string().contains("--features metal"));
            assert!(DeviceChoice::Auto.open().unwrap().is_cpu());
        }
    }
}
