//! Launches of gated delta nets.
use super::bind;
use super::params::{ConvolveParams, DeltaParams, Params};
use crate::executor::Launch;
use compute::{DeltaNetSizes, HeadOrder};

/// The largest `value_dim`: `kMostValues` of `delta_rule.metal`.
pub(crate) const MOST_VALUES: usize = 128;

/// Columns of a state that a simdgroup holds: `kSimdColumns` of `delta_rule.metal`.
pub(crate) const SIMD_COLUMNS: usize = 8;

/// The sizes `key_dim` for which `delta_rule` is instantiated.
pub(crate) const KEY_DIMS: [usize; 3] = [32, 64, 128];

/// Buffers of [`convolve`].
#[derive(Debug)]
pub struct ConvolveBuffers<'a, B> {
    /// `[rows][channels]`.
    pub x: &'a B,
    /// `[conv_kernel][channels]`, the oldest token first.
    pub weight: &'a B,
    /// `[rows]`, u32: the sequence of each row, as the next has them.
    pub sequence_of_row: &'a B,
    /// `[sequences][4]`, u32: the first row, how many rows, the state slot, 1 where the sequence starts.
    pub sequences: &'a B,
    /// `[slots][state_len]`.
    pub states: &'a B,
    /// `[rows][channels]`.
    pub out: &'a B,
}

/// The causal convolution of `rows` rows, and SiLU.
pub fn convolve<'a, B>(sizes: &DeltaNetSizes, rows: usize, buffers: &ConvolveBuffers<'a, B>) -> Launch<'a, B> {
    let &ConvolveBuffers { x, weight, sequence_of_row, sequences, states, out } = buffers;
    let params = ConvolveParams {
        channels: sizes.channels() as u32,
        kept: (sizes.conv_kernel - 1) as u32,
        state_len: sizes.state_len() as u32,
    };
    Launch {
        kernel: "convolve".to_owned(),
        constants: Vec::new(),
        grid: [sizes.channels().div_ceil(256) as u32, rows as u32, 1],
        threads: 256,
        bindings: bind(&[x, weight, sequence_of_row, sequences, states], &[out]),
        params: (6, params.bytes()),
        work: (rows * sizes.channels() * (20 + 4 * sizes.conv_kernel)) as u64,
    }
}

/// Buffers of [`delta_rule`].
#[derive(Debug)]
pub struct DeltaBuffers<'a, B> {
    /// `[rows][channels]`: the inputs of the convolution.
    pub x: &'a B,
    /// `[rows][channels]`: what it gave.
    pub mixed: &'a B,
    /// `[rows][value_heads][value_dim]`.
    pub z: &'a B,
    /// `[rows][value_heads]`.
    pub b: &'a B,
    /// `[rows][value_heads]`.
    pub a: &'a B,
    /// `[value_heads][2]`: exp(A_log) and dt_bias.
    pub decay: &'a B,
    /// `[value_dim]`.
    pub norm: &'a B,
    /// As in [`ConvolveBuffers`].
    pub sequences: &'a B,
    /// `[slots][state_len]`; those of the sequences become what their last tokens leave.
    pub states: &'a B,
    /// `[rows][value_heads][value_dim]`.
    pub out: &'a B,
}

/// The recurrence of `rows` rows of `sequences` sequences, and the gated norm. `eps`: what norms add to a mean square.
pub fn delta_rule<'a, B>(
    sizes: &DeltaNetSizes,
    eps: f32,
    (rows, sequences): (usize, usize),
    buffers: &DeltaBuffers<'a, B>,
) -> Launch<'a, B> {
    let &DeltaBuffers { x, mixed, z, b, a, decay, norm, sequences: of_step, states, out } = buffers;
    let (group, tiled) = (sizes.value_heads / sizes.key_heads, sizes.order == HeadOrder::Tiled);
    let params = DeltaParams {
        key_heads: sizes.key_heads as u32,
        group: group as u32,
        // A value head's number is a sum of the key head's and of its own within the group, each times its stride.
        key_stride: if tiled { 1 } else { group as u32 },
        value_stride: if tiled { sizes.key_heads as u32 } else { 1 },
        value_dim: sizes.value_dim as u32,
        kept: (sizes.conv_kernel - 1) as u32,
        state_len: sizes.state_len() as u32,
        length: 1.0 / (sizes.key_dim as f32).sqrt(),
        eps,
    };
    Launch {
        kernel: format!("delta_rule_k{}", sizes.key_dim),
        constants: Vec::new(),
        grid: [group as u32, sizes.key_heads as u32, sequences as u32],
        threads: (32 * sizes.value_dim / SIMD_COLUMNS) as u32,
        bindings: bind(&[x, mixed, z, b, a, decay, norm, of_step], &[states, out]),
        params: (10, params.bytes()),
        // An element of the state takes 2 products and 2 sums a token, and is read and written once.
        work: ((8 * rows + 8 * sequences) * sizes.value_heads * sizes.key_dim * sizes.value_dim) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_kernel() {
        let text = crate::source::library(None, &[]);
        assert!(text.contains(&format!("kMostValues = {MOST_VALUES}, kSimdColumns = {SIMD_COLUMNS} }};")));
        let instances = KEY_DIMS.iter().filter(|dim| text.contains(&format!("DELTA_RULE({dim})")));
        assert_eq!(instances.count(), text.matches("\nDELTA_RULE(").count());
    }
}
