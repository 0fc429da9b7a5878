//! Launches that change the cache.
use super::bind;
use super::params::{CopyParams, Params, WriteParams};
use crate::executor::Launch;
use crate::shape::Shape;
use turboquant::Format;

/// Buffers of [`write()`].
#[derive(Debug)]
pub struct WriteBuffers<'a, B> {
    /// `[tokens][kv_heads][head_dim]`, K before RoPE.
    pub k: &'a B,
    /// `[tokens][kv_heads][head_dim]`.
    pub v: &'a B,
    /// Block x block size + offset, of each token.
    pub slots: &'a B,
    /// `[tokens][pairs]` (cos, sin), times RoPE's attention factor; not read for a layer without RoPE.
    pub angles: &'a B,
    /// Sign words, then Paley rows.
    pub rotation: &'a B,
    /// [`crate::LayerTables::key_constants`]; not read unless keys are centred, nor are the positions.
    pub key_constants: &'a B,
    /// The position of each token in its sequence.
    pub positions: &'a B,
    /// The layer's pages.
    pub cache: &'a B,
}

/// Stores the K and V of `tokens` tokens. A simdgroup a (token, kv head, K or V), as many a threadgroup as have room in
/// its memory.
pub fn write<'a, B>(shape: &Shape, tokens: usize, buffers: &WriteBuffers<'a, B>) -> Launch<'a, B> {
    let &WriteBuffers { k, v, slots, angles, rotation, key_constants, positions, cache } = buffers;
    let params = WriteParams { tokens: tokens as u32, pairs: shape.pairs as u32, norm: shape.norm() };
    let writers = writers(shape.head_dim());
    // A vector takes centring, rotation and a search in a codebook, or the Viterbi algorithm by all lanes.
    let path = |format: Format| if format.is_trellis() { 32 * 50 * (shape.head_dim() + 16) } else { 0 };
    let vectors = 120 * shape.head_dim() + path(shape.record.k()) + path(shape.record.v());
    Launch {
        kernel: format!("write_d{}", shape.head_dim()),
        constants: shape.constants(),
        grid: [(2 * tokens * shape.kv_heads).div_ceil(writers) as u32, 1, 1],
        threads: 32 * writers as u32,
        bindings: bind(&[k, v, slots, angles, rotation, key_constants, positions], &[cache]),
        params: (8, params.bytes()),
        work: (tokens * shape.kv_heads * vectors) as u64,
    }
}

/// Simdgroups of a threadgroup of `write`, whose vectors share its memory.
fn writers(head_dim: usize) -> usize {
    if head_dim <= 256 { 4 } else { 2 }
}

/// Copies whole blocks of `bytes` bytes, a multiple of 16, from one place of a layer's memory to another; none of the
/// `count` copies may depend on another. `copies`: (from, to) block numbers, u32.
pub fn copy_blocks<'a, B>(bytes: usize, count: usize, copies: &'a B, memory: &'a B) -> Launch<'a, B> {
    let words = bytes / 16;
    Launch {
        kernel: "copy_blocks".to_owned(),
        constants: Vec::new(),
        grid: [words.div_ceil(256).min(64) as u32, count as u32, 1],
        threads: 256,
        bindings: bind(&[copies], &[memory]),
        params: (2, CopyParams { words: words as u32 }.bytes()),
        work: (8 * words * count) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_has_as_many_simdgroups_as_the_kernel_takes_for_granted() {
        let text = crate::source::library(None, &[]);
        assert!(text.contains("constexpr uint kWriters = D <= 256 ? 4 : 2;"));
        assert_eq!([64, 256, 512].map(writers), [4, 4, 2]);
    }
}
