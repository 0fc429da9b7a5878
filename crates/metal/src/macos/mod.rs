//! Launches on an Apple GPU, through Candle's Metal device: its queue orders them among Candle's own operations.
//!
//! What a launch reads is bound as an input and what it writes as an output, the cache included, since Candle keeps
//! dispatches that share a buffer apart by nothing else.
mod memory;
mod pipelines;

pub use memory::{WorkingSet, working_set};
pub use pipelines::Pipeline;

use crate::batch::{Pace, WORK_OF_TURN};
use crate::executor::{Access, ExecError, Executor, Launch};
use crate::limits;
use candle_core::op::BackpropOp;
use candle_core::{DType, Device, MetalDevice, MetalStorage, Storage, Tensor, bail};
use candle_metal_kernels::MetalKernelError;
use candle_metal_kernels::metal::Buffer;
use objc2::rc::autoreleasepool;
use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLDevice, MTLResourceOptions, MTLSize};
use pipelines::Pipelines;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

/// The options of buffers that this executor allocates itself: the CPU and the GPU share the memory, and Metal does not
/// track hazards. Candle's own buffers are untracked too, since Candle places barriers by what each dispatch binds as
/// input and output.
const SHARED: MTLResourceOptions =
    MTLResourceOptions(MTLResourceOptions::StorageModeShared.0 | MTLResourceOptions::HazardTrackingModeUntracked.0);

/// Runs launches on the queue of a Candle device.
pub struct MetalExecutor(Arc<DeviceState>);

/// The state that all executors of a device share: the model, the cache, calibration and every pair of formats that is
/// judged have an executor each, and what all of them launch keeps the display waiting together.
struct DeviceState {
    device: MetalDevice,
    pipelines: Pipelines,
    pace: Pace,
    /// Buffers that launches may have been given which are not through yet. The next wait drops them.
    retired: Mutex<Vec<MetalBuffer>>,
    /// The device's message when it failed.
    failure: OnceLock<String>,
}

/// Device memory from `offset` on, and who keeps it.
pub struct MetalBuffer {
    buffer: Buffer,
    offset: usize,
    owner: Owner,
}

enum Owner {
    /// A buffer of Candle's pool, which gives it to others once nobody holds it.
    Pool(Arc<Buffer>),
    /// Lent by a tensor.
    Tensor { _lender: Tensor },
    /// A buffer of exactly the size asked for, which leaves the residency set when it is dropped.
    Own(MetalDevice),
}

impl Drop for MetalBuffer {
    fn drop(&mut self) {
        if let Owner::Own(device) = &self.owner {
            device.unregister_buffers([&self.buffer]);
        }
    }
}

impl MetalExecutor {
    /// A handle on the device's shared state, which is made at the first call and kept for as long as the process runs.
    /// All executors of a device share its pipelines, its pace, its retired buffers and its failure.
    pub fn new(device: &MetalDevice) -> Self {
        static KEPT: Mutex<Vec<Arc<DeviceState>>> = Mutex::new(Vec::new());
        let mut kept = KEPT.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(shared) = kept.iter().find(|shared| shared.device.id() == device.id()) {
            return MetalExecutor(Arc::clone(shared));
        }
        let shared = Arc::new(DeviceState {
            device: device.clone(),
            pipelines: Pipelines::default(),
            pace: Pace::default(),
            retired: Mutex::default(),
            failure: OnceLock::new(),
        });
        kept.push(Arc::clone(&shared));
        MetalExecutor(shared)
    }

    /// Errors: the device has failed.
    fn check(&self) -> Result<(), ExecError> {
        self.0.failure.get().map_or(Ok(()), |message| Err(ExecError::Lost(message.clone())))
    }

    /// Waits for the device. `full`: because it had been given as much as it may take.
    ///
    /// Errors: the device has failed.
    fn wait(&self, full: bool) -> Result<(), ExecError> {
        self.wait_by(MetalDevice::flush_and_wait_current)?;
        self.0.pace.finished(Instant::now(), full);
        self.look_back()
    }

    /// Looks whether command buffers failed that somebody has waited for already: a wait of Candle's looks at the last
    /// one alone, and keeps those before it that did not complete. Waits for what has been started since, if anything
    /// has.
    ///
    /// Errors: the device has failed.
    fn look_back(&self) -> Result<(), ExecError> {
        self.wait_by(MetalDevice::wait_until_completed)
    }

    /// Waits, and drops what was retired before. The first error is kept, and ends the use of the device.
    fn wait_by(&self, wait: impl FnOnce(&MetalDevice) -> candle_core::Result<()>) -> Result<(), ExecError> {
        self.check()?;
        let retired = std::mem::take(&mut *self.0.retired.lock().unwrap_or_else(|e| e.into_inner()));
        let result = autoreleasepool(|_| {
            let result = wait(&self.0.device);
            drop(retired);
            result
        });
        if let Err(error) = result {
            self.0.failure.get_or_init(|| {
                tracing::error!(%error, "the GPU failed, and is not used again until the next start");
                error.to_string()
            });
        }
        self.check()
    }

    /// Counts lane operations that are about to be launched, and waits first where the device has enough to do already.
    fn start(&self, work: u64) -> Result<(), ExecError> {
        while !self.0.pace.start(work, Instant::now()) {
            self.wait(true)?;
        }
        Ok(())
    }

    fn encode(&self, launch: &Launch<'_, MetalBuffer>) -> Result<(), ExecError> {
        let pipeline = self.0.pipelines.get(&self.0.device, launch)?;
        let guard = self.0.device.command_encoder().map_err(|e| kernel_error(&launch.kernel, e))?;
        let encoder = guard.as_ref();
        encoder.set_compute_pipeline_state(&pipeline);
        for binding in &launch.bindings {
            let (index, offset) = (binding.index as usize, binding.buffer.offset + binding.offset);
            match binding.access {
                Access::Read => encoder.set_input_buffer(index, Some(&binding.buffer.buffer), offset),
                Access::Write => encoder.set_output_buffer(index, Some(&binding.buffer.buffer), offset),
            }
        }
        let (index, params) = &launch.params;
        encoder.set_bytes_directly(*index as usize, params.len(), params.as_ptr().cast());
        let [width, height, depth] = launch.grid.map(|n| n as usize);
        let threads = MTLSize { width: launch.threads as usize, height: 1, depth: 1 };
        encoder.dispatch_thread_groups(MTLSize { width, height, depth }, threads);
        Ok(())
    }
}

impl Executor for MetalExecutor {
    type Buffer = MetalBuffer;

    fn most_work(&self) -> u64 {
        WORK_OF_TURN
    }

    /// Encoders, command buffers and strings are autoreleased; without a pool of its own, a thread that never returns
    /// to a run loop would keep them all.
    fn scope(&self, work: &mut dyn FnMut()) {
        autoreleasepool(|_| work());
    }

    fn failure(&self) -> Option<ExecError> {
        self.look_back().err()
    }

    fn retire(&self, buffer: MetalBuffer) {
        self.0.retired.lock().unwrap_or_else(|e| e.into_inner()).push(buffer);
    }

    fn largest_buffer(&self) -> usize {
        let metal: &ProtocolObject<dyn MTLDevice> = self.0.device.metal_device().as_ref();
        metal.maxBufferLength()
    }

    /// Candle's pool rounds up to powers of two, so what is large, the cache above all, is taken from Metal itself.
    fn create(&self, bytes: usize) -> Result<MetalBuffer, ExecError> {
        const LARGE: usize = 1 << 20;
        let memory = |message: String| ExecError::Memory { wanted: bytes, message };
        if bytes < LARGE {
            return self.create_activation(bytes);
        }
        limits::check_buffer(bytes, self.largest_buffer())?;
        let buffer = autoreleasepool(|_| {
            let buffer = self.0.device.metal_device().new_buffer(bytes, SHARED)?;
            self.0.device.register_buffers([&buffer]);
            Ok(buffer)
        });
        let buffer = buffer.map_err(|e: MetalKernelError| memory(e.to_string()))?;
        Ok(MetalBuffer { buffer, offset: 0, owner: Owner::Own(self.0.device.clone()) })
    }

    /// From Candle's pool, whatever its size: activations come and go with every layer.
    fn create_activation(&self, bytes: usize) -> Result<MetalBuffer, ExecError> {
        let memory = |e: candle_core::Error| ExecError::Memory { wanted: bytes, message: e.to_string() };
        limits::check_buffer(bytes, self.largest_buffer())?;
        let buffer = autoreleasepool(|_| self.0.device.allocate_buffer(bytes.max(16))).map_err(memory)?;
        Ok(MetalBuffer { buffer: (*buffer).clone(), offset: 0, owner: Owner::Pool(buffer) })
    }

    fn upload(&self, buffer: &MetalBuffer, offset: usize, bytes: &[u8]) -> Result<(), ExecError> {
        self.wait(false)?;
        let to = buffer.at(offset, bytes.len())?;
        // SAFETY: the range lies inside the buffer's shared memory, and the GPU has finished.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn download(&self, buffer: &MetalBuffer, offset: usize, out: &mut [u8]) -> Result<(), ExecError> {
        self.wait(false)?;
        let from = buffer.at(offset, out.len())?;
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    fn run(&self, launches: &[Launch<'_, MetalBuffer>]) -> Result<(), ExecError> {
        self.check()?;
        autoreleasepool(|_| {
            for launch in launches {
                self.start(launch.work)?;
                self.encode(launch)?;
            }
            Ok(())
        })
    }

    /// A buffer of its own: one of the pool may still be read by what runs.
    fn buffer(&self, bytes: &[u8]) -> Result<MetalBuffer, ExecError> {
        limits::check_buffer(bytes.len(), self.largest_buffer())?;
        let padded = [bytes, &[0; 16][bytes.len().min(16)..]].concat();
        let memory = |e: candle_core::Error| ExecError::Memory { wanted: bytes.len(), message: e.to_string() };
        let buffer = autoreleasepool(|_| self.0.device.new_buffer_with_data(&padded)).map_err(memory)?;
        Ok(MetalBuffer { buffer: (*buffer).clone(), offset: 0, owner: Owner::Pool(buffer) })
    }

    /// Lends the tensor's memory, which is made contiguous where it is not.
    fn import(&self, tensor: &Tensor) -> candle_core::Result<MetalBuffer> {
        if tensor.dtype() != DType::F32 {
            bail!("the Metal attention backend takes f32 tensors, not {:?}", tensor.dtype());
        }
        let tensor = autoreleasepool(|_| tensor.contiguous())?;
        let (buffer, offset) = {
            let (storage, layout) = tensor.storage_and_layout();
            let Storage::Metal(storage) = &*storage else {
                bail!("the Metal attention backend takes tensors on the GPU")
            };
            (storage.buffer().clone(), layout.start_offset() * 4)
        };
        Ok(MetalBuffer { buffer, offset, owner: Owner::Tensor { _lender: tensor } })
    }

    /// Makes the buffer the tensor's.
    fn export(&self, buffer: &MetalBuffer, shape: &[usize], _: &Device) -> candle_core::Result<Tensor> {
        let count = shape.iter().product();
        let shared = match &buffer.owner {
            Owner::Pool(shared) => shared.clone(),
            Owner::Own(_) | Owner::Tensor { .. } => Arc::new(buffer.buffer.clone()),
        };
        let storage = MetalStorage::new(shared, self.0.device.clone(), count, DType::F32);
        Ok(Tensor::from_storage(Storage::Metal(storage), shape, BackpropOp::none(), false))
    }
}

impl MetalBuffer {
    fn at(&self, offset: usize, len: usize) -> Result<*mut u8, ExecError> {
        let (end, size) = (self.offset + offset + len, self.buffer.length());
        if end > size {
            return Err(ExecError::Range { offset, end, len: size });
        }
        // SAFETY: the result lies inside the buffer's memory.
        Ok(unsafe { self.buffer.contents().add(self.offset + offset) })
    }
}

/// The first GPU of this machine.
///
/// Errors: there is none for this process, as in a session without a screen, a sandbox or some virtual machines.
pub fn open() -> candle_core::Result<Device> {
    // Candle takes the first of the list without a look whether there is one.
    if autoreleasepool(|_| candle_metal_kernels::metal::Device::all().is_empty()) {
        bail!("macOS offers this process no GPU");
    }
    autoreleasepool(|_| Device::new_metal(0))
}

/// The GPU's name, such as "Apple M1 Pro".
pub fn name(device: &MetalDevice) -> String {
    autoreleasepool(|_| device.metal_device().as_ref().name().to_string())
}

fn kernel_error(kernel: &str, error: impl std::fmt::Display) -> ExecError {
    ExecError::Kernel { kernel: kernel.to_owned(), message: error.to_string() }
}
