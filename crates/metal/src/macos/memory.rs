//! How much memory the GPU may use.
use candle_core::MetalDevice;

/// How much memory the GPU may use, in bytes: Metal's recommended maximum, the machine's memory, what this process has
/// allocated already, and what it may still allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkingSet {
    /// Metal's recommended maximum.
    pub recommended: u64,
    /// The memory of the machine.
    pub physical: u64,
    /// The memory that Candle and others in this process have allocated.
    pub allocated: u64,
    /// The memory that may still be allocated.
    pub usable: u64,
}

/// Reads Metal's recommended maximum. If Metal gives none, two thirds of the machine's memory may be used.
pub fn working_set(device: &MetalDevice, physical: u64) -> WorkingSet {
    let recommended = device.metal_device().recommended_max_working_set_size() as u64;
    let allocated = device.metal_device().current_allocated_size() as u64;
    WorkingSet { recommended, physical, allocated, usable: crate::memory::usable(recommended, physical, allocated) }
}
