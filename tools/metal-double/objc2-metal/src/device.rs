//! The one GPU.
use crate::commands::{MTLCommandQueue, queue};
use crate::double;
use crate::encoder::{MTLFence, fence};
use crate::memory::{MAX_BUFFER_LENGTH, MTLBuffer, Memory, buffer};
use crate::pipelines::{
    MTLCompileOptions, MTLComputePipelineState, MTLFunction, MTLLibrary, compute_pipeline, library,
};
use crate::residency::{MTLResidencySet, MTLResidencySetDescriptor, set};
use crate::types::MTLResourceOptions;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSArray, NSError, NSString};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::OnceLock;

/// Bytes that the device recommends to use at most: two thirds of a Mac of 16 GB.
const WORKING_SET: u64 = 2 * (16 << 30) / 3;

/// A GPU.
#[allow(missing_docs)] // Apple's names
pub trait MTLDevice {
    fn registryID(&self) -> u64;
    fn name(&self) -> Retained<NSString>;
    fn architecture(&self) -> Retained<MTLArchitecture>;
    fn recommendedMaxWorkingSetSize(&self) -> u64;
    fn currentAllocatedSize(&self) -> usize;
    fn maxBufferLength(&self) -> usize;
    fn newBufferWithLength_options(
        &self,
        length: usize,
        options: MTLResourceOptions,
    ) -> Option<Retained<ProtocolObject<dyn MTLBuffer>>>;
    /// # Safety
    /// So many bytes must be there.
    unsafe fn newBufferWithBytes_length_options(
        &self,
        bytes: NonNull<c_void>,
        length: usize,
        options: MTLResourceOptions,
    ) -> Option<Retained<ProtocolObject<dyn MTLBuffer>>>;
    fn newLibraryWithSource_options_error(
        &self,
        source: &NSString,
        options: Option<&MTLCompileOptions>,
    ) -> Result<Retained<ProtocolObject<dyn MTLLibrary>>, Retained<NSError>>;
    fn newComputePipelineStateWithFunction_error(
        &self,
        function: &ProtocolObject<dyn MTLFunction>,
    ) -> Result<Retained<ProtocolObject<dyn MTLComputePipelineState>>, Retained<NSError>>;
    fn newCommandQueue(&self) -> Option<Retained<ProtocolObject<dyn MTLCommandQueue>>>;
    fn newFence(&self) -> Option<Retained<ProtocolObject<dyn MTLFence>>>;
    fn newResidencySetWithDescriptor_error(
        &self,
        descriptor: &MTLResidencySetDescriptor,
    ) -> Result<Retained<ProtocolObject<dyn MTLResidencySet>>, Retained<NSError>>;
}

/// What kind of GPU it is.
#[derive(Debug)]
pub struct MTLArchitecture(());

impl MTLArchitecture {
    /// The name of the M1's.
    pub fn name(&self) -> Retained<NSString> {
        NSString::from_str("applegpu_g13g").autoreleased()
    }
}

/// The GPU, if there is one.
pub fn MTLCreateSystemDefaultDevice() -> Option<Retained<ProtocolObject<dyn MTLDevice>>> {
    Some(the_device())
}

/// All GPUs.
pub fn MTLCopyAllDevices() -> Retained<NSArray<ProtocolObject<dyn MTLDevice>>> {
    NSArray::of(vec![the_device()])
}

pub fn the_device() -> Retained<ProtocolObject<dyn MTLDevice>> {
    static DEVICE: OnceLock<Retained<ProtocolObject<dyn MTLDevice>>> = OnceLock::new();
    DEVICE.get_or_init(|| Retained::of(ProtocolObject::of(()))).clone()
}

impl MTLDevice for ProtocolObject<dyn MTLDevice> {
    fn registryID(&self) -> u64 {
        1
    }

    fn name(&self) -> Retained<NSString> {
        NSString::from_str("Apple M1").autoreleased()
    }

    fn architecture(&self) -> Retained<MTLArchitecture> {
        Retained::of(MTLArchitecture(())).autoreleased()
    }

    fn recommendedMaxWorkingSetSize(&self) -> u64 {
        WORKING_SET
    }

    fn currentAllocatedSize(&self) -> usize {
        double::allocated()
    }

    fn maxBufferLength(&self) -> usize {
        MAX_BUFFER_LENGTH
    }

    fn newBufferWithLength_options(
        &self,
        length: usize,
        options: MTLResourceOptions,
    ) -> Option<Retained<ProtocolObject<dyn MTLBuffer>>> {
        Some(buffer(Memory::new(length, options)))
    }

    unsafe fn newBufferWithBytes_length_options(
        &self,
        bytes: NonNull<c_void>,
        length: usize,
        options: MTLResourceOptions,
    ) -> Option<Retained<ProtocolObject<dyn MTLBuffer>>> {
        let memory = Memory::new(length, options);
        // SAFETY: the caller promises that so many bytes are there.
        memory.write(0, unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), length) });
        Some(buffer(memory))
    }

    fn newLibraryWithSource_options_error(
        &self,
        source: &NSString,
        _: Option<&MTLCompileOptions>,
    ) -> Result<Retained<ProtocolObject<dyn MTLLibrary>>, Retained<NSError>> {
        Ok(library(&source.to_string()))
    }

    fn newComputePipelineStateWithFunction_error(
        &self,
        function: &ProtocolObject<dyn MTLFunction>,
    ) -> Result<Retained<ProtocolObject<dyn MTLComputePipelineState>>, Retained<NSError>> {
        Ok(compute_pipeline(function))
    }

    fn newCommandQueue(&self) -> Option<Retained<ProtocolObject<dyn MTLCommandQueue>>> {
        Some(queue())
    }

    fn newFence(&self) -> Option<Retained<ProtocolObject<dyn MTLFence>>> {
        Some(fence())
    }

    fn newResidencySetWithDescriptor_error(
        &self,
        _: &MTLResidencySetDescriptor,
    ) -> Result<Retained<ProtocolObject<dyn MTLResidencySet>>, Retained<NSError>> {
        Ok(set())
    }
}
