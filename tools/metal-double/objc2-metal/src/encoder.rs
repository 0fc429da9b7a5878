//! Encoders, which record commands.
use crate::commands::{CommandBuffer, fresh};
use crate::double::{self, broken};
use crate::hazards::{Access, conflict};
use crate::kernels::{Argument, Dispatch};
use crate::memory::{MTLBuffer, Memory, memory_of};
use crate::pipelines::{MTLComputePipelineState, Pipeline};
use crate::types::{MTLBarrierScope, MTLDispatchType, MTLSize};
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSRange, NSString};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number of buffer arguments that a kernel may have.
const BUFFERS: usize = 31;
/// Threadgroup memory, bytes.
const THREADGROUP_MEMORY: usize = 32 << 10;
/// From so many bytes on an argument needs a buffer.
const BYTES: usize = 4 << 10;

/// What orders encoders.
pub trait MTLFence {}

/// What all encoders can.
#[allow(missing_docs)] // Apple's names
pub trait MTLCommandEncoder {
    fn endEncoding(&self);
    fn setLabel(&self, label: Option<&NSString>);
}

/// Records dispatches.
///
/// # Safety
/// A pointer must be to as many bytes as are named, and what kernels read must be there.
#[allow(missing_docs, clippy::missing_safety_doc)] // Apple's names; the trait's documentation says it
pub trait MTLComputeCommandEncoder {
    fn setComputePipelineState(&self, state: &ProtocolObject<dyn MTLComputePipelineState>);
    unsafe fn setBytes_length_atIndex(&self, bytes: NonNull<c_void>, length: usize, index: usize);
    unsafe fn setBuffer_offset_atIndex(
        &self,
        buffer: Option<&ProtocolObject<dyn MTLBuffer>>,
        offset: usize,
        index: usize,
    );
    unsafe fn setThreadgroupMemoryLength_atIndex(&self, length: usize, index: usize);
    fn dispatchThreadgroups_threadsPerThreadgroup(&self, groups: MTLSize, threads: MTLSize);
    fn dispatchThreads_threadsPerThreadgroup(&self, grid: MTLSize, threads: MTLSize);
    fn memoryBarrierWithScope(&self, scope: MTLBarrierScope);
    fn updateFence(&self, fence: &ProtocolObject<dyn MTLFence>);
    fn waitForFence(&self, fence: &ProtocolObject<dyn MTLFence>);
}

/// Records copies and fills.
///
/// # Safety
/// A caller of the unsafe method has nothing to see to; the method is unsafe because the real one is.
#[allow(missing_docs, clippy::missing_safety_doc)] // Apple's names; the trait's documentation says it
pub trait MTLBlitCommandEncoder {
    unsafe fn copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
        &self,
        from: &ProtocolObject<dyn MTLBuffer>,
        from_offset: usize,
        to: &ProtocolObject<dyn MTLBuffer>,
        to_offset: usize,
        size: usize,
    );
    fn fillBuffer_range_value(&self, buffer: &ProtocolObject<dyn MTLBuffer>, range: NSRange, value: u8);
    fn updateFence(&self, fence: &ProtocolObject<dyn MTLFence>);
    fn waitForFence(&self, fence: &ProtocolObject<dyn MTLFence>);
}

/// A command that was recorded.
pub struct Command {
    pub name: String,
    pub accesses: Vec<Access>,
    work: Box<dyn FnOnce() + Send>,
}

/// What an encoder has recorded.
pub struct Encoded {
    pub id: u64,
    pub waits: Vec<u64>,
    pub updates: Vec<u64>,
    /// The commands between two barriers, which may run in any order.
    groups: Vec<Vec<Command>>,
}

impl Encoded {
    fn new() -> Self {
        Encoded { id: fresh(), waits: Vec::new(), updates: Vec::new(), groups: vec![Vec::new()] }
    }

    pub fn is_empty(&self) -> bool {
        self.commands().next().is_none()
    }

    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.groups.iter().flatten()
    }

    /// Runs the commands, those between two barriers in an order that is drawn.
    pub fn run(self) {
        for mut group in self.groups {
            while !group.is_empty() {
                let next = double::random() as usize % group.len();
                (group.swap_remove(next).work)();
            }
        }
    }
}

/// What encoders of both kinds have.
struct Recorder {
    buffer: Arc<CommandBuffer>,
    /// `None` once the encoder has ended.
    encoded: Option<Encoded>,
}

impl Recorder {
    fn new(buffer: Arc<CommandBuffer>) -> Self {
        Recorder { buffer, encoded: Some(Encoded::new()) }
    }

    fn encoded(&mut self) -> &mut Encoded {
        self.encoded.as_mut().unwrap_or_else(|| broken("an encoder", "it has ended"))
    }

    fn end(&mut self) {
        let encoded = self.encoded.take().unwrap_or_else(|| broken("endEncoding", "the encoder has ended"));
        self.buffer.end(encoded);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.encoded.is_some() && !std::thread::panicking() {
            broken("an encoder", "it is released without endEncoding");
        }
    }
}

/// A compute encoder and what is set for the next dispatch.
pub struct ComputeEncoder {
    recorder: Recorder,
    serial: bool,
    pipeline: Option<Arc<Pipeline>>,
    arguments: BTreeMap<usize, Argument>,
    memory: BTreeMap<usize, usize>,
}

impl ComputeEncoder {
    pub fn new(buffer: Arc<CommandBuffer>, kind: MTLDispatchType) -> Self {
        let serial = kind == MTLDispatchType::Serial;
        let (arguments, memory) = (BTreeMap::new(), BTreeMap::new());
        ComputeEncoder { recorder: Recorder::new(buffer), serial, pipeline: None, arguments, memory }
    }

    fn kernel(&self) -> &str {
        self.pipeline.as_ref().map_or("(no kernel is set)", |pipeline| &pipeline.name)
    }

    fn set(&mut self, index: usize, argument: Argument) {
        if index >= BUFFERS {
            broken(self.kernel(), format_args!("buffer {index} is set; 0 to {} are allowed", BUFFERS - 1));
        }
        self.arguments.insert(index, argument);
    }

    fn dispatch(&mut self, groups: [usize; 3], threads: [usize; 3], grid: [usize; 3]) {
        let Some(pipeline) = self.pipeline.clone() else { broken("a dispatch", "no kernel is set") };
        let kernel = &*pipeline.name;
        if groups.contains(&0) || threads.contains(&0) {
            broken(kernel, format_args!("a grid of {groups:?} threadgroups of {threads:?} threads is empty"));
        }
        let (many, most) = (threads.iter().product::<usize>(), pipeline.most_threads());
        if many > most {
            broken(kernel, format_args!("{many} threads a threadgroup; its pipeline allows {most}"));
        }
        let bytes: usize = self.memory.values().sum();
        if bytes > THREADGROUP_MEMORY {
            broken(kernel, format_args!("{bytes} bytes of threadgroup memory; {THREADGROUP_MEMORY} are allowed"));
        }
        let dispatch = Dispatch::new(Arc::clone(&pipeline), &self.arguments, [groups, threads, grid]);
        let accesses = dispatch.accesses();
        let encoded = self.recorder.encoded();
        if self.serial {
            encoded.groups.push(Vec::new());
        }
        let group = encoded.groups.last_mut().expect("there is one");
        for before in group.iter() {
            if let Some(conflict) = conflict((&before.name, &before.accesses), (kernel, &accesses)) {
                broken("missing barrier", conflict);
            }
        }
        group.push(Command { name: kernel.to_owned(), accesses, work: Box::new(move || dispatch.run()) });
    }
}

fn state<P: ?Sized, T: 'static>(encoder: &ProtocolObject<P>) -> MutexGuard<'_, T> {
    encoder.get::<Mutex<T>>().lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn compute_encoder(encoder: ComputeEncoder) -> Retained<ProtocolObject<dyn MTLComputeCommandEncoder>> {
    Retained::of(ProtocolObject::of(Mutex::new(encoder)))
}

pub fn fence() -> Retained<ProtocolObject<dyn MTLFence>> {
    Retained::of(ProtocolObject::of(fresh()))
}

impl MTLCommandEncoder for ProtocolObject<dyn MTLComputeCommandEncoder> {
    fn endEncoding(&self) {
        state::<_, ComputeEncoder>(self).recorder.end();
    }

    fn setLabel(&self, _: Option<&NSString>) {}
}

impl MTLComputeCommandEncoder for ProtocolObject<dyn MTLComputeCommandEncoder> {
    fn setComputePipelineState(&self, pipeline: &ProtocolObject<dyn MTLComputePipelineState>) {
        state::<_, ComputeEncoder>(self).pipeline = Some(Arc::clone(pipeline.get::<Arc<Pipeline>>()));
    }

    unsafe fn setBytes_length_atIndex(&self, bytes: NonNull<c_void>, length: usize, index: usize) {
        let mut encoder = state::<_, ComputeEncoder>(self);
        if length == 0 || length >= BYTES {
            broken(encoder.kernel(), format_args!("setBytes of {length} bytes; 1 to {} are allowed", BYTES - 1));
        }
        // SAFETY: the caller promises that so many bytes are there.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<u8>(), length) };
        encoder.set(index, Argument::Bytes(bytes.to_vec()));
    }

    unsafe fn setBuffer_offset_atIndex(
        &self,
        buffer: Option<&ProtocolObject<dyn MTLBuffer>>,
        offset: usize,
        index: usize,
    ) {
        let mut encoder = state::<_, ComputeEncoder>(self);
        let Some(buffer) = buffer else {
            encoder.arguments.remove(&index);
            return;
        };
        let memory = memory_of(buffer);
        if offset >= memory.length() {
            let length = memory.length();
            broken(encoder.kernel(), format_args!("buffer {index} begins at byte {offset} of {length}"));
        }
        encoder.set(index, Argument::Memory(Arc::clone(memory), offset));
    }

    unsafe fn setThreadgroupMemoryLength_atIndex(&self, length: usize, index: usize) {
        let mut encoder = state::<_, ComputeEncoder>(self);
        if length % 16 != 0 {
            broken(encoder.kernel(), format_args!("{length} bytes of threadgroup memory are no multiple of 16"));
        }
        encoder.memory.insert(index, length);
    }

    fn dispatchThreadgroups_threadsPerThreadgroup(&self, groups: MTLSize, threads: MTLSize) {
        let [groups, threads] = [groups, threads].map(extents);
        let grid = std::array::from_fn(|i| groups[i] * threads[i]);
        state::<_, ComputeEncoder>(self).dispatch(groups, threads, grid);
    }

    fn dispatchThreads_threadsPerThreadgroup(&self, grid: MTLSize, threads: MTLSize) {
        let [grid, threads] = [grid, threads].map(extents);
        let groups = std::array::from_fn(|i| grid[i].div_ceil(threads[i].max(1)));
        state::<_, ComputeEncoder>(self).dispatch(groups, threads, grid);
    }

    fn memoryBarrierWithScope(&self, _: MTLBarrierScope) {
        state::<_, ComputeEncoder>(self).recorder.encoded().groups.push(Vec::new());
    }

    fn updateFence(&self, fence: &ProtocolObject<dyn MTLFence>) {
        state::<_, ComputeEncoder>(self).recorder.encoded().updates.push(*fence.get());
    }

    fn waitForFence(&self, fence: &ProtocolObject<dyn MTLFence>) {
        state::<_, ComputeEncoder>(self).recorder.encoded().waits.push(*fence.get());
    }
}

fn extents(size: MTLSize) -> [usize; 3] {
    [size.width, size.height, size.depth]
}

/// A blit encoder. Its commands run in order.
pub struct BlitEncoder(Recorder);

impl BlitEncoder {
    pub fn new(buffer: Arc<CommandBuffer>) -> Self {
        BlitEncoder(Recorder::new(buffer))
    }

    fn record(&mut self, name: &str, accesses: Vec<Access>, work: impl FnOnce() + Send + 'static) {
        self.0.encoded().groups.push(vec![Command { name: name.to_owned(), accesses, work: Box::new(work) }]);
    }
}

pub fn blit_encoder(encoder: BlitEncoder) -> Retained<ProtocolObject<dyn MTLBlitCommandEncoder>> {
    Retained::of(ProtocolObject::of(Mutex::new(encoder)))
}

fn check_range(name: &str, memory: &Memory, offset: usize, size: usize) {
    if size == 0 || offset + size > memory.length() {
        let length = memory.length();
        broken(name, format_args!("{size} bytes from byte {offset} on, in a buffer of {length} bytes"));
    }
}

impl MTLCommandEncoder for ProtocolObject<dyn MTLBlitCommandEncoder> {
    fn endEncoding(&self) {
        state::<_, BlitEncoder>(self).0.end();
    }

    fn setLabel(&self, _: Option<&NSString>) {}
}

impl MTLBlitCommandEncoder for ProtocolObject<dyn MTLBlitCommandEncoder> {
    unsafe fn copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
        &self,
        from: &ProtocolObject<dyn MTLBuffer>,
        from_offset: usize,
        to: &ProtocolObject<dyn MTLBuffer>,
        to_offset: usize,
        size: usize,
    ) {
        let (from, to) = (Arc::clone(memory_of(from)), Arc::clone(memory_of(to)));
        check_range("a copy", &from, from_offset, size);
        check_range("a copy", &to, to_offset, size);
        let source = Access::new(&from, from_offset..from_offset + size, false);
        let target = Access::new(&to, to_offset..to_offset + size, true);
        let work = move || to.write(to_offset, &from.bytes(from_offset)[..size]);
        state::<_, BlitEncoder>(self).record("a copy", vec![source, target], work);
    }

    fn fillBuffer_range_value(&self, buffer: &ProtocolObject<dyn MTLBuffer>, range: NSRange, value: u8) {
        let memory = Arc::clone(memory_of(buffer));
        check_range("a fill", &memory, range.location, range.length);
        let access = Access::new(&memory, range.location..range.location + range.length, true);
        let work = move || memory.write(range.location, &vec![value; range.length]);
        state::<_, BlitEncoder>(self).record("a fill", vec![access], work);
    }

    fn updateFence(&self, fence: &ProtocolObject<dyn MTLFence>) {
        state::<_, BlitEncoder>(self).0.encoded().updates.push(*fence.get());
    }

    fn waitForFence(&self, fence: &ProtocolObject<dyn MTLFence>) {
        state::<_, BlitEncoder>(self).0.encoded().waits.push(*fence.get());
    }
}
