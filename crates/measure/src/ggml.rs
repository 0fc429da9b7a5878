//! llama.cpp's cache types q8_0, q5_0 and q4_0, to compare with: K and V are rounded as those types would round them,
//! then stored exactly.
use attention::{AttentionPlan, BackendHook, LayerId, ModelGeometry, Rope};
use candle_core::{Result, Tensor};
use half::f16;
use turboquant::apply_rope;

/// The bits of a code of each type. The fp16 scale of 32 elements adds half a bit an element.
pub(crate) const GGML_BITS: [u32; 3] = [8, 5, 4];
/// Elements that share a scale (ggml's "block").
const QUANTISATION_BLOCK: usize = 32;

/// Rounds K and V before a backend stores them. llama.cpp stores keys after RoPE, so RoPE is applied here, and the
/// backend must have none.
pub(crate) struct GgmlRounding {
    bits: u32,
    /// The model's different RoPEs, and the index of each layer's.
    ropes: Vec<Rope>,
    of_layers: Vec<Option<usize>>,
}

impl GgmlRounding {
    /// Rounds to codes of `bits` bits. Also returns the geometry that the backend behind must be made for, which is
    /// `geometry` without RoPE.
    ///
    /// Errors: a RoPE that does not fit its layer's head.
    pub fn new(bits: u32, geometry: &ModelGeometry) -> Result<(Self, ModelGeometry)> {
        let (ropes, of_layers) = geometry.ropes()?;
        let mut behind = geometry.clone();
        behind.layers.iter_mut().for_each(|layer| layer.rope = None);
        Ok((GgmlRounding { bits, ropes, of_layers }, behind))
    }

    /// x: `[num_tokens, heads, head_dim]`, after the layer's RoPE.
    fn roped(&self, layer: LayerId, x: &Tensor, plan: &AttentionPlan) -> Result<Tensor> {
        let Some(rope) = self.of_layers[layer.0].map(|rope| &self.ropes[rope]) else { return Ok(x.clone()) };
        let (_, heads, d) = x.dims3()?;
        let angles = rope.angles(&plan.layout.positions);
        let mut values: Vec<f32> = x.flatten_all()?.to_vec1()?;
        for (i, head) in values.chunks_exact_mut(d).enumerate() {
            apply_rope(head, rope.row(&angles, i / heads));
        }
        Tensor::from_vec(values, x.dims(), x.device())
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

impl BackendHook for GgmlRounding {
    fn store(&self, layer: LayerId, k: &Tensor, v: &Tensor, plan: &AttentionPlan) -> Result<(Tensor, Tensor)> {
        Ok((self.rounded(&self.roped(layer, k, plan)?)?, self.rounded(v)?))
    }

    fn query(&self, layer: LayerId, q: &Tensor, plan: &AttentionPlan) -> Result<Tensor> {
        self.roped(layer, q, plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attention::{AttentionBackend, BatchLayout, Centring, CpuBackend, HookedBackend, LayerGeometry};
    use candle_core::Device;
    use kv::{BlockPool, BlockTable, KvLayout};
    use std::sync::Arc;
    use turboquant::Format;

    /// Attention over two tokens is that over keys which are rounded after RoPE, from its definition.
    #[test]
    fn keys_are_rounded_after_rope() {
        const D: usize = 32;
        let rope = Rope::new((0..D / 2).map(|i| 0.7f32.powi(i as i32)).collect(), 1.0).unwrap();
        let layer = LayerGeometry {
            num_heads: 1,
            kv_heads: 1,
            head_dim: D,
            scale: 1.0,
            sliding_window: None,
            rope: Some(rope.clone()),
        };
        let (rounding, behind) = GgmlRounding::new(4, &ModelGeometry { layers: vec![layer] }).unwrap();
        let layout = KvLayout::new(16, [(1, D, Format::F32, Format::F32)]).unwrap();
        let exact = CpuBackend::new(layout, behind.clone(), Centring::none(&behind)).unwrap();
        let mut backend = HookedBackend::new(Box::new(exact), rounding);
        backend.allocate(1).unwrap();
        let mut table = BlockTable::new(16);
        table.prepare_write(&BlockPool::new(1), 0, 2).unwrap();
        let mut batch = BatchLayout::default();
        batch.push(0, 2, &table);
        let plan = backend.plan(Arc::new(batch)).unwrap();
        let noise =
            |seed: usize| (0..2 * D).map(|i| ((i * 7 + seed) as f32 * 0.618).fract() - 0.5).collect::<Vec<f32>>();
        let [q, k, v] = [1, 2, 3].map(noise);
        let tensor = |x: &[f32]| Tensor::from_slice(x, (2, 1, D), &Device::Cpu).unwrap();
        backend.write(LayerId(0), &tensor(&k), &tensor(&v), &plan).unwrap();
        let got =
            backend.attend(LayerId(0), &tensor(&q), &plan).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();

        let roped = |x: &[f32], t: usize| {
            let mut x = x[t * D..][..D].to_vec();
            apply_rope(&mut x, &rope.angles(&[t as u32]));
            x
        };
        let rounded = |mut x: Vec<f32>| {
            round_trip(&mut x, 4);
            x
        };
        let q = roped(&q, 1);
        let logit = |t| q.iter().zip(rounded(roped(&k, t))).map(|(q, k)| q * k).sum::<f32>();
        let weight = 1.0 / (1.0 + (logit(0) - logit(1)).exp());
        let [first, second] = [0, 1].map(|t| rounded(v[t * D..][..D].to_vec()));
        for (i, got) in got[D..].iter().enumerate() {
            let want = (1.0 - weight) * first[i] + weight * second[i];
            assert!((got - want).abs() < 1e-5, "element {i}: {got} for {want}");
        }
    }

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
