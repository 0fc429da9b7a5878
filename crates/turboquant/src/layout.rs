//! The bytes of one (block, kv head).
use crate::format::{Format, FormatError, Side};
use std::ops::Range;

/// Tokens of a strip, the unit in which a record's code planes are ordered: one per vector lane.
pub(crate) const STRIP: usize = 16;
/// Tokens of a partition, counted from the sequence's start: partitions are summed apart and merged in order, whatever
/// the number of threads.
pub const PARTITION: usize = 512;
/// Tokens of a span, counted from the partition's start: one update of the running maximum, one scale of integer
/// weights.
pub const SPAN: usize = 128;

/// Layout of a record: K codes, V codes, K scales, V scales of `block_size` tokens of one kv head.
///
/// A page of a layer is one record per kv head, one after the other. A code plane is a sequence of strips of 16 tokens;
/// the order inside a strip is `page`'s. Scales lie by token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordLayout {
    k: Format,
    v: Format,
    head_dim: usize,
    block_size: usize,
    /// Where codes start, and the bytes of a strip of them, for K and for V. They are kept because kernels ask for
    /// every strip.
    codes: [(usize, usize); 2],
    scales: [(usize, usize); 2],
}

impl RecordLayout {
    /// `block_size` (tokens) is 16 or 32.
    pub fn new(k: Format, v: Format, head_dim: usize, block_size: usize) -> Result<Self, FormatError> {
        k.check(Side::K, head_dim)?;
        v.check(Side::V, head_dim)?;
        if block_size != 16 && block_size != 32 {
            return Err(FormatError::BlockSize(block_size));
        }
        let code_bytes = [k, v].map(|format| format.code_bytes(head_dim));
        let scale_bytes = [k, v].map(|format| format.scale_bytes(head_dim));
        let v_codes = block_size * code_bytes[0];
        let k_scales = v_codes + block_size * code_bytes[1];
        let v_scales = k_scales + block_size * scale_bytes[0];
        let strips = |starts: [usize; 2], row_bytes: [usize; 2]| [0, 1].map(|i| (starts[i], STRIP * row_bytes[i]));
        let (codes, scales) = (strips([0, v_codes], code_bytes), strips([k_scales, v_scales], scale_bytes));
        Ok(RecordLayout { k, v, head_dim, block_size, codes, scales })
    }

    /// The format of K.
    pub fn k(&self) -> Format {
        self.k
    }

    /// The format of V.
    pub fn v(&self) -> Format {
        self.v
    }

    /// The format of one side.
    pub fn format(&self, side: Side) -> Format {
        if side == Side::K { self.k } else { self.v }
    }

    /// Elements of a vector.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Tokens of a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Bytes of a record.
    pub fn bytes(&self) -> usize {
        self.block_size * (self.k.row_bytes(self.head_dim) + self.v.row_bytes(self.head_dim))
    }

    /// Bytes of the codes and of the scales of one strip.
    #[inline(always)]
    pub(crate) fn strip_bytes(&self, side: Side) -> (usize, usize) {
        (self.codes[side as usize].1, self.scales[side as usize].1)
    }

    /// The codes and the scales of one side of a record.
    #[inline(always)]
    pub(crate) fn planes<'a>(&self, side: Side, record: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let strips = self.block_size / STRIP;
        let plane = |(start, bytes): (usize, usize)| &record[start..start + strips * bytes];
        (plane(self.codes[side as usize]), plane(self.scales[side as usize]))
    }

    /// Where the codes of strip `strip` of the block lie.
    #[inline(always)]
    pub(crate) fn codes(&self, side: Side, strip: usize) -> Range<usize> {
        let (start, bytes) = self.codes[side as usize];
        start + strip * bytes..start + (strip + 1) * bytes
    }

    /// Where the scales of strip `strip` of the block lie.
    #[inline(always)]
    pub(crate) fn scales(&self, side: Side, strip: usize) -> Range<usize> {
        let (start, bytes) = self.scales[side as usize];
        start + strip * bytes..start + (strip + 1) * bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_tile_the_record() {
        for (k, v) in [(Format::Tc4, Format::Tc3), (Format::Affine5, Format::Lloyd2), (Format::F32, Format::Bf16)] {
            for block_size in [16, 32] {
                let layout = RecordLayout::new(k, v, 80, block_size).unwrap();
                let strips = block_size / STRIP;
                let mut at = 0;
                for scales in [false, true] {
                    for side in [Side::K, Side::V] {
                        for strip in 0..strips {
                            let range = if scales { layout.scales(side, strip) } else { layout.codes(side, strip) };
                            assert_eq!(range.start, at);
                            at = range.end;
                        }
                    }
                }
                assert_eq!(at, layout.bytes());
            }
        }
        assert_eq!(RecordLayout::new(Format::Tc4, Format::Tc4, 128, 64), Err(FormatError::BlockSize(64)));
    }
}
