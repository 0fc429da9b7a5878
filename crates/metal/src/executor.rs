//! Launches as data, and the trait of executors, which run them.
use candle_core::{DType, Device, Tensor};

/// The way in which a kernel uses a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// The kernel reads the buffer.
    Read,
    /// The kernel writes the buffer, and may read it.
    Write,
}

/// A buffer at `[[buffer(index)]]`, from byte `offset` on.
#[derive(Debug)]
pub struct Binding<'a, B> {
    /// The number of the kernel's argument.
    pub index: u32,
    /// The buffer.
    pub buffer: &'a B,
    /// The byte of the buffer at which the argument begins.
    pub offset: usize,
    /// The way in which the kernel uses it.
    pub access: Access,
}

/// The value of `[[function_constant(index)]]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Constant {
    /// Index and value of a `bool`.
    Bool(u32, bool),
    /// Index and value of a `uint`.
    Uint(u32, u32),
}

/// One dispatch.
#[derive(Debug)]
pub struct Launch<'a, B> {
    /// The kernel's host name.
    pub kernel: String,
    /// The values of its function constants.
    pub constants: Vec<Constant>,
    /// Threadgroups.
    pub grid: [u32; 3],
    /// Threads of a threadgroup.
    pub threads: u32,
    /// The kernel's buffers, all but the params.
    pub bindings: Vec<Binding<'a, B>>,
    /// The params struct and its buffer index.
    pub params: (u32, Vec<u8>),
    /// About how many lane operations the launch takes, which tells how long it keeps a GPU from drawing the screen.
    pub work: u64,
}

/// An error of a device.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages name the fields
pub enum ExecError {
    #[error("kernel {kernel}: {message}")]
    Kernel { kernel: String, message: String },
    #[error("{wanted} bytes of device memory: {message}")]
    Memory { wanted: usize, message: String },
    #[error("bytes {offset}..{end} of a buffer of {len}")]
    Range { offset: usize, end: usize, len: usize },
    /// What a GPU has computed after an error is not to be trusted.
    #[error("the GPU failed, and is not used again until the next start: {0}")]
    Lost(String),
}

/// A device's memory and the running of launches. The launches of one call run in order: each sees what those before it
/// wrote.
pub trait Executor: Send + Sync {
    /// Memory of the device.
    type Buffer: Send + Sync + 'static;

    /// The most lane operations that one dispatch may take.
    fn most_work(&self) -> u64 {
        u64::MAX
    }

    /// Runs work that uses the device's driver, and frees afterwards what the driver made meanwhile.
    fn scope(&self, work: &mut dyn FnMut()) {
        work();
    }

    /// The error after which the device is not used any more. The call waits for all work that has been started, so
    /// that its errors are known. `None` while the device is used.
    fn failure(&self) -> Option<ExecError> {
        None
    }

    /// Drops a buffer once the launches that have been given it are through. This implementation is for an executor
    /// whose launches are through when `run` returns.
    fn retire(&self, buffer: Self::Buffer) {
        drop(buffer);
    }

    /// Bytes of the largest buffer that the device allows.
    fn largest_buffer(&self) -> usize {
        usize::MAX
    }

    /// Allocates device memory. Its content is undefined.
    ///
    /// Errors: the device has not enough memory.
    fn create(&self, bytes: usize) -> Result<Self::Buffer, ExecError>;

    /// Copies bytes into a buffer, from byte `offset` on.
    ///
    /// Errors: a range outside of the buffer.
    fn upload(&self, buffer: &Self::Buffer, offset: usize, bytes: &[u8]) -> Result<(), ExecError>;

    /// Waits for all launches that run, then copies bytes out of a buffer, from byte `offset` on.
    ///
    /// Errors: a range outside of the buffer.
    fn download(&self, buffer: &Self::Buffer, offset: usize, out: &mut [u8]) -> Result<(), ExecError>;

    /// Runs launches in order.
    ///
    /// Errors: a kernel that does not exist or that failed, by its name.
    fn run(&self, launches: &[Launch<'_, Self::Buffer>]) -> Result<(), ExecError>;

    /// Allocates a buffer that holds `bytes`.
    ///
    /// Errors: the device has not enough memory.
    fn buffer(&self, bytes: &[u8]) -> Result<Self::Buffer, ExecError> {
        // Kernels' pointers may not be null, also where they are not read.
        let buffer = self.create(bytes.len().max(16))?;
        self.upload(&buffer, 0, bytes)?;
        Ok(buffer)
    }

    /// Returns a buffer of the elements of an f32 tensor, in order. This implementation copies from a tensor on the
    /// CPU; an executor whose tensors live on the device lends their memory.
    fn import(&self, tensor: &Tensor) -> candle_core::Result<Self::Buffer> {
        let elements = tensor.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = elements.into_iter().flat_map(f32::to_le_bytes).collect();
        self.buffer(&bytes).map_err(candle_core::Error::wrap)
    }

    /// Allocates device memory for an activation that becomes a tensor. An executor may take it from a pool, since such
    /// memory is freed soon. Its content is undefined.
    ///
    /// Errors: the device has not enough memory.
    fn create_activation(&self, bytes: usize) -> Result<Self::Buffer, ExecError> {
        self.create(bytes)
    }

    /// Returns an f32 tensor of the elements at the start of a buffer, which are copied or lent as by
    /// [`Executor::import`].
    fn export(&self, buffer: &Self::Buffer, shape: &[usize], device: &Device) -> candle_core::Result<Tensor> {
        let mut bytes = vec![0; shape.iter().product::<usize>() * 4];
        self.download(buffer, 0, &mut bytes).map_err(candle_core::Error::wrap)?;
        Tensor::from_raw_buffer(&bytes, DType::F32, shape, device)
    }
}
