//! The emulator as an executor of launches.
use crate::Emulator;
use metal::{Access, Constant, ExecError, Executor, Launch};
use std::sync::Mutex;

/// Runs launches one after the other; every buffer is a copy that the kernel gets for the launch.
#[derive(Debug, Clone, Copy)]
pub struct EmulatorExecutor {
    /// The emulator that runs the launches.
    pub emulator: &'static Emulator,
    /// Order of lanes: see [`crate::Launch::order`].
    pub order: u32,
}

/// Memory of the emulated device; new memory holds 0xff bytes, which are NaN as floats.
#[derive(Debug)]
pub struct Memory(Mutex<Vec<u8>>);

impl Memory {
    fn with<R>(&self, f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(|e| e.into_inner()))
    }

    fn range<R>(&self, offset: usize, len: usize, f: impl FnOnce(&mut [u8]) -> R) -> Result<R, ExecError> {
        self.with(|bytes| {
            let (end, len) = (offset + len, bytes.len());
            bytes.get_mut(offset..end).map(f).ok_or(ExecError::Range { offset, end, len })
        })
    }
}

impl Executor for EmulatorExecutor {
    type Buffer = Memory;

    fn create(&self, bytes: usize) -> Result<Memory, ExecError> {
        Ok(Memory(Mutex::new(vec![0xff; bytes])))
    }

    fn upload(&self, buffer: &Memory, offset: usize, bytes: &[u8]) -> Result<(), ExecError> {
        buffer.range(offset, bytes.len(), |to| to.copy_from_slice(bytes))
    }

    fn download(&self, buffer: &Memory, offset: usize, out: &mut [u8]) -> Result<(), ExecError> {
        buffer.range(offset, out.len(), |from| out.copy_from_slice(from))
    }

    fn run(&self, launches: &[Launch<'_, Memory>]) -> Result<(), ExecError> {
        launches.iter().try_for_each(|launch| self.run_one(launch))
    }
}

/// The emulator, with its launches seen, changed or refused on their way.
pub struct Watched<F> {
    /// The executor that [`Self::run`] is given.
    pub inner: EmulatorExecutor,
    /// As [`Executor::most_work`].
    pub most_work: u64,
    /// Runs the launches on the executor.
    pub run: F,
}

impl<F> Executor for Watched<F>
where
    F: Fn(&EmulatorExecutor, &[Launch<'_, Memory>]) -> Result<(), ExecError> + Send + Sync,
{
    type Buffer = Memory;

    fn most_work(&self) -> u64 {
        self.most_work
    }

    fn create(&self, bytes: usize) -> Result<Memory, ExecError> {
        self.inner.create(bytes)
    }

    fn upload(&self, buffer: &Memory, offset: usize, bytes: &[u8]) -> Result<(), ExecError> {
        self.inner.upload(buffer, offset, bytes)
    }

    fn download(&self, buffer: &Memory, offset: usize, out: &mut [u8]) -> Result<(), ExecError> {
        self.inner.download(buffer, offset, out)
    }

    fn run(&self, launches: &[Launch<'_, Memory>]) -> Result<(), ExecError> {
        (self.run)(&self.inner, launches)
    }
}

impl EmulatorExecutor {
    fn run_one(&self, launch: &Launch<'_, Memory>) -> Result<(), ExecError> {
        let failed = |message: String| ExecError::Kernel { kernel: launch.kernel.clone(), message };
        let mut copies = Vec::with_capacity(launch.bindings.len());
        for binding in &launch.bindings {
            let bytes = binding.buffer.with(|bytes| bytes.get(binding.offset..).map(<[u8]>::to_vec));
            copies.push(bytes.ok_or_else(|| failed(format!("buffer {}: offset {}", binding.index, binding.offset)))?);
        }
        let [x, y, z] = launch.grid.map(|n| n as usize);
        let mut run = self.emulator.kernel(&launch.kernel).grid(x, y, z).threads(launch.threads as usize);
        for constant in &launch.constants {
            run = match *constant {
                Constant::Bool(index, value) => run.constant_bool(index, value),
                Constant::Uint(index, value) => run.constant_uint(index, value),
            };
        }
        for (binding, bytes) in launch.bindings.iter().zip(&mut copies) {
            run = match binding.access {
                Access::Read => run.buffer(binding.index, bytes),
                Access::Write => run.output(binding.index, bytes),
            };
        }
        let (index, params) = &launch.params;
        run.buffer(*index, params).order(self.order).run().map_err(|fault| failed(fault.0))?;
        for (binding, bytes) in launch.bindings.iter().zip(copies) {
            if binding.access == Access::Write {
                binding.buffer.range(binding.offset, bytes.len(), |to| to.copy_from_slice(&bytes))?;
            }
        }
        Ok(())
    }
}
