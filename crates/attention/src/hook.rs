//! A backend in front of another one, which sees or changes what is stored.
use crate::{AttentionBackend, AttentionPlan, BatchLayout, LayerId};
use candle_core::{Result, Tensor};
use kv::{BlockCopy, BlockId, KvLayout};
use std::sync::Arc;

/// What is done with a layer's tensors before another backend takes them.
pub trait BackendHook: Send {
    /// K and V as they are to be stored. `k`, `v`: `[num_tokens, kv_heads, head_dim]`, K before the layer's RoPE.
    fn store(&self, layer: LayerId, k: &Tensor, v: &Tensor, plan: &AttentionPlan) -> Result<(Tensor, Tensor)>;

    /// Queries as they are to attend. `q`: `[num_tokens, num_heads, head_dim]` before the layer's RoPE.
    fn query(&self, _layer: LayerId, q: &Tensor, _plan: &AttentionPlan) -> Result<Tensor> {
        Ok(q.clone())
    }
}

/// An attention backend that passes everything on to another one, K, V and queries through a hook.
pub struct HookedBackend<H> {
    inner: Box<dyn AttentionBackend>,
    hook: H,
}

impl<H: BackendHook> HookedBackend<H> {
    /// `inner` stores and attends to what `hook` gives.
    pub fn new(inner: Box<dyn AttentionBackend>, hook: H) -> Self {
        HookedBackend { inner, hook }
    }

    /// The hook, with whatever it has gathered.
    pub fn hook(&self) -> &H {
        &self.hook
    }
}

impl<H: BackendHook> AttentionBackend for HookedBackend<H> {
    fn spec(&self) -> &KvLayout {
        self.inner.spec()
    }

    fn allocate(&mut self, num_blocks: usize) -> Result<()> {
        self.inner.allocate(num_blocks)
    }

    fn allocated_bytes(&self) -> usize {
        self.inner.allocated_bytes()
    }

    fn plan(&mut self, layout: Arc<BatchLayout>) -> Result<AttentionPlan> {
        self.inner.plan(layout)
    }

    fn write(&self, layer: LayerId, k: &Tensor, v: &Tensor, plan: &AttentionPlan) -> Result<()> {
        let (k, v) = self.hook.store(layer, k, v, plan)?;
        self.inner.write(layer, &k, &v, plan)
    }

    fn attend(&self, layer: LayerId, q: &Tensor, plan: &AttentionPlan) -> Result<Tensor> {
        self.inner.attend(layer, &self.hook.query(layer, q, plan)?, plan)
    }

    fn copy_blocks(&self, copies: &[BlockCopy]) -> Result<()> {
        self.inner.copy_blocks(copies)
    }

    fn read_block(&self, block: BlockId, out: &mut [u8]) -> Result<()> {
        self.inner.read_block(block, out)
    }

    fn page_order(&self) -> &'static str {
        self.inner.page_order()
    }

    fn write_block(&self, block: BlockId, bytes: &[u8]) -> Result<()> {
        self.inner.write_block(block, bytes)
    }
}
