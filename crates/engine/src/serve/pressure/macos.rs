//! macOS: the kernel's own level.
use super::{PressureLevel, PressureReading, PressureSensor};
use sysctl::{Ctl, Sysctl};

/// The kernel's name of its level. The level is 1 while there is enough, 2 where it asks programs to give back what
/// they can do without, 4 where it is about to end some.
const NAME: &str = "kern.memorystatus_vm_pressure_level";

/// Reads the kernel's level.
pub struct MacSensor(Ctl);

impl MacSensor {
    /// `None` where the kernel has no such value.
    pub fn new() -> Option<Self> {
        let found = Ctl::new(NAME).inspect_err(|error| tracing::warn!("memory pressure is not watched: {error}"));
        found.ok().map(MacSensor)
    }
}

impl PressureSensor for MacSensor {
    fn read(&mut self) -> PressureReading {
        let value = self.0.value_string().unwrap_or_default();
        let level = match value.trim() {
            "2" => PressureLevel::Warn,
            "4" => PressureLevel::Critical,
            _ => PressureLevel::Normal,
        };
        PressureReading { level, cause: format!("{NAME} is {value}") }
    }
}
