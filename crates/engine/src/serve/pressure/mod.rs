//! How short the machine is of memory while the engine runs: the sensors that tell it, and how long a level lasts.
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The sensor is asked at most once in this time. In this time a process can take at most some hundred MiB. More than
/// that is still free when a level is reached, so the next level is noticed before memory runs out.
pub(super) const READ_INTERVAL: Duration = Duration::from_millis(250);

/// The level falls after all readings have been lower for this long, so that requests do not come and go with every
/// step that needs memory for a moment.
const FALL_AFTER: Duration = Duration::from_secs(3);

/// How short the machine, or the process's control group, is of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum PressureLevel {
    /// There is enough memory.
    #[default]
    Normal,
    /// Snapshots are dropped, and nothing is written to disk.
    Warn,
    /// In addition new requests are refused, and one sequence runs at most.
    Critical,
}

impl PressureLevel {
    /// Returns the level's word in logs and answers.
    pub fn name(self) -> &'static str {
        match self {
            PressureLevel::Normal => "normal",
            PressureLevel::Warn => "warn",
            PressureLevel::Critical => "critical",
        }
    }
}

/// The reading of a sensor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PressureReading {
    /// The level now.
    pub level: PressureLevel,
    /// The figures that the level follows from, for the log.
    pub cause: String,
}

/// Tells how short the machine is of memory. It is asked between two steps, so it must not wait for anything.
pub trait PressureSensor: Send {
    /// Reads the level. A sensor that cannot read it returns [`PressureLevel::Normal`].
    fn read(&mut self) -> PressureReading;
}

/// Makes the sensor of an engine that starts.
#[derive(Clone)]
pub struct PressureSource(pub Arc<dyn Fn() -> Option<Box<dyn PressureSensor>> + Send + Sync>);

impl PressureSource {
    /// The sensor of this system: control groups and stalls of Linux, the kernel's own level of macOS; none elsewhere.
    pub fn system() -> Self {
        PressureSource(Arc::new(system_sensor))
    }
}

#[cfg(target_os = "linux")]
fn system_sensor() -> Option<Box<dyn PressureSensor>> {
    Some(Box::new(linux::LinuxSensor::new(std::path::Path::new("/proc"))))
}

#[cfg(target_os = "macos")]
fn system_sensor() -> Option<Box<dyn PressureSensor>> {
    Some(Box::new(macos::MacSensor::new()?))
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn system_sensor() -> Option<Box<dyn PressureSensor>> {
    None
}

impl fmt::Debug for PressureSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PressureSource")
    }
}

/// The level that the engine goes by: it rises with a reading, and falls only when all readings of some seconds were
/// lower.
pub(crate) struct PressureWatch {
    sensor: Option<Box<dyn PressureSensor>>,
    level: PressureLevel,
    last_read: Option<Instant>,
    /// The readings below the level, if the last reading was below it.
    lower: Option<LowerReadings>,
}

/// While readings are below the level: when the first such reading was, and the highest reading since.
#[derive(Clone, Copy)]
struct LowerReadings {
    since: Instant,
    highest: PressureLevel,
}

impl PressureWatch {
    /// Returns a watch that asks this sensor; without one the level stays normal.
    pub fn new(sensor: Option<Box<dyn PressureSensor>>) -> Self {
        PressureWatch { sensor, level: PressureLevel::Normal, last_read: None, lower: None }
    }

    /// The level now.
    pub fn level(&self) -> PressureLevel {
        self.level
    }

    /// Returns how long the engine may wait for messages before it should look again; `None`: for any time.
    pub fn patience(&self) -> Option<Duration> {
        self.sensor.as_ref().map(|_| READ_INTERVAL)
    }

    /// Asks the sensor, unless it was asked less than [`READ_INTERVAL`] ago. Returns true if the level has changed,
    /// which is logged.
    pub fn look(&mut self, now: Instant) -> bool {
        let is_early = self.last_read.is_some_and(|last| now.duration_since(last) < READ_INTERVAL);
        let Some(sensor) = self.sensor.as_mut().filter(|_| !is_early) else { return false };
        self.last_read = Some(now);
        let reading = sensor.read();
        let level = self.next_level(now, reading.level);
        if level == self.level {
            return false;
        }
        let old_level = std::mem::replace(&mut self.level, level);
        self.lower = None;
        match level > old_level {
            true => tracing::warn!("memory pressure: {} after {}: {}", level.name(), old_level.name(), reading.cause),
            false => tracing::info!("memory pressure: {} after {}", level.name(), old_level.name()),
        }
        true
    }

    fn next_level(&mut self, now: Instant, read: PressureLevel) -> PressureLevel {
        if read >= self.level {
            self.lower = None;
            return read;
        }
        let mut lower = self.lower.unwrap_or(LowerReadings { since: now, highest: read });
        lower.highest = lower.highest.max(read);
        self.lower = Some(lower);
        if now.duration_since(lower.since) < FALL_AFTER { self.level } else { lower.highest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PressureLevel::{Critical, Normal, Warn};

    struct Script(Vec<PressureLevel>);

    impl PressureSensor for Script {
        fn read(&mut self) -> PressureReading {
            PressureReading { level: self.0.remove(0), cause: String::new() }
        }
    }

    /// The levels after each of the readings, which are one interval apart.
    fn levels(readings: &[PressureLevel]) -> Vec<PressureLevel> {
        let mut watch = PressureWatch::new(Some(Box::new(Script(readings.to_vec()))));
        let begin = Instant::now();
        let look = |i: usize| {
            let changed_from = watch.level();
            let changed = watch.look(begin + READ_INTERVAL * i as u32);
            assert_eq!(changed, changed_from != watch.level());
            watch.level()
        };
        (0..readings.len()).map(look).collect()
    }

    #[test]
    fn a_level_rises_at_once_and_falls_when_it_has_been_lower_for_a_while() {
        // The first reading that is lower, and the readings of FALL_AFTER after it.
        let lower = (FALL_AFTER.as_millis() / READ_INTERVAL.as_millis()) as usize + 1;
        let readings = [vec![Normal, Critical], vec![Normal; lower], vec![Warn]].concat();
        let expected = [vec![Normal, Critical], vec![Critical; lower - 1], vec![Normal, Warn]].concat();
        assert_eq!(levels(&readings), expected);
        // It falls to the highest that it was meanwhile, and begins again where it was as high.
        let readings =
            [vec![Critical], vec![Normal; lower - 1], vec![Critical], vec![Warn], vec![Normal; lower]].concat();
        let expected = [vec![Critical; 1 + (lower - 1) + 1 + (lower - 1)], vec![Warn; 2]].concat();
        assert_eq!(levels(&readings), expected);
    }

    #[test]
    fn the_sensor_is_not_asked_twice_within_an_interval() {
        let mut watch = PressureWatch::new(Some(Box::new(Script(vec![Normal, Warn]))));
        let begin = Instant::now();
        // A third reading would find the script at its end.
        let looks = [0, 1, 249, 250, 251, 499].map(|ms| watch.look(begin + Duration::from_millis(ms)));
        assert_eq!(looks, [false, false, false, true, false, false]);
    }
}
