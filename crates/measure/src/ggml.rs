//! llama.cpp's cache types q8_0, q5_0 and q4_0, to compare with: K and V are rounded as those types would round them,
//! then stored exactly.
use attention::{AttentionBackend, AttentionPlan, BatchLayout, LayerId};
use candle_core::{Result, Tensor};
use half::f16;
use kv::{BlockCopy, BlockId, KvLayout};
use std::sync::Arc;

/// The bits of a code of each type. The fp16 scale of 32 elements adds half a bit an element.
pub(crate) const GGML_BITS: [u32; 3] = [8, 5, 4];
/// Elements that share a scale (ggml's "block").
const QUANTISATION_BLOCK: usize = 32;

/// An attention backend that rounds K and V before another one stores them.
pub(crate) struct GgmlBackend {
    inner: Box<dyn AttentionBackend>,
    bits: u32,
}

impl GgmlBackend {
    /// Rounds to codes of `bits` bits; `inner` stores floats.
    pub fn new(inner: Box<dyn AttentionBackend>, bits: u32) -> Self {
        GgmlBackend { inner, bits }
    }

    fn rounded(&self, x: &Tensor) -> Result<Tensor> {
        let mut values: Vec<f32> = x.flatten_all()?.to_vec1()?;
        values.chunks_mut(QUANTISATION_BLOCK).for_each(|block| round_trip(block, self.bits));
        Tensor::from_vec(values, x.dims(), x.device())
    }
}

/// Quantises elements that share a scale as ggml's `quantize_row_q8_0_ref`, `_q5_0_ref` and `_q4_0_ref` do, and
/// dequantises them.
fn round_trip(block: &mut [f32], bits: u32) {
    let levels = (1 << (bits - 1)) as f32;
    let largest = block.iter().copied().fold(0f32, |m, x| if x.abs() > m.abs() { x } else { m });
    let scale = if bits == 8 { largest.abs() / 127.0 } else { largest / -levels };
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let scale = f16::from_f32(scale).to_f32();
    for x in block {
        let code = if bits == 8 {
            (*x * inverse).round()
        } else {
            (*x * inverse + levels + 0.5).floor().min(2.0 * levels - 1.0) - levels
        };
        *x = code * scale;
    }
}

impl AttentionBackend for GgmlBackend {
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
        self.inner.write(layer, &self.rounded(k)?, &self.rounded(v)?, plan)
    }

    fn attend(&self, layer: LayerId, q: &Tensor, plan: &AttentionPlan) -> Result<Tensor> {
        self.inner.attend(layer, q, plan)
    }

    fn copy_blocks(&self, copies: &[BlockCopy]) -> Result<()> {
        self.inner.copy_blocks(copies)
    }

    fn read_block(&self, block: BlockId, out: &mut [u8]) -> Result<()> {
        self.inner.read_block(block, out)
    }

    fn write_block(&self, block: BlockId, bytes: &[u8]) -> Result<()> {
        self.inner.write_block(block, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element is off by at most half a step, or a whole one where it is clamped, and the worst is off by more than
    /// an eighth.
    #[test]
    fn rounding_is_of_the_size_of_the_step() {
        for bits in GGML_BITS {
            let block: Vec<f32> = (0..32).map(|i| (i as f32 * 0.618).fract() - 0.45).collect();
            let largest = block.iter().fold(0f32, |m, x| m.max(x.abs()));
            let mut got = block.clone();
            round_trip(&mut got, bits);
            let step = largest / if bits == 8 { 127.0 } else { (1 << (bits - 1)) as f32 };
            let worst = block.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            // The end opposite to the largest element is clamped: up to a whole step.
            assert!(worst <= step * 1.01 && worst > step / 8.0, "{bits} bits: {worst}, step {step}");
        }
    }
}
