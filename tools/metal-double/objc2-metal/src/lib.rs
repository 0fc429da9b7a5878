//! A stand-in for the crate `objc2-metal`: a GPU that holds its user to Metal's rules, with the names that Candle and
//! Tallow use.
//!
//! What breaks a rule panics, naming the kernel and the rule. Work is recorded when it is encoded and done when
//! somebody waits for it, so whoever reads without waiting finds the pattern that new memory is filled with. [`double`]
//! has what the real crate has not.
#![warn(missing_docs)]
#![allow(non_snake_case, non_upper_case_globals)] // Apple's names

mod candle;
mod commands;
mod device;
pub mod double;
mod encoder;
mod hazards;
mod kernels;
mod memory;
mod pipelines;
mod residency;
mod types;

pub use commands::{MTLCommandBuffer, MTLCommandBufferHandler, MTLCommandQueue};
pub use device::{MTLArchitecture, MTLCopyAllDevices, MTLCreateSystemDefaultDevice, MTLDevice};
pub use encoder::{MTLBlitCommandEncoder, MTLCommandEncoder, MTLComputeCommandEncoder, MTLFence};
pub use memory::{MTLBuffer, MTLResource};
pub use pipelines::{MTLCompileOptions, MTLComputePipelineState, MTLFunction, MTLFunctionConstantValues, MTLLibrary};
pub use residency::{MTLAllocation, MTLResidencySet, MTLResidencySetDescriptor};
pub use types::*;
