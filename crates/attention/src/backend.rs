//! The only thing a model's attention layers see of the KV cache.
use crate::BatchLayout;
use candle_core::{Result, Tensor};
use kv::{BlockCopy, BlockId, KvLayout};
use std::any::Any;
use std::sync::Arc;

/// Counts the layers that own a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerId(pub usize);

/// One step's batch, prepared by a backend for all layers.
pub struct AttentionPlan {
    /// The step's batch.
    pub layout: Arc<BatchLayout>,
    /// The backend's own: RoPE's angles, tensors on its device.
    pub prepared: Option<Box<dyn Any + Send + Sync>>,
}

/// Stores K and V in pages and attends to the pages.
///
/// What every backend keeps, tested by `tools/conformance`:
/// 1. Attention reads what the cache stores, the step's own tokens included: all of a step's `write` come before
///    `attend`.
/// 2. A row's result depends on its query and the cache alone: sums run in an order fixed by position in the sequence,
///    whatever else the batch holds and however many threads there are.
/// 3. One orthogonal rotation is shared by all tokens of a head, so a query is rotated once and an output un-rotated
///    once.
pub trait AttentionBackend: Send {
    /// Block size and bytes per block: the only byte formula.
    fn spec(&self) -> &KvLayout;

    /// Takes the memory of `num_blocks` blocks; whatever was stored before is gone.
    fn allocate(&mut self, num_blocks: usize) -> Result<()>;

    /// Bytes that `allocate` has taken.
    fn allocated_bytes(&self) -> usize;

    /// Prepares a step, once for all layers: RoPE's angles at the rows' positions, and what the device needs of the
    /// layout.
    fn plan(&mut self, layout: Arc<BatchLayout>) -> Result<AttentionPlan>;

    /// Stores the step's rows. `k`, `v`: `[num_tokens, kv_heads, head_dim]`, K before RoPE.
    fn write(&self, layer: LayerId, k: &Tensor, v: &Tensor, plan: &AttentionPlan) -> Result<()>;

    /// Causal attention of the step's rows over the cache. `q`: `[num_tokens, num_heads, head_dim]` before RoPE;
    /// returns the same shape.
    fn attend(&self, layer: LayerId, q: &Tensor, plan: &AttentionPlan) -> Result<Tensor>;

    /// Copies whole blocks in all layers, in order.
    fn copy_blocks(&self, copies: &[BlockCopy]) -> Result<()>;

    /// Copies the bytes of one block into `out`, layer after layer: `[bytes_per_block]`, in the backend's own page
    /// order.
    fn read_block(&self, block: BlockId, out: &mut [u8]) -> Result<()>;

    /// The name of the order in which `read_block` gives the bytes. Bytes of one order are of no use to a backend with
    /// another.
    fn page_order(&self) -> &'static str;

    /// Overwrites one block with what `read_block` of a backend with the same page order gave.
    fn write_block(&self, block: BlockId, bytes: &[u8]) -> Result<()>;
}
