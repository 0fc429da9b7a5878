//! The kernels' library, compiled once, and pipelines, made when first used and kept.
use super::kernel_error;
use crate::executor::{Constant, ExecError};
use crate::source;
use candle_core::MetalDevice;
use candle_metal_kernels::metal::{ComputePipeline, Device};
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSString;
use objc2_metal::{
    MTLCompileOptions, MTLDataType, MTLDevice, MTLFunctionConstantValues, MTLLanguageVersion, MTLLibrary,
};
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::time::Instant;

type Library = Retained<ProtocolObject<dyn MTLLibrary>>;

pub struct Pipelines {
    library: Library,
    made: Mutex<HashMap<(String, Vec<Constant>), ComputePipeline>>,
}

// SAFETY: a Metal library is immutable, and Apple documents device, library and pipeline objects as safe to use from
// several threads.
unsafe impl Send for Pipelines {}
// SAFETY: as above; the map is behind a mutex.
unsafe impl Sync for Pipelines {}

impl Pipelines {
    /// Errors: the compiler's own message.
    pub fn compile(device: &MetalDevice, head_dim: Option<usize>) -> Result<Self, ExecError> {
        let start = Instant::now();
        let options = MTLCompileOptions::new();
        // Metal 3.0 is what every Apple Silicon Mac has.
        options.setLanguageVersion(MTLLanguageVersion::Version3_0);
        let text = NSString::from_str(&source::library(head_dim));
        let library = raw(device.metal_device())
            .newLibraryWithSource_options_error(&text, Some(&options))
            .map_err(|e| kernel_error("(library)", e.localizedDescription()))?;
        tracing::info!("Metal kernels compiled in {:.1} s", start.elapsed().as_secs_f64());
        Ok(Pipelines { library, made: Mutex::default() })
    }

    /// Errors: no such kernel; constants that the compiler refuses.
    pub fn get(
        &self,
        device: &MetalDevice,
        kernel: &str,
        constants: &[Constant],
    ) -> Result<ComputePipeline, ExecError> {
        let key = (kernel.to_owned(), constants.to_vec());
        let mut made = self.made.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(pipeline) = made.get(&key) {
            return Ok(pipeline.clone());
        }
        let values = MTLFunctionConstantValues::new();
        for constant in constants {
            // SAFETY: each pointer is to a value of the named type, read during the call.
            unsafe {
                match constant {
                    Constant::Bool(index, value) => {
                        values.setConstantValue_type_atIndex(pointer(value), MTLDataType::Bool, *index as usize)
                    }
                    Constant::Uint(index, value) => {
                        values.setConstantValue_type_atIndex(pointer(value), MTLDataType::UInt, *index as usize)
                    }
                }
            }
        }
        let function = self
            .library
            .newFunctionWithName_constantValues_error(&NSString::from_str(kernel), &values)
            .map_err(|e| kernel_error(kernel, e.localizedDescription()))?;
        let pipeline = raw(device.metal_device())
            .newComputePipelineStateWithFunction_error(&function)
            .map_err(|e| kernel_error(kernel, e.localizedDescription()))?;
        let pipeline = ComputePipeline::new(pipeline);
        made.insert(key, pipeline.clone());
        Ok(pipeline)
    }
}

fn raw(device: &Device) -> &ProtocolObject<dyn MTLDevice> {
    device.as_ref()
}

fn pointer<T>(value: &T) -> NonNull<c_void> {
    NonNull::from(value).cast()
}
