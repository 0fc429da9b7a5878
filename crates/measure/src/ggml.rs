//! llama.cpp's cache types q8_0, q5_0 and q4_0, to compare with: K and V are rounded as those types would round them,
//! then stored exactly.
//!
//! Since April 2026 llama.cpp rotates the heads of quantised caches (its pull request 21038): by a Walsh-Hadamard
//! matrix over sqrt(order), without random signs. The order is the largest power of two that divides the head for K and
//! 64 for V. Heads whose size is no multiple of 64 are not rotated.
use attention::{AttentionPlan, BackendHook, LayerId, ModelGeometry, Rope};
use candle_core::{Result, Tensor};
use half::f16;
use turboquant::{apply_rope, walsh_hadamard};

/// The bits of a code of each type. The fp16 scale of 32 elements adds half a bit an element.
pub(crate) const GGML_BITS: [u32; 3] = [8, 5, 4];
/// Elements that share a scale (ggml's "block").
const QUANTISATION_BLOCK: usize = 32;
/// The order of the matrix that rotates V, and the smallest that rotates K.
const SMALLEST_ORDER: usize = 64;

/// Whether llama.cpp rotates heads of this size.
pub(crate) fn rotates(head_dim: usize) -> bool {
    head_dim.is_multiple_of(SMALLEST_ORDER)
}

/// The order of the matrix that rotates the keys of a head; 1, which changes nothing, where none does.
fn key_order(head_dim: usize) -> usize {
    if rotates(head_dim) { 1 << head_dim.trailing_zeros() } else { 1 }
}

/// The order of the matrix that rotates the values of a head; 1 where none does.
fn value_order(head_dim: usize) -> usize {
    if rotates(head_dim) { SMALLEST_ORDER } else { 1 }
}

/// Rounds K and V before a backend stores them. llama.cpp stores keys after RoPE, so RoPE is applied here, and the
/// backend must have none.
pub(crate) struct GgmlRounding {
    bits: u32,
    rotated: bool,
    /// The model's different RoPEs, and the index of each layer's.
    ropes: Vec<Rope>,
    of_layers: Vec<Option<usize>>,
}

impl GgmlRounding {
    /// Rounds to codes of `bits` bits, `rotated` as llama.cpp does it or as they are. Also returns the geometry that
    /// the backend behind must be made for, which is `geometry` without RoPE.
    ///
    /// Errors: a RoPE that does not fit its layer's head.
    pub fn new(bits: u32, rotated: bool, geometry: &ModelGeometry) -> Result<(Self, ModelGeometry)> {
        let (ropes, of_layers) = geometry.ropes()?;
        let mut behind = geometry.clone();
        behind.layers.iter_mut().for_each(|layer| layer.rope = None);
        Ok((GgmlRounding { bits, rotated, ropes, of_layers }, behind))
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

    /// `order` tells by what matrix a head of so many elements is rotated. x: `[num_tokens, heads, head_dim]`.
    fn rounded(&self, x: &Tensor, order: fn(usize) -> usize) -> Result<Tensor> {
        let (_, _, d) = x.dims3()?;
        let order = if self.rotated { order(d) } else { 1 };
        let mut values: Vec<f32> = x.flatten_all()?.to_vec1()?;
        // The matrix is its own inverse. That what is stored has been rotated back changes no logit and no output:
        // llama.cpp rotates the query and the output instead.
        values.chunks_exact_mut(order).for_each(hadamard);
        values.chunks_mut(QUANTISATION_BLOCK).for_each(|block| round_trip(block, self.bits));
        values.chunks_exact_mut(order).for_each(hadamard);
        Tensor::from_vec(values, x.dims(), x.device())
    }
}

/// Multiplies by the Walsh-Hadamard matrix of the vector's order, a power of two, over the root of the order.
fn hadamard(x: &mut [f32]) {
    walsh_hadamard(x);
    let norm = 1.0 / (x.len() as f32).sqrt();
    x.iter_mut().for_each(|x| *x *= norm);
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
        Ok((self.rounded(&self.roped(layer, k, plan)?, key_order)?, self.rounded(v, value_order)?))
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

    /// Attention over two tokens is that over keys which are rounded after RoPE, from its definition; `rotated` by
    /// matrices whose elements are (-1)^popcount(i & j) / sqrt(order).
    fn check_attention(d: usize, rotated: bool, [k_order, v_order]: [usize; 2]) {
        let rope = Rope::new((0..d / 2).map(|i| 0.9f32.powi(i as i32)).collect(), 1.0).unwrap();
        let layer = LayerGeometry {
            num_heads: 1,
            kv_heads: 1,
            head_dim: d,
            scale: 1.0,
            sliding_window: None,
            rope: Some(rope.clone()),
        };
        let (rounding, behind) = GgmlRounding::new(4, rotated, &ModelGeometry { layers: vec![layer] }).unwrap();
        let layout = KvLayout::new(16, [(1, d, Format::F32, Format::F32)]).unwrap();
        let exact = CpuBackend::new(layout, behind.clone(), Centring::none(&behind)).unwrap();
        let mut backend = HookedBackend::new(Box::new(exact), rounding);
        backend.allocate(1).unwrap();
        let mut table = BlockTable::new(16);
        table.prepare_write(&BlockPool::new(1), 0, 2).unwrap();
        let mut batch = BatchLayout::default();
        batch.push(0, 2, &table);
        let plan = backend.plan(Arc::new(batch)).unwrap();
        let noise =
            |seed: usize| (0..2 * d).map(|i| ((i * 7 + seed) as f32 * 0.618).fract() - 0.5).collect::<Vec<f32>>();
        let [q, k, v] = [1, 2, 3].map(noise);
        let tensor = |x: &[f32]| Tensor::from_slice(x, (2, 1, d), &Device::Cpu).unwrap();
        backend.write(LayerId(0), &tensor(&k), &tensor(&v), &plan).unwrap();
        let got =
            backend.attend(LayerId(0), &tensor(&q), &plan).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();

        let roped = |x: &[f32], t: usize| {
            let mut x = x[t * d..][..d].to_vec();
            apply_rope(&mut x, &rope.angles(&[t as u32]));
            x
        };
        // Queries and outputs are rotated here, as llama.cpp does it.
        let rounded = |x: Vec<f32>, order| {
            let mut x = rotated_by_definition(&x, order);
            x.chunks_mut(QUANTISATION_BLOCK).for_each(|block| round_trip(block, 4));
            x
        };
        let q = rotated_by_definition(&roped(&q, 1), k_order);
        let logit = |t| q.iter().zip(rounded(roped(&k, t), k_order)).map(|(q, k)| q * k).sum::<f32>();
        let weight = 1.0 / (1.0 + (logit(0) - logit(1)).exp());
        let [first, second] = [0, 1].map(|t| rounded(v[t * d..][..d].to_vec(), v_order));
        let mixed: Vec<f32> = first.iter().zip(second).map(|(a, b)| (1.0 - weight) * a + weight * b).collect();
        for (i, (got, want)) in got[d..].iter().zip(rotated_by_definition(&mixed, v_order)).enumerate() {
            // Sums of at most 256 products of numbers below 1, in another order: 256 x 6e-8.
            assert!((got - want).abs() < 2e-5, "{d}, element {i}: {got} for {want}");
        }
    }

    fn rotated_by_definition(x: &[f32], order: usize) -> Vec<f32> {
        let sign = |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
        let element = |i: usize| {
            let block = &x[i / order * order..][..order];
            block.iter().enumerate().map(|(j, x)| sign(i % order, j) * f64::from(*x)).sum::<f64>()
        };
        (0..x.len()).map(|i| (element(i) / (order as f64).sqrt()) as f32).collect()
    }

    #[test]
    fn keys_are_rounded_after_rope() {
        check_attention(32, false, [1, 1]);
    }

    /// The orders are llama.cpp's: the largest power of two in the head for K, 64 for V, none for 96 elements.
    #[test]
    fn heads_are_rotated_as_llama_cpp_does_it() {
        for (head_dim, orders) in [(64, [64, 64]), (128, [128, 64]), (192, [64, 64]), (256, [256, 64]), (96, [1, 1])] {
            check_attention(head_dim, true, orders);
        }
    }

    /// Rotation keeps lengths and angles, and is its own inverse.
    #[test]
    fn rotation_keeps_dot_products() {
        for order in [1, 64, 128, 256] {
            let noise = |seed: usize| -> Vec<f32> {
                (0..order).map(|i| ((i * 7 + seed) as f32 * 0.618).fract() - 0.3).collect()
            };
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let [a, b] = [noise(1), noise(2)];
            let [mut x, mut y] = [a.clone(), b.clone()];
            hadamard(&mut x);
            hadamard(&mut y);
            // Each element is the sum of `order` numbers below 1, each rounded log2(order) <= 8 times to 24 bits.
            let rounding = order as f64 * 8.0 * 6e-8;
            for (got, want) in [(dot(&x, &x), dot(&a, &a)), (dot(&x, &y), dot(&a, &b))] {
                assert!((got - want).abs() < rounding, "{order}: {got} for {want}");
            }
            assert!(order == 1 || x.iter().zip(&a).any(|(x, a)| (x - a).abs() > 0.1), "{order}: nothing has changed");
            hadamard(&mut x);
            assert!(x.iter().zip(&a).all(|(x, a)| f64::from((x - a).abs()) < rounding), "{order}");
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
