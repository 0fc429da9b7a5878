//! The CUDA driver. It is loaded when it is asked for, so that nothing needs it to build.
use crate::ffi::symbol;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

type Status = c_int;
type Handle = *mut c_void;

macro_rules! driver {
    ($($field:ident = $name:literal ($($argument:ty),*);)*) => {
        /// Entry points of `libcuda`.
        struct Driver {
            $($field: unsafe extern "C" fn($($argument),*) -> Status,)*
        }

        impl Driver {
            fn load() -> Result<Driver, String> {
                $(let $field = symbol(c"libcuda.so.1", $name)?;)*
                // SAFETY: the driver's functions have these types (cuda.h of CUDA 12 and 13).
                unsafe {
                    Ok(Driver {
                        $($field: std::mem::transmute::<_, unsafe extern "C" fn($($argument),*) -> Status>($field),)*
                    })
                }
            }
        }
    };
}

driver! {
    init = c"cuInit" (c_uint);
    device = c"cuDeviceGet" (*mut c_int, c_int);
    device_name = c"cuDeviceGetName" (*mut c_char, c_int, c_int);
    retain = c"cuDevicePrimaryCtxRetain" (*mut Handle, c_int);
    set_current = c"cuCtxSetCurrent" (Handle);
    synchronize = c"cuCtxSynchronize" ();
    load = c"cuModuleLoadData" (*mut Handle, *const c_void);
    function = c"cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
    function_attribute = c"cuFuncGetAttribute" (*mut c_int, c_int, Handle);
    allocate = c"cuMemAlloc_v2" (*mut u64, usize);
    free = c"cuMemFree_v2" (u64);
    fill = c"cuMemsetD8_v2" (u64, u8, usize);
    upload = c"cuMemcpyHtoD_v2" (u64, *const c_void, usize);
    download = c"cuMemcpyDtoH_v2" (*mut c_void, u64, usize);
    copy = c"cuMemcpyDtoDAsync_v2" (u64, u64, usize, Handle);
    launch = c"cuLaunchKernel" (
        Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void
    );
    event_create = c"cuEventCreate" (*mut Handle, c_uint);
    event_record = c"cuEventRecord" (Handle, Handle);
    event_synchronize = c"cuEventSynchronize" (Handle);
    event_elapsed = c"cuEventElapsedTime_v2" (*mut f32, Handle, Handle);
}

const NUM_REGS: c_int = 4;
const LOCAL_BYTES: c_int = 3;

/// A device and its primary context.
pub(crate) struct Cuda {
    driver: Driver,
    context: Handle,
    events: [Handle; 2],
    pub name: String,
}

// SAFETY: the driver's functions may be called from any thread once the context is current there, which every method
// sees to.
unsafe impl Send for Cuda {}
// SAFETY: the driver's functions may be called from several threads at once.
unsafe impl Sync for Cuda {}

/// A loaded kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function(Handle);

// SAFETY: a handle of the driver, valid in any thread.
unsafe impl Send for Function {}

/// The argument of every kernel, `msl_args` of the shim: buffers by index, offsets of dynamic threadgroup memory, and
/// the params struct.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arguments {
    pub buffers: [u64; 31],
    pub threadgroup: [u32; 4],
    pub constants: [u8; 128],
}

fn check(what: &str, status: Status) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(format!("CUDA {what}: error {status}")) }
}

impl Cuda {
    /// Opens the first device.
    pub fn open() -> Result<Cuda, String> {
        let driver = Driver::load()?;
        let (mut device, mut context, mut name, mut events) = (0, null_mut(), [0u8; 128], [null_mut(); 2]);
        // SAFETY: every pointer is to a local of the type that the function writes.
        unsafe {
            check("init", (driver.init)(0))?;
            check("device", (driver.device)(&mut device, 0))?;
            check("name", (driver.device_name)(name.as_mut_ptr().cast(), name.len() as c_int, device))?;
            check("context", (driver.retain)(&mut context, device))?;
            check("context", (driver.set_current)(context))?;
            for event in &mut events {
                check("event", (driver.event_create)(event, 0))?;
            }
        }
        let name =
            CStr::from_bytes_until_nul(&name).map_or_else(|_| String::new(), |n| n.to_string_lossy().into_owned());
        Ok(Cuda { driver, context, events, name })
    }

    /// Makes the context current in this thread.
    fn current(&self) -> Result<(), String> {
        // SAFETY: the context is retained for good.
        unsafe { check("context", (self.driver.set_current)(self.context)) }
    }

    /// Waits until all work is done.
    pub fn synchronize(&self) -> Result<(), String> {
        self.current()?;
        // SAFETY: no arguments.
        unsafe { check("synchronize", (self.driver.synchronize)()) }
    }

    /// Loads the kernel `name` of a cubin. Returns it, its registers and its bytes of local memory.
    pub fn load(&self, cubin: &[u8], name: &CStr) -> Result<(Function, i32, i32), String> {
        self.current()?;
        let (mut module, mut function, mut regs, mut local) = (null_mut(), null_mut(), 0, 0);
        // SAFETY: the cubin carries its own length; it is copied before the call returns.
        unsafe {
            check("module", (self.driver.load)(&mut module, cubin.as_ptr().cast()))?;
            check("function", (self.driver.function)(&mut function, module, name.as_ptr()))?;
            check("attribute", (self.driver.function_attribute)(&mut regs, NUM_REGS, function))?;
            check("attribute", (self.driver.function_attribute)(&mut local, LOCAL_BYTES, function))?;
        }
        Ok((Function(function), regs, local))
    }

    /// Allocates `bytes` of device memory, which hold 0xff.
    pub fn allocate(&self, bytes: usize) -> Result<u64, String> {
        self.current()?;
        let mut address = 0;
        // SAFETY: `address` outlives the call; the memory is filled within its size.
        unsafe {
            check("memory", (self.driver.allocate)(&mut address, bytes))?;
            check("fill", (self.driver.fill)(address, 0xff, bytes))?;
        }
        Ok(address)
    }

    /// Frees what [`Self::allocate`] returned. An address is freed once.
    pub fn free(&self, address: u64) {
        // A failure to free, as after a failed kernel, has nobody to be told to.
        // SAFETY: callers pass each address once.
        let _ = self.current().and_then(|()| unsafe { check("free", (self.driver.free)(address)) });
    }

    /// Copies `bytes` to `address`. The bytes must lie within an allocation.
    pub fn upload(&self, address: u64, bytes: &[u8]) -> Result<(), String> {
        self.current()?;
        // SAFETY: the source is a slice; callers check the target's range.
        unsafe { check("upload", (self.driver.upload)(address, bytes.as_ptr().cast(), bytes.len())) }
    }

    /// Copies the bytes at `address` to `out`. They must lie within an allocation.
    pub fn download(&self, address: u64, out: &mut [u8]) -> Result<(), String> {
        self.current()?;
        // SAFETY: the target is a slice; callers check the source's range.
        unsafe { check("download", (self.driver.download)(out.as_mut_ptr().cast(), address, out.len())) }
    }

    /// Begins to copy `len` bytes between allocations, within which they must lie.
    pub fn copy(&self, from: u64, to: u64, len: usize) -> Result<(), String> {
        self.current()?;
        // SAFETY: callers check both ranges.
        unsafe { check("copy", (self.driver.copy)(to, from, len, null_mut())) }
    }

    /// Launches a kernel; `grid` is in threadgroups, `threads` are those of a threadgroup.
    pub fn launch(&self, f: Function, grid: [u32; 3], threads: u32, arguments: &Arguments) -> Result<(), String> {
        self.current()?;
        let mut copy = *arguments;
        let mut parameters = [(&raw mut copy).cast::<c_void>()];
        let [x, y, z] = grid;
        // SAFETY: the kernel takes one struct of this type, which is copied before the call returns.
        unsafe {
            let launch = self.driver.launch;
            check("launch", launch(f.0, x, y, z, threads, 1, 1, 0, null_mut(), parameters.as_mut_ptr(), null_mut()))
        }
    }

    /// Returns the milliseconds between the start and the end of what `f` launches.
    pub fn time(&self, f: impl FnOnce() -> Result<(), String>) -> Result<f32, String> {
        self.current()?;
        let (d, [start, end]) = (&self.driver, self.events);
        let mut milliseconds = 0f32;
        // SAFETY: the events live as long as the context.
        unsafe {
            check("event", (d.event_record)(start, null_mut()))?;
            f()?;
            check("event", (d.event_record)(end, null_mut()))?;
            check("event", (d.event_synchronize)(end))?;
            check("event", (d.event_elapsed)(&mut milliseconds, start, end))?;
        }
        Ok(milliseconds)
    }
}
