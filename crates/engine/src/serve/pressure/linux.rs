//! Linux: what the limits of the process's control groups and the machine leave, and how long processes stand still
//! because memory has to be found for them first.
use super::{PressureLevel, PressureReading, PressureSensor};
use std::fs;
use std::path::{Path, PathBuf};

/// The level is a warning where less than this share of a limit is left, and less than [`WARN_BYTES`].
const WARN_SHARE: f64 = 0.15;
/// So many bytes are enough for a step and for other programs, however small a share of a large limit they are.
const WARN_BYTES: u64 = 2 << 30;
/// The level is critical where less than this share of a limit is left, and less than [`CRITICAL_BYTES`]: the kernel
/// would soon end a process.
const CRITICAL_SHARE: f64 = 0.05;
/// So many bytes are a few times what the activations of a large step take.
const CRITICAL_BYTES: u64 = 512 << 20;
/// The level is a warning where some process stood still for want of memory during this share of the last ten seconds,
/// in percent.
const SOME_STALLED: f64 = 10.0;
/// The level is critical where no process got on during this share of the last ten seconds, in percent: the machine is
/// thrashing.
const ALL_STALLED: f64 = 10.0;
/// Stalls count only where less than this share of memory is left. Where more is, processes stand still for another
/// reason, such as writing files faster than the disk, or the limit of a control group that is not ours.
const ROOM: f64 = 0.25;

/// Reads control groups, `/proc/meminfo` and pressure stall information.
pub struct LinuxSensor {
    proc: PathBuf,
    /// The process's own group and all above it, which may limit it too.
    groups: Vec<Group>,
    /// Stalls of the own group, or of the machine.
    stalls: PathBuf,
}

/// A control group with a memory controller.
struct Group {
    folder: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// How much of a limit is in use.
struct Room {
    left: u64,
    limit: u64,
    /// Whose limit it is.
    of: String,
}

impl LinuxSensor {
    /// The sensor of the process, whose groups are looked up now. `proc`: where the kernel's `/proc` is mounted.
    pub fn new(proc: &Path) -> Self {
        let groups = own_groups(proc);
        let own_stalls = groups.first().map(|group| group.folder.join("memory.pressure")).filter(|path| path.exists());
        let stalls = own_stalls.unwrap_or_else(|| proc.join("pressure/memory"));
        LinuxSensor { proc: proc.to_path_buf(), groups, stalls }
    }

    /// Returns how much is left of each limit, the machine's memory included.
    fn rooms(&self) -> Vec<Room> {
        let machine = read(&self.proc.join("meminfo")).and_then(|text| machine_room(&text));
        let total = machine.as_ref().map_or(u64::MAX, |room| room.limit);
        // A limit above the machine's memory is none.
        let groups = self.groups.iter().filter_map(Group::room).filter(|room| room.limit < total);
        groups.chain(machine).collect()
    }
}

impl PressureSensor for LinuxSensor {
    fn read(&mut self) -> PressureReading {
        let rooms = self.rooms();
        let readings = rooms.iter().map(Room::reading);
        let scarce = rooms.iter().any(|room| (room.left as f64) < ROOM * room.limit as f64);
        let stalls = read(&self.stalls).filter(|_| scarce).map(|text| stalls(&text));
        readings.chain(stalls).max_by_key(|reading| reading.level).unwrap_or_default()
    }
}

impl Room {
    fn reading(&self) -> PressureReading {
        let below = |share: f64, bytes: u64| self.left < bytes.min((share * self.limit as f64) as u64);
        let level = if below(CRITICAL_SHARE, CRITICAL_BYTES) {
            PressureLevel::Critical
        } else if below(WARN_SHARE, WARN_BYTES) {
            PressureLevel::Warn
        } else {
            PressureLevel::Normal
        };
        PressureReading {
            level,
            cause: format!("{} MiB of {}'s {} are left", self.left >> 20, self.of, self.limit >> 20),
        }
    }
}

impl Group {
    /// Returns how much is left of the group's limit; `None` if it has none. Pages of files that no process has mapped
    /// are left too, since the kernel drops them where it needs memory. Mapped ones are not: they are weights, which
    /// would be read again in every step. That is why `inactive_file` is not asked, in which weights are that have been
    /// read once.
    fn room(&self) -> Option<Room> {
        let number = |name: &str| read(&self.folder.join(name))?.trim().parse::<u64>().ok();
        let (limit, used, prefix, file, mapped) = match self.version {
            Version::V1 => {
                (number("memory.limit_in_bytes"), number("memory.usage_in_bytes"), "total_", "cache", "mapped_file")
            }
            Version::V2 => {
                // Above memory.high the kernel slows the group down until it is below again.
                let limit = number("memory.max").into_iter().chain(number("memory.high")).min();
                (limit, number("memory.current"), "", "file", "file_mapped")
            }
        };
        let (limit, used) = (limit?, used?);
        let stat = read(&self.folder.join("memory.stat")).unwrap_or_default();
        let value = |name: &str| value(&stat, &format!("{prefix}{name}")).unwrap_or(0);
        let droppable = value(file).saturating_sub(value("shmem")).saturating_sub(value(mapped));
        let left = limit.saturating_sub(used.saturating_sub(droppable));
        Some(Room { left, limit, of: format!("the control group {}", self.folder.display()) })
    }
}

/// Returns how much is left of the machine's memory, by the same rule.
fn machine_room(meminfo: &str) -> Option<Room> {
    let bytes = |name: &str| Some(value(meminfo, &format!("{name}:"))? << 10);
    let limit = bytes("MemTotal")?;
    let cached = bytes("Cached")? + bytes("Buffers").unwrap_or(0);
    let droppable = cached.saturating_sub(bytes("Shmem").unwrap_or(0)).saturating_sub(bytes("Mapped").unwrap_or(0));
    Some(Room { left: bytes("MemFree")? + droppable, limit, of: "the machine".to_owned() })
}

/// The level that follows from a text such as `some avg10=1.00 avg60=..`, and the same of `full`.
fn stalls(text: &str) -> PressureReading {
    let share = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        line.split_whitespace().find_map(|field| field.strip_prefix("avg10="))?.parse::<f64>().ok()
    };
    let (some, all) = (share("some ").unwrap_or(0.0), share("full ").unwrap_or(0.0));
    let level = if all >= ALL_STALLED {
        PressureLevel::Critical
    } else if some >= SOME_STALLED {
        PressureLevel::Warn
    } else {
        PressureLevel::Normal
    };
    let cause =
        format!("for want of memory some processes stood still {some} % of the last 10 s, and all of them {all} %");
    PressureReading { level, cause }
}

/// The process's group with a memory controller and all above it, as far as they can be seen; the own one first.
fn own_groups(proc: &Path) -> Vec<Group> {
    let (Some(own), Some(mounts)) = (read(&proc.join("self/cgroup")), read(&proc.join("self/mountinfo"))) else {
        return Vec::new();
    };
    // Lines of both versions may be there, of which the older one has the controller if it is named.
    let of_v1 = own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == "memory").then_some(path)
    });
    let (version, path) = match (of_v1, own.lines().find_map(|line| line.strip_prefix("0::"))) {
        (Some(path), _) => (Version::V1, path),
        (None, Some(path)) => (Version::V2, path),
        (None, None) => return Vec::new(),
    };
    let Some((root, mount)) = mounts.lines().find_map(|line| group_mount(line, version)) else { return Vec::new() };
    // Where the mount shows a part of the tree alone, such as in a container, the path may go beyond it.
    let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new("")).to_path_buf();
    let folders = below.ancestors().map(|part| Path::new(mount).join(part)).collect::<Vec<_>>();
    folders.into_iter().map(|folder| Group { folder, version }).collect()
}

/// Root and mount point of a line of `mountinfo`, if it is of the file system that has memory's control groups.
fn group_mount(line: &str, version: Version) -> Option<(&str, &str)> {
    let (mount, source) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let mut source = source.split(' ');
    let is_it = match (version, source.next()?) {
        (Version::V1, "cgroup") => source.nth(1)?.split(',').any(|option| option == "memory"),
        (Version::V2, "cgroup2") => true,
        _ => false,
    };
    is_it.then_some((root, point))
}

/// The number after a name at the beginning of a line.
fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then(|| words.next())??.parse().ok()
    })
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use PressureLevel::{Critical, Normal, Warn};
    use tempfile::TempDir;

    const MIB: u64 = 1 << 20;
    const CALM: &str =
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";

    /// A machine of 8 GiB, most of them free, whose process is in the group `/outer/inner`.
    struct Machine(TempDir);

    impl Machine {
        fn new(version: Version) -> Self {
            let machine = Machine(tempfile::tempdir().unwrap());
            let groups = machine.0.path().join("groups").display().to_string();
            let (own, mount) = match version {
                Version::V1 => ("4:cpu,memory:/outer/inner\n0::/\n", "- cgroup cgroup rw,cpu,memory".to_owned()),
                Version::V2 => ("0::/outer/inner\n", "- cgroup2 cgroup2 rw".to_owned()),
            };
            machine.write("proc/self/cgroup", own);
            let other = "20 1 0:5 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpuset\n";
            machine.write("proc/self/mountinfo", &format!("{other}21 1 0:6 / {groups} rw shared:9 {mount}\n"));
            machine.memory(6000, 1000);
            machine.write("proc/pressure/memory", CALM);
            machine
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// The machine's memory: what is free, and what files have that nobody has mapped, in MiB.
        fn memory(&self, free: u64, cached: u64) {
            let kib = |mib: u64| mib << 10;
            self.write(
                "proc/meminfo",
                &format!(
                    "MemTotal: {} kB\nMemFree: {} kB\nBuffers: 0 kB\nCached: {} kB\nMapped: {} kB\nShmem: {} kB\n",
                    kib(8192),
                    kib(free),
                    kib(cached + 300),
                    kib(200),
                    kib(100)
                ),
            );
        }

        /// A group's limit and use, and what of that is of files that nobody has mapped, in MiB.
        fn group(&self, name: &str, version: Version, limit: &str, used: u64, cached: u64) {
            let (file, mapped, shmem) = ((cached + 90) * MIB, 60 * MIB, 30 * MIB);
            let names = match version {
                Version::V1 => ["memory.limit_in_bytes", "memory.usage_in_bytes"],
                Version::V2 => ["memory.max", "memory.current"],
            };
            let stat = match version {
                Version::V1 => {
                    format!("cache 1\ntotal_cache {file}\ntotal_mapped_file {mapped}\ntotal_shmem {shmem}\n")
                }
                Version::V2 => format!("file {file}\nfile_mapped {mapped}\nshmem {shmem}\n"),
            };
            self.write(&format!("groups/{name}/{}", names[0]), limit);
            self.write(&format!("groups/{name}/{}", names[1]), &format!("{}\n", used * MIB));
            self.write(&format!("groups/{name}/memory.stat"), &stat);
        }

        fn reading(&self) -> PressureReading {
            LinuxSensor::new(&self.0.path().join("proc")).read()
        }

        fn level(&self) -> PressureLevel {
            self.reading().level
        }
    }

    #[test]
    fn the_limit_of_any_group_above_counts_and_what_can_be_dropped_does_not() {
        for version in [Version::V1, Version::V2] {
            let machine = Machine::new(version);
            let none = if version == Version::V1 { "9223372036854771712\n" } else { "max\n" };
            let limit = format!("{}\n", 1000 * MIB);
            machine.group("outer/inner", version, none, 990, 0);
            machine.group("outer", version, &limit, 990, 0);
            let reading = machine.reading();
            assert_eq!(reading.level, Critical);
            assert!(reading.cause.starts_with("10 MiB of the control group"), "{}", reading.cause);
            assert!(reading.cause.ends_with("outer's 1000 are left"), "{}", reading.cause);
            for (used, cached, level) in [
                (949, 0, Warn),
                (851, 0, Warn),
                (849, 0, Normal),
                (1000, 151, Normal),
                (1000, 149, Warn),
                (1000, 49, Critical),
            ] {
                machine.group("outer", version, &limit, used, cached);
                assert_eq!(machine.level(), level, "{used} {cached}");
            }
            machine.group("outer/inner", version, &limit, 960, 0);
            assert_eq!(machine.level(), Critical);
        }
    }

    #[test]
    fn the_limit_at_which_the_kernel_slows_a_group_down_counts_too() {
        let machine = Machine::new(Version::V2);
        machine.group("outer", Version::V2, &format!("{}\n", 1000 * MIB), 480, 0);
        assert_eq!(machine.level(), Normal);
        machine.write("groups/outer/memory.high", &format!("{}\n", 500 * MIB));
        assert_eq!(machine.level(), Critical);
    }

    #[test]
    fn of_a_large_machine_bytes_count_rather_than_shares() {
        let machine = Machine::new(Version::V2);
        for (free, cached, level) in [(1300, 0, Normal), (1200, 0, Warn), (300, 100, Critical), (300, 120, Warn)] {
            machine.memory(free, cached);
            assert_eq!(machine.level(), level, "{free} {cached}");
        }
        let limit = 100 << 30;
        let of = |left| Room { left, limit, of: String::new() }.reading().level;
        assert_eq!([3 << 30, 1 << 30, 1 << 28].map(of), [Normal, Warn, Critical]);
    }

    #[test]
    fn stalls_count_where_memory_is_scarce() {
        let machine = Machine::new(Version::V2);
        let stalls = |some: f64, all: f64| {
            let line = |kind, share| format!("{kind} avg10={share:.2} avg60=0.00 avg300=0.00 total=1\n");
            machine.write("proc/pressure/memory", &(line("some", some) + &line("full", all)));
        };
        machine.memory(1500, 400);
        for (some, all, level) in [(9.9, 9.9, Normal), (10.0, 0.0, Warn), (50.0, 9.9, Warn), (50.0, 10.0, Critical)] {
            stalls(some, all);
            assert_eq!(machine.level(), level, "{some} {all}");
        }
        // Enough is left: somebody else's limit, or a slow disk.
        machine.memory(1500, 1000);
        assert_eq!(machine.level(), Normal);
        // The own group's stalls rather than the machine's.
        machine.memory(1500, 400);
        machine.write("groups/outer/inner/memory.pressure", CALM);
        assert_eq!(machine.level(), Normal);
    }

    #[test]
    fn a_system_that_tells_nothing_has_enough() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(LinuxSensor::new(empty.path()).read(), PressureReading::default());
        // This machine tells something.
        assert!(!LinuxSensor::new(Path::new("/proc")).rooms().is_empty());
    }
}
