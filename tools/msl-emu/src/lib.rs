//! Runs `.metal` kernels on a CPU, for tests. Every thread of a threadgroup is a fiber, which meets the others at
//! simdgroup operations and barriers.
//!
//! [`Emulator::fast`] has guard pages around buffers. [`Emulator::checked`] also finds races, accesses that are out of
//! bounds by a byte, and reads of uninitialised threadgroup memory. Both find divergence and more than 32 KB of
//! threadgroup memory.
#![warn(missing_docs)]

#[cfg(feature = "cuda")]
#[allow(unsafe_code)] // the driver's C interface
pub mod cuda;
#[allow(unsafe_code)] // the runtime's C interface
mod ffi;

#[cfg(feature = "executor")]
mod executor;

#[cfg(feature = "executor")]
pub use executor::{EmulatorExecutor, Memory, Watched};
pub use ffi::Pod;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The environment variable with which tests fail, and are not skipped, where the emulator could not be built. It needs
/// clang 19 on x86-64 Linux.
pub const REQUIRE: &str = "MSL_REQUIRE_EMULATOR";

/// A mistake that the emulator found: what it is, and the kernel's line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// What one launch did, as counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Changes from one fiber to another.
    pub switches: u64,
    /// Simdgroup operations and barriers at which lanes met.
    pub rendezvous: u64,
    /// Memory accesses that were checked; 0 of [`Emulator::fast`].
    pub checked_accesses: u64,
    /// The largest number of bytes of threadgroup memory that a threadgroup used.
    pub threadgroup_bytes: u64,
}

/// What a kernel is launched with. Of its buffer arguments there is a bit for each index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arguments {
    /// All buffer arguments.
    pub all: u32,
    /// Those that the kernel may write.
    pub written: u32,
    /// The most threads of a threadgroup.
    pub most_threads: u32,
}

/// All kernels of the project, compiled for the CPU.
#[derive(Debug)]
pub struct Emulator {
    /// Copies of one library, each with a state of its own, so that several tests run at once.
    libraries: Vec<Mutex<ffi::Library>>,
    /// The copy that is waited for next, where none is free.
    next: AtomicUsize,
}

impl Emulator {
    /// Returns the emulator without the costly checks. Where it was not built, prints that the test is skipped and
    /// returns `None`.
    ///
    /// # Panics
    /// If it was not built and [`REQUIRE`] is set, or if the library cannot be loaded.
    pub fn fast() -> Option<&'static Emulator> {
        static LOADED: OnceLock<Option<Emulator>> = OnceLock::new();
        LOADED.get_or_init(|| load("fast")).as_ref()
    }

    /// Returns the emulator with every check, which is some 10 times slower. Where it was not built, prints that the
    /// test is skipped and returns `None`.
    ///
    /// # Panics
    /// If it was not built and [`REQUIRE`] is set, or if the library cannot be loaded.
    pub fn checked() -> Option<&'static Emulator> {
        static LOADED: OnceLock<Option<Emulator>> = OnceLock::new();
        LOADED.get_or_init(|| load("checked")).as_ref()
    }

    /// Returns a copy of the library that nobody uses, or waits for one.
    fn free(&self) -> MutexGuard<'_, ffi::Library> {
        self.libraries.iter().find_map(|library| library.try_lock().ok()).unwrap_or_else(|| {
            let next = self.next.fetch_add(1, Ordering::Relaxed) % self.libraries.len();
            self.libraries[next].lock().unwrap_or_else(PoisonError::into_inner)
        })
    }

    /// What kernel `host_name` is launched with; `None` if there is no such kernel.
    pub fn arguments(&self, host_name: &str) -> Option<Arguments> {
        self.free().arguments(host_name)
    }

    /// The index of function constant `name` of kernel `host_name`; `None` if the kernel's file has no such constant.
    pub fn constant(&self, host_name: &str, name: &str) -> Option<u32> {
        self.free().constant(host_name, name)
    }

    /// Begins a launch of kernel `host_name`: one threadgroup of 32 threads without buffers, which the methods of
    /// [`Launch`] change.
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

/// One dispatch of a kernel.
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
    /// Sets the grid, in threadgroups.
    pub fn grid(mut self, x: usize, y: usize, z: usize) -> Self {
        self.grid = [x, y, z].map(|n| n as u32);
        self
    }

    /// Sets the threads of a threadgroup.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads[0] = threads as u32;
        self
    }

    /// Binds a buffer that the kernel only reads.
    pub fn buffer<T: Pod>(mut self, index: u32, data: &'a [T]) -> Self {
        let (data, bytes) = (data.as_ptr().cast_mut().cast::<c_void>(), size_of_val(data));
        self.buffers.push(ffi::Buffer { data, bytes, index, writable: 0 });
        self
    }

    /// Binds a buffer that the kernel may write.
    pub fn output<T: Pod>(mut self, index: u32, data: &'a mut [T]) -> Self {
        let (bytes, data) = (size_of_val(data), data.as_mut_ptr().cast::<c_void>());
        self.buffers.push(ffi::Buffer { data, bytes, index, writable: 1 });
        self
    }

    /// Sets a function constant.
    pub fn constant_bool(mut self, index: u32, value: bool) -> Self {
        self.constants.push(ffi::Constant { index, size: 1, bits: u64::from(value) });
        self
    }

    /// Sets a function constant.
    pub fn constant_uint(mut self, index: u32, value: u32) -> Self {
        self.constants.push(ffi::Constant { index, size: 4, bits: u64::from(value) });
        self
    }

    /// Sets the bytes of `[[threadgroup(0)]]`.
    pub fn threadgroup_memory(mut self, bytes: usize) -> Self {
        self.memory = vec![bytes as u32];
        self
    }

    /// Sets the order in which lanes and simdgroups run: 0 is forward, 1 backward, any other number a seed to shuffle
    /// them.
    pub fn order(mut self, order: u32) -> Self {
        self.order = order;
        self
    }

    /// Runs the launch to its end.
    ///
    /// # Errors
    /// [`Fault`] if the kernel makes a mistake, or if the bound buffers are not the kernel's.
    pub fn run(self) -> Result<Stats, Fault> {
        let [switches, rendezvous, checked_accesses, threadgroup_bytes] =
            self.emulator.free().launch(&self).map_err(Fault)?;
        Ok(Stats { switches, rendezvous, checked_accesses, threadgroup_bytes })
    }
}
