//! Blocks of the KV cache, and snapshots of recurrent states, kept on disk across restarts.
//!
//! A [`DiskCache`] has one identity's file in a folder that all identities share. Values are written behind by one
//! thread and read by another; a value is given only if it is, byte for byte, what was offered.
#![warn(missing_docs)]
// Helpers of tests name this crate as other programs do.
#[cfg(test)]
extern crate self as disk_cache;

mod cache;
mod chains;
mod error;
mod file;
mod folder;
mod format;
mod index;
mod inspect;
mod options;
mod reader;
mod room;
mod state;
#[cfg(test)]
mod tests;
mod value;
mod writer;

pub use cache::{DiskCache, DiskStats, DiskWriteState, Offered};
pub use chains::ChainSummary;
pub use error::DiskError;
pub use inspect::{ClearReport, VerifyReport, clear, list, verify};
pub use kv::{BlockKey, CacheIdentity};
pub use options::{CacheLabel, DiskContents, DiskLimit, DiskOptions, STAGING_BYTES};
pub use reader::DiskRead;
pub use value::{DiskValueKind, OfferedValue};
