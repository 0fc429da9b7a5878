//! Vector kernels: the only place of this crate with `unsafe` code. Pointers go into slices whose lengths are checked
//! here, and instructions are used whose presence is checked here.
#![allow(unsafe_code)]
// The row and the column of a micro-tile index several arrays at once.
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "aarch64")]
mod f16;
pub(crate) mod float;
pub(crate) mod panels;
