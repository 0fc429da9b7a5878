//! Runs `.metal` kernels on a CPU: every thread a fiber, meeting the others at simdgroup operations and barriers.
//!
//! [`Emulator::fast`] has guard pages around buffers; [`Emulator::checked`] also finds races, out-of-bounds accesses to the byte,
//! and reads of uninitialised threadgroup memory. Both find divergence and more than 32 KB of threadgroup memory. For tests only.

#[cfg(feature = "cuda")]
#[allow(unsafe_code)] // the driver's C interface
pub mod cuda;
#[allow(unsafe_code)] // the runtime's C interface
mod ffi;

mod executor;

pub use executor::{EmulatorExecutor, Memory, Watched};
pub use ffi::Pod;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// If set, a test fails where the emulator could not be built (clang 19, x86-64 Linux), in place of being skipped.
pub const REQUIRE: &str = "MSL_REQUIRE_EMULATOR";

/// What the emulator found, with the kernel's line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// Counts of one launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats {
    pub switches: u64,
    pub rendezvous: u64,
    pub checked_accesses: u64,
    /// Most threadgroup memory of a threadgroup.
    pub threadgroup_bytes: u64,
}

/// All kernels of the project, compiled for the CPU.
#[derive(Debug)]
pub struct Emulator {
    /// Copies of one library, each with a state of its own, so that tests run at once.
    libraries: Vec<Mutex<ffi::Library>>,
    /// Whose turn it is to be waited for.
    next: AtomicUsize,
}

impl Emulator {
    /// Nothing where it was not built; says so.
    ///
    /// # Panics
    /// If it was not built and [`REQUIRE`] is set, or if the library cannot be loaded.
    pub fn fast() -> Option<&'static Emulator> {
        static LOADED: OnceLock<Option<Emulator>> = OnceLock::new();
        LOADED.get_or_init(|| load("fast")).as_ref()
    }

    /// As [`fast`](Self::fast), with every check; 10 times slower or so.
    ///
    /// # Panics
    /// As `fast`.
    pub fn checked() -> Option<&'static Emulator> {
        static LOADED: OnceLock<Option<Emulator>> = OnceLock::new();
        LOADED.get_or_init(|| load("checked")).as_ref()
    }

    fn free(&self) -> MutexGuard<'_, ffi::Library> {
        self.libraries.iter().find_map(|library| library.try_lock().ok()).unwrap_or_else(|| {
            let next = self.next.fetch_add(1, Ordering::Relaxed) % self.libraries.len();
            self.libraries[next].lock().unwrap_or_else(PoisonError::into_inner)
        })
    }

    /// A launch of one threadgroup of 32 threads, to be changed by its methods.
    pub fn kernel<'a>(&'a self, host_name: &str) -> Launch<'a> {
        Launch {
            emulator: self,
            kernel: host_name.to_owned(),
            grid: [1; 3],
            threads: [32, 1, 1],
            buffers: Vec::new(),
            constants: Vec::new(),
            memory: Vec::new(),
            order: 0,
        }
    }
}

fn load(name: &str) -> Option<Emulator> {
    let (Some(folder), Some(copies)) = (option_env!("MSL_EMU_DIR"), option_env!("MSL_EMU_COPIES")) else {
        assert!(
            std::env::var_os(REQUIRE).is_none(),
            "{REQUIRE} is set, but there was no clang 19 to build the emulator"
        );
        eprintln!("SKIPPED: the Metal kernels' emulator needs clang++-19 on x86-64 Linux");
        return None;
    };
    let open = |i| ffi::Library::open(&format!("{folder}/libmsl_{name}.{i}.so"));
    let copies = copies.parse().unwrap_or(1);
    let libraries = (0..copies).map(|i| Mutex::new(open(i).unwrap_or_else(|e| panic!("emulator: {e}")))).collect();
    Some(Emulator { libraries, next: AtomicUsize::new(0) })
}

/// One dispatch. Grids are in threadgroups.
pub struct Launch<'a> {
    emulator: &'a Emulator,
    pub(crate) kernel: String,
    pub(crate) grid: [u32; 3],
    pub(crate) threads: [u32; 3],
    pub(crate) buffers: Vec<ffi::Buffer>,
    pub(crate) constants: Vec<ffi::Constant>,
    pub(crate) memory: Vec<u32>,
    pub(crate) order: u32,
}

impl<'a> Launch<'a> {
    pub fn grid(mut self, x: usize, y: usize, z: usize) -> Self {
        self.grid = [x, y, z].map(|n| n as u32);
        self
    }

    /// Threads of a threadgroup.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads[0] = threads as u32;
        self
    }

    pub fn buffer<T: Pod>(mut self, index: u32, data: &'a [T]) -> Self {
        let (data, bytes) = (data.as_ptr().cast_mut().cast::<c_void>(), size_of_val(data));
        self.buffers.push(ffi::Buffer { data, bytes, index, writable: 0 });
        self
    }

    pub fn output<T: Pod>(mut self, index: u32, data: &'a mut [T]) -> Self {
        let (bytes, data) = (size_of_val(data), data.as_mut_ptr().cast::<c_void>());
        self.buffers.push(ffi::Buffer { data, bytes, index, writable: 1 });
        self
    }

    pub fn constant_bool(mut self, index: u32, value: bool) -> Self {
        self.constants.push(ffi::Constant { index, size: 1, bits: u64::from(value) });
        self
    }

    pub fn constant_uint(mut self, index: u32, value: u32) -> Self {
        self.constants.push(ffi::Constant { index, size: 4, bits: u64::from(value) });
        self
    }

    /// Bytes of `[[threadgroup(0)]]`.
    pub fn threadgroup_memory(mut self, bytes: usize) -> Self {
        self.memory = vec![bytes as u32];
        self
    }

    /// Order of lanes and simdgroups: 0 forward, 1 backward, else shuffled by that seed.
    pub fn order(mut self, order: u32) -> Self {
        self.order = order;
        self
    }

    pub fn run(self) -> Result<Stats, Fault> {
        let [switches, rendezvous, checked_accesses, threadgroup_bytes] =
            self.emulator.free().launch(&self).map_err(Fault)?;
        Ok(Stats { switches, rendezvous, checked_accesses, threadgroup_bytes })
    }
}
