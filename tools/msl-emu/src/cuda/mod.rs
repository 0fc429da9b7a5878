//! An NVIDIA GPU as an executor of launches, for measuring: the kernels' text through nvcc, one cubin a kernel and set
//! of constants.
mod compile;
mod ffi;

use ffi::{Arguments, Cuda, Function};
use metal::{ExecError, Executor, Launch};
use std::collections::HashMap;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

/// What to do with a kernel where there is no GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Build {
    /// Compile it.
    Run,
    /// Write its text, and nvcc's command line as a line of `commands` in the same folder, to be run there.
    List,
}

/// Runs launches on the first GPU, or, where there is none, compiles what they need.
pub struct CudaExecutor {
    /// Nothing: compile only.
    cuda: Option<Arc<Cuda>>,
    build: Build,
    /// The folder of cubins.
    folder: PathBuf,
    loaded: Mutex<HashMap<String, Function>>,
}

/// Device memory. Without a device, its size alone.
pub struct Memory {
    cuda: Option<Arc<Cuda>>,
    address: u64,
    bytes: usize,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(cuda) = &self.cuda {
            cuda.free(self.address);
        }
    }
}

impl Memory {
    fn check(&self, offset: usize, len: usize) -> Result<(), ExecError> {
        let (end, len) = (offset + len, self.bytes);
        if end > len { Err(ExecError::Range { offset, end, len }) } else { Ok(()) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

fn failed(kernel: &str) -> impl FnOnce(String) -> ExecError {
    move |message| ExecError::Kernel { kernel: kernel.to_owned(), message }
}

impl CudaExecutor {
    /// With cubins of `folder`. Errors: no driver or no device.
    pub fn open(folder: PathBuf) -> Result<Self, ExecError> {
        Ok(Self::with(Some(Arc::new(Cuda::open().map_err(failed("none"))?)), folder, Build::Run))
    }

    /// Compiles into `folder` what is launched, and runs nothing.
    pub fn compiler(folder: PathBuf, build: Build) -> Self {
        Self::with(None, folder, build)
    }

    fn with(cuda: Option<Arc<Cuda>>, folder: PathBuf, build: Build) -> Self {
        CudaExecutor { cuda, build, folder, loaded: Mutex::default() }
    }

    /// The device's name; nothing where launches are compiled only.
    pub fn device(&self) -> Option<&str> {
        self.cuda.as_ref().map(|cuda| cuda.name.as_str())
    }

    /// Milliseconds that launches take, `repeats` times one after the other without gaps.
    pub fn time(&self, launches: &[Launch<'_, Memory>], repeats: usize) -> Result<f32, ExecError> {
        let Some(cuda) = &self.cuda else {
            self.run(launches)?;
            return Ok(1.0);
        };
        let prepared = launches.iter().map(|launch| self.prepare(cuda, launch)).collect::<Result<Vec<_>, _>>()?;
        let all = || {
            (0..repeats).try_for_each(|_| {
                let mut each = launches.iter().zip(&prepared);
                each.try_for_each(|(launch, (f, arguments))| cuda.launch(*f, launch.grid, launch.threads, arguments))
            })
        };
        cuda.time(all).map(|ms| ms / repeats as f32).map_err(failed("timing"))
    }

    /// Milliseconds that the driver takes to copy the whole of a buffer to another one of its size.
    pub fn time_of_copy(&self, from: &Memory, to: &Memory) -> Result<f32, ExecError> {
        to.check(0, from.bytes)?;
        let Some(cuda) = &self.cuda else { return Ok(1.0) };
        cuda.time(|| cuda.copy(from.address, to.address, from.bytes)).map_err(failed("copy"))
    }

    fn prepare(&self, cuda: &Cuda, launch: &Launch<'_, Memory>) -> Result<(Function, Arguments), ExecError> {
        let key = compile::name(&launch.kernel, &launch.constants);
        let mut loaded = lock(&self.loaded);
        let function = match loaded.get(&key) {
            Some(function) => *function,
            None => {
                let function = self.load(cuda, launch, &key).map_err(failed(&launch.kernel))?;
                loaded.insert(key, function);
                function
            }
        };
        let mut arguments = Arguments { buffers: [0; 31], threadgroup: [0; 4], constants: [0; 128] };
        for binding in &launch.bindings {
            arguments.buffers[binding.index as usize] = binding.buffer.address + binding.offset as u64;
        }
        let (_, bytes) = &launch.params;
        let constants = arguments
            .constants
            .get_mut(..bytes.len())
            .ok_or_else(|| failed(&launch.kernel)(format!("{} bytes of params; allowed: at most 128", bytes.len())))?;
        constants.copy_from_slice(bytes);
        Ok((function, arguments))
    }

    fn load(&self, cuda: &Cuda, launch: &Launch<'_, Memory>, key: &str) -> Result<Function, String> {
        let path = self.folder.join(key.to_owned() + ".cubin");
        let cubin = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let name = CString::new(launch.kernel.as_str()).map_err(|e| e.to_string())?;
        let (function, registers, local) = cuda.load(&cubin, &name)?;
        println!("{key}: {registers} registers, {local} bytes of local memory");
        Ok(function)
    }
}

impl Executor for CudaExecutor {
    type Buffer = Memory;

    fn create(&self, bytes: usize) -> Result<Memory, ExecError> {
        let memory = |message| ExecError::Memory { wanted: bytes, message };
        let address = match &self.cuda {
            Some(cuda) => cuda.allocate(bytes.max(1)).map_err(memory)?,
            None => 0,
        };
        Ok(Memory { cuda: self.cuda.clone(), address, bytes })
    }

    fn upload(&self, buffer: &Memory, offset: usize, bytes: &[u8]) -> Result<(), ExecError> {
        buffer.check(offset, bytes.len())?;
        let Some(cuda) = &self.cuda else { return Ok(()) };
        cuda.upload(buffer.address + offset as u64, bytes).map_err(failed("upload"))
    }

    fn download(&self, buffer: &Memory, offset: usize, out: &mut [u8]) -> Result<(), ExecError> {
        buffer.check(offset, out.len())?;
        let Some(cuda) = &self.cuda else { return Ok(()) };
        cuda.download(buffer.address + offset as u64, out).map_err(failed("download"))
    }

    fn run(&self, launches: &[Launch<'_, Memory>]) -> Result<(), ExecError> {
        let Some(cuda) = &self.cuda else {
            let compile = |launch: &Launch<'_, Memory>| {
                compile::compile(&self.folder, &launch.kernel, &launch.constants, self.build)
                    .map_err(failed(&launch.kernel))
            };
            return launches.iter().try_for_each(compile);
        };
        for launch in launches {
            let (function, arguments) = self.prepare(cuda, launch)?;
            let run = cuda.launch(function, launch.grid, launch.threads, &arguments).and_then(|()| cuda.synchronize());
            run.map_err(failed(&launch.kernel))?;
        }
        Ok(())
    }
}
