//! What a layout needs so that values can be quantised to it.

use half::f16;

use super::BlockLayout;

/// A layout that values can be quantised to.
pub(super) trait Encode: BlockLayout {
    /// Quantises the [`BlockLayout::LEN`] elements of `x` to `block`, which holds [`BlockLayout::BYTES`] zeros.
    fn encode(x: &[f32], block: &mut [u8]);
}

/// A function that quantises the elements of a block to its bytes, which are zeros.
pub(crate) type Encoder = fn(x: &[f32], block: &mut [u8]);

/// Returns the blocks of `values`, a whole number of them; `None` for a layout that values are not quantised to.
pub(crate) fn encode<B: BlockLayout>(values: &[f32]) -> Option<Vec<u8>> {
    let encode = B::ENCODE?;
    let mut bytes = vec![0; values.len() / B::LEN * B::BYTES];
    for (x, block) in values.chunks_exact(B::LEN).zip(bytes.chunks_exact_mut(B::BYTES)) {
        encode(x, block);
    }
    Some(bytes)
}

/// Stores `value` as f16 and returns what was stored.
pub(super) fn put_f16(block: &mut [u8], at: usize, value: f32) -> f32 {
    let half = f16::from_f32(value);
    block[at..at + 2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}
