//! Block pool, block tables and the byte layout of the paged KV cache.
//!
//! Nothing here touches a tensor: a block is a number, and what lies in it is the attention backend's business.
#![warn(missing_docs)]
mod key;
mod layout;
mod pool;
mod sealed;
mod table;

pub use key::{BlockId, BlockKey, CacheIdentity};
pub use layout::{KvLayout, LayerKv, LayoutError};
pub use pool::{Block, BlockPool, KnownRun, OutOfBlocks};
pub use sealed::{EvictedBlock, KnownNext, LONG_CHAIN_TOKENS, SealedBlock};
pub use table::{BlockCopy, BlockTable};
