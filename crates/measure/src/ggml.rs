//! llama.cpp's cache types q8_0, q5_0 and q4_0 as a measure to compare with: K and V rounded as they would be, then kept exactly.
use attention::{AttentionBackend, AttentionPlan, BatchLayout, LayerId, RowOps};
use candle_core::{Result, Tensor};
use half::f16;
use kv::{BlockCopy, BlockId, KvLayout};
use std::sync::Arc;

/// Bits of the types' codes; with the fp16 scale of 32 elements they take half a bit more.
pub const GGML_BITS: [u32; 3] = [8, 5, 4];
const BLOCK: usize = 32;

pub struct GgmlBackend {
    inner: Box<dyn AttentionBackend>,
    bits: u32,
}

impl GgmlBackend {
    /// `inner` stores floats.
    pub fn new(inner: Box<dyn AttentionBackend>, bits: u32) -> Self {
        GgmlBackend { inner, bits }
    }

    fn through(&self, x: &Tensor) -> Result<Tensor> {
        let mut values: Vec<f32> = x.flatten_all()?.to_vec1()?;
        values.chunks_mut(BLOCK).for_each(|block| round_trip(block, self.bits));
        Tensor::from_vec(values, x.dims(), x.device())
    }
}

/// `quantize_row_q8_0_ref`, `_q5_0_ref`, `_q4_0_ref` of ggml and back.
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
        self.inner.write(layer, &self.through(k)?, &self.through(v)?, plan)
    }

    fn attend(&self, layer: LayerId, q: &Tensor, plan: &AttentionPlan) -> Result<Tensor> {
        self.inner.attend(layer, q, plan)
    }

    fn row_ops(&self) -> Option<&dyn RowOps> {
        self.inner.row_ops()
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

    /// Relative MSE of the largest-magnitude scale on noise: a uniform quantiser of step s errs by s²/12.
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
