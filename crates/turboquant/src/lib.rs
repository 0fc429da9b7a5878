//! KV cache codecs: rotation, codebooks, packing, and attention on the packed bytes.
//!
//! A K or V vector of one (token, kv head) is rotated, quantised and packed into a *record*, the bytes of one (block,
//! kv head). [`Kernel`] stores vectors into records and computes attention over them: exact stores for `f32`, `f16`,
//! `bf16`, integer dot products on the packed codes for `tq8` and `tc5` to `tc2`, decoding span by span for the rest.
//!
//! **A row's result depends on its query, its visible range and the stored bytes alone**, bit for bit: not on the other
//! rows of the call, the threads, or what dead slots hold.
#![warn(missing_docs)]

mod attend;
mod codebook;
mod correction_tables;
mod edit_distance;
mod encode;
mod format;
mod kernel;
#[cfg(test)]
mod kernel_header;
mod key_transform;
mod layout;
mod page;
mod preset;
mod rope;
mod rotation;
#[allow(unsafe_code)] // the only place: vector intrinsics and their dispatch
#[allow(clippy::needless_range_loop)] // index loops mirror the registers
mod simd;
mod trellis;

pub use attend::{Job, Row};
pub use correction_tables::{CorrectionTables, KeyTransformError, LOW_FREQUENCY};
pub use format::{Format, FormatError, MAX_HEAD_DIM, Side};
pub use kernel::{Kernel, MAX_GROUP, Query};
pub use key_transform::{DEFAULT_HIGH_PAIRS, HeadConstants, KeyTransform};
pub use layout::{PARTITION, RecordLayout, SPAN};
pub use preset::{KvPair, PRESETS, Preset};
pub use rope::{Rope, RopeError, apply_rope};
pub use rotation::{Rotation, walsh_hadamard};
pub use simd::Isa;
