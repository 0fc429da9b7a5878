//! The C interface of the emulator's runtime (`shim/msl_runtime.h`).
use std::ffi::{CStr, CString, c_char, c_int, c_void};

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}
const RTLD_NOW: c_int = 2;

/// A number type of which any bits are a value, and which has no padding.
pub trait Pod: Copy + sealed::Sealed {}
mod sealed {
    pub trait Sealed {}
}
macro_rules! pod { ($($t:ty),*) => { $(impl sealed::Sealed for $t {} impl Pod for $t {})* } }
pod!(u8, i8, u16, i16, u32, i32, u64, i64, f32);

#[repr(C)]
pub(crate) struct Buffer {
    pub data: *mut c_void,
    pub bytes: usize,
    pub index: u32,
    pub writable: u32,
}

#[repr(C)]
pub(crate) struct Constant {
    pub index: u32,
    pub size: u32,
    pub bits: u64,
}

#[repr(C)]
struct Description {
    kernel: *const c_char,
    grid: [u32; 3],
    threads: [u32; 3],
    buffers: *const Buffer,
    buffer_count: u32,
    constants: *const Constant,
    constant_count: u32,
    memory: *const u32,
    memory_count: u32,
    order: u32,
    flags: u32,
    error: *mut c_char,
    error_bytes: usize,
    stats: *mut u64,
}

type ArgumentsFn = unsafe extern "C" fn(*const c_char, *mut u32, *mut u32, *mut u32) -> c_int;
type ConstantFn = unsafe extern "C" fn(*const c_char, *const c_char) -> c_int;
type LaunchFn = unsafe extern "C" fn(*const Description) -> c_int;

/// The runtime with all kernels. It runs one launch at a time.
#[derive(Debug)]
pub(crate) struct Library {
    launch: LaunchFn,
    arguments: ArgumentsFn,
    constant: ConstantFn,
}

/// Loads a library, which stays loaded, and returns the address of `name` in it.
pub(crate) fn symbol(library: &CStr, name: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: both are C strings; the results are checked before use.
    unsafe {
        let library = dlopen(library.as_ptr(), RTLD_NOW);
        let found = if library.is_null() { std::ptr::null_mut() } else { dlsym(library, name.as_ptr()) };
        if found.is_null() {
            return Err(CStr::from_ptr(dlerror()).to_string_lossy().into_owned());
        }
        Ok(found)
    }
}

impl Library {
    /// Loads the runtime with all kernels and registers them.
    pub fn open(path: &str) -> Result<Library, String> {
        let path = CString::new(path).map_err(|e| e.to_string())?;
        let [register, launch, arguments, constant] =
            [c"msl_register_all", c"msl_launch", c"msl_arguments", c"msl_constant"].map(|name| symbol(&path, name));
        // SAFETY: the library is the one that build.rs made of the runtime, whose functions have these types.
        unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(register?)();
            Ok(Library {
                launch: std::mem::transmute::<*mut c_void, LaunchFn>(launch?),
                arguments: std::mem::transmute::<*mut c_void, ArgumentsFn>(arguments?),
                constant: std::mem::transmute::<*mut c_void, ConstantFn>(constant?),
            })
        }
    }

    /// The arguments of a kernel; `None` if there is no such kernel.
    pub fn arguments(&self, kernel: &str) -> Option<crate::Arguments> {
        let kernel = CString::new(kernel).ok()?;
        let [mut all, mut written, mut most_threads] = [0; 3];
        // SAFETY: the name is a C string, and the numbers are written during the call.
        let found = unsafe { (self.arguments)(kernel.as_ptr(), &mut all, &mut written, &mut most_threads) };
        (found != 0).then_some(crate::Arguments { all, written, most_threads })
    }

    /// The index of a function constant of a kernel's file; `None` if there is no such constant.
    pub fn constant(&self, kernel: &str, name: &str) -> Option<u32> {
        let (kernel, name) = (CString::new(kernel).ok()?, CString::new(name).ok()?);
        // SAFETY: both are C strings.
        u32::try_from(unsafe { (self.constant)(kernel.as_ptr(), name.as_ptr()) }).ok()
    }

    /// Runs a launch. Returns the fields of [`crate::Stats`] in their order, or the message of a fault.
    pub fn launch(&self, launch: &crate::Launch<'_>) -> Result<[u64; 4], String> {
        let kernel = CString::new(launch.kernel.as_str()).map_err(|e| e.to_string())?;
        let (mut error, mut stats) = (vec![0u8; 4096], [0u64; 4]);
        let description = Description {
            kernel: kernel.as_ptr(),
            grid: launch.grid,
            threads: launch.threads,
            buffers: launch.buffers.as_ptr(),
            buffer_count: launch.buffers.len() as u32,
            constants: launch.constants.as_ptr(),
            constant_count: launch.constants.len() as u32,
            memory: launch.memory.as_ptr(),
            memory_count: launch.memory.len() as u32,
            order: launch.order,
            flags: 0,
            error: error.as_mut_ptr().cast(),
            error_bytes: error.len(),
            stats: stats.as_mut_ptr(),
        };
        // SAFETY: all pointers are valid for the call, with their lengths; `Launch` borrows the buffers, writable ones
        // exclusively; buffers hold `Pod`, so any bytes written to them are values. The runtime serialises launches of
        // a library.
        if unsafe { (self.launch)(&description) } == 0 {
            return Ok(stats);
        }
        let message = CStr::from_bytes_until_nul(&error).map(|text| text.to_string_lossy().into_owned());
        Err(message.unwrap_or_else(|e| e.to_string()))
    }
}
