//! Pipelines. Each is compiled when its kernel is first launched with some constants, and kept.
use super::kernel_error;
use crate::executor::{Constant, ExecError, Launch};
use crate::{limits, source};
use candle_core::MetalDevice;
use candle_metal_kernels::metal::{ComputePipeline, Device};
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSString;
use objc2_metal::{MTLCompileOptions, MTLComputePipelineState, MTLDevice, MTLLanguageVersion, MTLLibrary};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A compiled kernel, and what Apple's compiler made of it.
#[derive(Clone)]
pub struct Pipeline {
    pub(super) state: ComputePipeline,
    /// The most threads of a threadgroup: fewer, the more registers a thread takes.
    pub most_threads: usize,
    /// Threadgroup memory that the kernel declares, in bytes.
    pub threadgroup_bytes: usize,
    /// How long the compiler took.
    pub compiled_in: Duration,
}

impl Pipeline {
    /// Compiles a launch's kernel for its constants.
    ///
    /// # Errors
    /// The message of Apple's compiler, with the kernel's name; a kernel that takes more than the GPU has.
    pub fn compile<B>(device: &MetalDevice, launch: &Launch<'_, B>) -> Result<Self, ExecError> {
        let (begin, kernel) = (Instant::now(), &launch.kernel);
        let options = MTLCompileOptions::new();
        // Metal 3.0 is what every Apple Silicon Mac has.
        options.setLanguageVersion(MTLLanguageVersion::Version3_0);
        let (text, name) = (source::of_kernel(kernel, &launch.constants)?, NSString::from_str(kernel));
        let metal = raw(device.metal_device());
        let library = metal
            .newLibraryWithSource_options_error(&NSString::from_str(&text), Some(&options))
            .map_err(|e| kernel_error(kernel, e.localizedDescription()))?;
        let function =
            library.newFunctionWithName(&name).ok_or_else(|| kernel_error(kernel, "its library lacks it"))?;
        let state = metal
            .newComputePipelineStateWithFunction_error(&function)
            .map_err(|e| limits::not_made(kernel, &e.localizedDescription().to_string()))?;
        let pipeline = Pipeline {
            most_threads: state.maxTotalThreadsPerThreadgroup(),
            threadgroup_bytes: state.staticThreadgroupMemoryLength(),
            compiled_in: begin.elapsed(),
            state: ComputePipeline::new(state),
        };
        tracing::info!(
            "Metal kernel {kernel} compiled in {:.1} s: at most {} threads a threadgroup, which has {} bytes",
            pipeline.compiled_in.as_secs_f64(),
            pipeline.most_threads,
            pipeline.threadgroup_bytes
        );
        limits::check_threadgroup_memory(kernel, pipeline.threadgroup_bytes)?;
        Ok(pipeline)
    }
}

/// The pipelines of a device, by constants and then by kernel.
#[derive(Default)]
pub struct Pipelines {
    made: Mutex<HashMap<Vec<Constant>, HashMap<String, Pipeline>>>,
}

impl Pipelines {
    /// A launch's pipeline. Once it has been made, nothing is allocated to find it.
    ///
    /// Errors: the errors of [`Pipeline::compile`]; more threads or buffers than the kernel may have.
    pub fn get<B>(&self, device: &MetalDevice, launch: &Launch<'_, B>) -> Result<ComputePipeline, ExecError> {
        let mut made = self.made.lock().unwrap_or_else(|e| e.into_inner());
        let found = made.get(&launch.constants).and_then(|kernels| kernels.get(&launch.kernel));
        if let Some(pipeline) = found {
            limits::check_launch(launch, pipeline.most_threads)?;
            return Ok(pipeline.state.clone());
        }
        let pipeline = Pipeline::compile(device, launch)?;
        let kernels = made.entry(launch.constants.clone()).or_default();
        kernels.insert(launch.kernel.clone(), pipeline.clone());
        limits::check_launch(launch, pipeline.most_threads)?;
        Ok(pipeline.state)
    }
}

fn raw(device: &Device) -> &ProtocolObject<dyn MTLDevice> {
    device.as_ref()
}
