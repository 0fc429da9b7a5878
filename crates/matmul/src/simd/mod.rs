//! Vector kernels: the only place of this crate with `unsafe` code. Pointers go into slices whose lengths are checked
//! here. Whether the processor has the instructions is checked here or, for a whole product, in `matmul_all_with`.
#![allow(unsafe_code)]
// The row and the column of a micro-tile index several arrays at once.
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "aarch64")]
mod f16;
pub(crate) mod float;
pub(crate) mod panels;
