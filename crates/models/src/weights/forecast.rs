//! What the weights of a checkpoint will take once they are loaded, by its headers alone.
use super::quantize::{WeightQuant, kind_that_fits};
use crate::checkpoint::{Entry, Tensors};
use matmul::WeightType;

/// Bytes of a model's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WeightBytes {
    /// Weights that stay in their mapped files; their pages come into memory as they are read.
    pub mapped: u64,
    /// Weights that are made at load.
    pub owned: u64,
}

/// The bytes of all tensors of a checkpoint once they are loaded: quantised ones are made, MLX's among them, and those
/// whose rows are put in another order, and so are vectors, as f32. Tensors that the model does not use count as
/// mapped.
pub(crate) fn loaded_bytes(tensors: &Tensors, quant: Option<WeightQuant>, is_mapped: bool) -> WeightBytes {
    let mut bytes = WeightBytes::default();
    for (name, entry) in tensors {
        let stored = entry.range.len() as u64;
        match made_bytes(name, entry, quant) {
            Some(made) => bytes.owned += made,
            None if is_mapped => bytes.mapped += stored,
            None => bytes.owned += stored,
        }
    }
    bytes
}

/// How the names of matrices end that layers load by `Weights::exact_matrix`.
const EXACT: [&str; 4] = [
    ".mlp.gate.weight",
    ".mlp.shared_expert_gate.weight",
    ".linear_attn.in_proj_a.weight",
    ".linear_attn.in_proj_b.weight",
];

/// The bytes of what is made of a tensor; `None` where it stays as it is stored.
fn made_bytes(name: &str, entry: &Entry, quant: Option<WeightQuant>) -> Option<u64> {
    let [n, k] = entry.shape[..] else {
        return Some((entry.shape.iter().product::<usize>() * size_of::<f32>()) as u64);
    };
    let kind = *entry.kind.as_ref().ok()?;
    let is_exact = EXACT.iter().any(|end| name.ends_with(end));
    let wanted = quant.map(|quant| match name.contains("embed_tokens") || name.contains("lm_head") {
        true => quant.vocabulary(),
        false => quant.projection(),
    });
    let quantised = wanted.and_then(|wanted| kind_that_fits(kind, wanted, k));
    let made = match entry.groups.is_some() {
        true if is_exact => Some(WeightType::F32),
        true => Some(quantised.unwrap_or(kind)),
        false => quantised,
    };
    let reordered = entry.interleaved_heads.map(|_| entry.range.len() as u64);
    made.and_then(|kind| kind.row_bytes(k)).map(|row| (n * row) as u64).or(reordered)
}
