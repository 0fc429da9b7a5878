use super::Block;

/// A block layout that values can be quantised to.
pub(crate) trait Encode: Block {
    /// `x` holds `LEN` elements, `block` `BYTES` zeros.
    fn encode(x: &[f32], block: &mut [u8]);
}

pub(crate) fn encode<B: Encode>(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() / B::LEN * B::BYTES];
    for (x, block) in values.chunks_exact(B::LEN).zip(bytes.chunks_exact_mut(B::BYTES)) {
        B::encode(x, block);
    }
    bytes
}
