//! Attention by the kernels of `kernels/`: what is launched, and when.
//!
//! A [`Launch`] is plain data: kernel, function constants, grid, params, buffers with what is read and written.
//! [`launch`] makes them, an [`Executor`] runs them (Metal on a Mac; the emulator and CUDA in tests), and
//! [`GpuBackend`] is the [`attention::AttentionBackend`] over any executor. Nothing here depends on the platform.
#![warn(missing_docs)]

mod backend;
mod batch;
mod chip;
mod device;
mod executor;
pub mod launch;
#[cfg_attr(not(any(target_os = "macos", metal_double)), allow(dead_code))] // read there alone; tested everywhere
mod limits;
#[cfg(any(target_os = "macos", metal_double))]
#[allow(unsafe_code)] // the only place: Objective-C and memory shared with the GPU
pub mod macos;
#[cfg_attr(not(any(target_os = "macos", metal_double)), allow(dead_code))] // read there alone; tested everywhere
mod memory;
mod shape;
pub mod source;
mod tables;

pub use backend::GpuBackend;
pub use batch::{Pace, Tile, WORK_OF_TURN, tiles};
pub use chip::{multiplied_types, slow_types};
pub use device::GpuDevice;
pub use executor::{Access, Binding, Constant, ExecError, Executor, Launch};
pub use launch::{
    AttendParams, ConvolveParams, CopyParams, DeltaParams, ExactParams, GateParams, GroupParams, NormOperandParams,
    NormParams, PackParams, PackRoutedParams, Params, ProductParams, QueryParams, ReduceParams, RouteParams,
    RowsParams, SumExpertsParams, TileParams, TopParams, WriteParams,
};
pub use shape::{AttendKernel, KernelError, Shape};
pub use tables::{LayerTables, PartitionTables, exact_groups, rotation_words};
