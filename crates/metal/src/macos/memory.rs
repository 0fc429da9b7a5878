//! How much memory the GPU may use.
use candle_core::MetalDevice;

/// What Metal recommends, what the machine has, and what to count on. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkingSet {
    /// What Metal recommends to use at most.
    pub recommended: u64,
    /// The memory of the machine.
    pub physical: u64,
    /// The part of the recommended memory that Candle and others in this process have taken.
    pub allocated: u64,
    /// What may still be taken.
    pub usable: u64,
}

/// Reads Metal's recommendation. Where there is none, two thirds of the memory may be used.
pub fn working_set(device: &MetalDevice, physical: u64) -> WorkingSet {
    let recommended = device.metal_device().recommended_max_working_set_size() as u64;
    let allocated = device.metal_device().current_allocated_size() as u64;
    WorkingSet { recommended, physical, allocated, usable: crate::memory::usable(recommended, physical, allocated) }
}
