//! Attention by the kernels of `kernels/`: what is launched, and when.
//!
//! A [`Launch`] is plain data: kernel, function constants, grid, params, buffers with what is read and written.
//! [`launch`] makes them, an [`Executor`] runs them (Metal on a Mac; the emulator and CUDA in tests), and
//! [`GpuBackend`] is the [`attention::AttentionBackend`] over any executor. Nothing here depends on the platform.

mod backend;
mod centring;
mod device;
mod executor;
pub mod launch;
mod layer;
#[cfg(all(target_os = "macos", feature = "metal"))]
#[allow(unsafe_code)] // the only place: Objective-C and memory shared with the GPU
pub mod macos;
#[cfg_attr(not(all(target_os = "macos", feature = "metal")), allow(dead_code))] // read there alone; tested everywhere
mod memory;
mod pace;
mod params;
mod plan;
mod products;
mod scratch;
mod shape;
mod slices;
pub mod source;

pub use backend::GpuBackend;
pub use centring::{LayerTables, PartitionTables, exact_groups};
pub use device::GpuDevice;
pub use executor::{Access, Binding, Constant, ExecError, Executor, Launch};
pub use layer::rotation_words;
pub use pace::{Pace, WORK_OF_TURN};
pub use params::{
    AttendParams, CopyParams, GateParams, NormParams, Params, QueryParams, ReduceParams, TileParams, TopParams,
    WriteParams,
};
pub use plan::{Tile, tiles};
pub use shape::{Form, KernelError, Shape};
