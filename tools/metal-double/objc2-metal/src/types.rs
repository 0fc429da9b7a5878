//! Plain values.
use crate::device::MTLDevice;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSError, NSURL};

/// Three extents.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct MTLSize {
    pub width: usize,
    pub height: usize,
    pub depth: usize,
}

/// How memory is kept, as bits.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MTLResourceOptions(pub usize);

impl MTLResourceOptions {
    /// Memory that the CPU sees too.
    pub const StorageModeShared: Self = MTLResourceOptions(0);
    /// Memory of the GPU alone.
    pub const StorageModePrivate: Self = MTLResourceOptions(2 << 4);
    /// Memory of which Metal does not order the uses.
    pub const HazardTrackingModeUntracked: Self = MTLResourceOptions(1 << 8);
}

macro_rules! plain {
    ($($(#[$meta:meta])* $name:ident { $($value:ident),+ })+) => {
        $($(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)] // Apple's names
        pub enum $name { $($value),+ })+
    };
}

plain! {
    /// How far a command buffer has come.
    MTLCommandBufferStatus { NotEnqueued, Enqueued, Committed, Scheduled, Completed, Error }
    /// Whether the dispatches of an encoder may run at once.
    MTLDispatchType { Serial, Concurrent }
    /// What a barrier is for.
    MTLBarrierScope { Buffers }
    /// The type of a function constant.
    MTLDataType { Bool, UInt, ULong, UShort, Float }
    /// The version of the shading language.
    MTLLanguageVersion { Version3_0 }
    /// How exact arithmetic is.
    MTLMathMode { Relaxed, Fast }
    /// How exact functions are.
    MTLMathFloatingPointFunctions { Fast, Precise }
    /// Where a capture goes.
    MTLCaptureDestination { GPUTraceDocument }
}

/// Captures of the GPU's work, which are not stood in for.
#[derive(Debug)]
pub struct MTLCaptureManager(());

/// What is to be captured.
#[derive(Debug)]
pub struct MTLCaptureDescriptor(());

impl MTLCaptureManager {
    /// # Safety
    /// None is needed; the real one is unsafe.
    pub unsafe fn sharedCaptureManager() -> Retained<Self> {
        Retained::of(MTLCaptureManager(()))
    }

    /// Errors: always.
    pub fn startCaptureWithDescriptor_error(&self, _: &MTLCaptureDescriptor) -> Result<(), Retained<NSError>> {
        Err(NSError::of("the stand-in captures nothing"))
    }
}

#[allow(missing_docs)] // Apple's names
impl MTLCaptureDescriptor {
    #[allow(clippy::new_ret_no_self)] // the real crate's name
    pub fn new() -> Retained<Self> {
        Retained::of(MTLCaptureDescriptor(()))
    }
    pub fn setDestination(&self, _: MTLCaptureDestination) {}
    pub fn set_capture_device(&self, _: &ProtocolObject<dyn MTLDevice>) {}
    pub fn setOutputURL(&self, _: Option<&NSURL>) {}
}
