//! How much memory the machine has, what of it is free, and how much this process has.
use sysinfo::{CGroupLimits, ProcessRefreshKind, ProcessesToUpdate, System};

/// The machine's memory at one moment, or what of it a container may take; bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineMemory {
    /// All of it.
    pub total: u64,
    /// What is free, or could be freed at once.
    pub free: u64,
    /// What this process has in memory, mapped files included.
    pub resident: u64,
}

/// Reads the machine's memory; `None` where the system does not say.
pub fn machine_memory() -> Option<MachineMemory> {
    let system = system()?;
    let resident = sysinfo::get_current_pid().ok().and_then(|own| Some(system.process(own)?.memory()))?;
    Some(MachineMemory { total: total_of(&system)?, free: free_of(&system), resident })
}

/// Memory of this machine in bytes; 0 where the system does not say.
#[cfg(all(any(target_os = "macos", metal_double), feature = "metal"))]
pub(crate) fn physical_memory() -> u64 {
    total_memory().unwrap_or(0)
}

/// Free memory of this machine in bytes; `None` where the system does not say.
pub fn free_memory() -> Option<u64> {
    system().map(|system| free_of(&system))
}

/// All memory of this machine in bytes, or what a container may take of it; `None` where the system does not say.
pub(crate) fn total_memory() -> Option<u64> {
    total_of(&system()?)
}

fn free_of(system: &System) -> u64 {
    container_limits(system).map(|limits| limits.free_memory).fold(system.available_memory(), u64::min)
}

fn total_of(system: &System) -> Option<u64> {
    let limits = container_limits(system).map(|limits| limits.total_memory);
    Some(limits.fold(system.total_memory(), u64::min)).filter(|total| *total > 0)
}

fn system() -> Option<System> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    if let Ok(own) = sysinfo::get_current_pid() {
        let kind = ProcessRefreshKind::nothing().with_memory();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, kind);
    }
    Some(system)
}

/// The limits of the container that this process sees as the system, and of the control group that it is in.
fn container_limits(system: &System) -> impl Iterator<Item = CGroupLimits> {
    let own = sysinfo::get_current_pid().ok().and_then(|own| system.process(own)?.cgroup_limits());
    system.cgroup_limits().into_iter().chain(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_how_much_memory_it_has() {
        let before = machine_memory().unwrap();
        assert!(before.free <= before.total && free_memory().unwrap() <= total_memory().unwrap());
        // Memory that is written is resident.
        let taken = vec![1u8; 64 << 20];
        let after = machine_memory().unwrap();
        assert!(after.resident >= before.resident + taken.len() as u64 / 2, "{before:?} {after:?}");
        assert_eq!(taken.last(), Some(&1));
    }
}
