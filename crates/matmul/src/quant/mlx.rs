//! From MLX's tensors to blocks. MLX has the codes of a row as one string of bits, the lowest first, and the scales and
//! biases of its groups in tensors of their own. A block has those of one group in front, then the codes of each 32
//! elements in planes: the lowest 8, 4 or 2 bits of every code, then the bits above, so that a few shifts and masks
//! unpack the codes of many rows.

use crate::WeightType;

/// The bits of planes. A code of some bits has the planes whose bits make up that number; the widest has the lowest
/// bits.
pub(super) const PLANES: [usize; 4] = [8, 4, 2, 1];

/// Elements whose codes lie in planes together.
const PLANE_LEN: usize = 32;

/// Rows as MLX stores them.
#[derive(Debug, Clone, Copy)]
pub struct MlxRows<'a> {
    /// The codes of all elements, the first ones in the lowest bits.
    pub codes: &'a [u8],
    /// The scales of all groups.
    pub scales: &'a [u8],
    /// The biases of all groups; empty for types without.
    pub biases: &'a [u8],
}

/// The bits of a code, and the bytes of the scales and of the biases of a block; `None` for types that MLX has not.
const fn parts(ty: WeightType) -> Option<[usize; 3]> {
    match ty {
        WeightType::Affine(of) => Some([of.bits(), 2, 2]),
        WeightType::Mxfp4 => Some([4, 1, 0]),
        WeightType::Nvfp4 => Some([4, 2, 0]),
        _ => None,
    }
}

/// Writes rows of MLX's as blocks of type `ty` to `blocks`.
///
/// # Panics
/// If MLX has no such type, or if the parts of `rows` are not those of as many elements as `blocks` holds.
pub fn pack_mlx(ty: WeightType, rows: MlxRows<'_>, blocks: &mut [u8]) {
    let Some([bits, scale_bytes, bias_bytes]) = parts(ty) else { panic!("{ty} is no type of MLX's") };
    let (count, code_bytes) = (blocks.len() / ty.block_bytes(), ty.block_len() * bits / 8);
    assert_eq!(blocks.len(), count * ty.block_bytes(), "whole blocks of {ty}");
    let lengths = [rows.codes, rows.scales, rows.biases].map(<[u8]>::len);
    assert_eq!(lengths, [code_bytes, scale_bytes, bias_bytes].map(|bytes| count * bytes), "{count} blocks of {ty}");
    let pack = match bits {
        2 => pack_planes::<2>,
        3 => pack_planes::<3>,
        4 => pack_planes::<4>,
        5 => pack_planes::<5>,
        6 => pack_planes::<6>,
        _ => pack_planes::<8>,
    };
    for (i, block) in blocks.chunks_exact_mut(ty.block_bytes()).enumerate() {
        let (head, planes) = block.split_at_mut(scale_bytes + bias_bytes);
        head[..scale_bytes].copy_from_slice(&rows.scales[i * scale_bytes..][..scale_bytes]);
        head[scale_bytes..].copy_from_slice(&rows.biases[i * bias_bytes..][..bias_bytes]);
        pack(&rows.codes[i * code_bytes..][..code_bytes], planes);
    }
}

/// Brings codes of `BITS` bits from one string of bits to planes, [`PLANE_LEN`] after the other.
fn pack_planes<const BITS: usize>(string: &[u8], planes: &mut [u8]) {
    let bytes = PLANE_LEN * BITS / 8;
    for (string, mut planes) in string.chunks_exact(bytes).zip(planes.chunks_exact_mut(bytes)) {
        if BITS == 8 {
            planes.copy_from_slice(string);
            continue;
        }
        if BITS == 4 {
            // Two bytes of the string, each two neighbours, are the low and the high nibbles of two bytes of the plane.
            let (low, high) = string.split_at(bytes / 2);
            for ((low, high), pair) in low.iter().zip(high).zip(planes.as_chunks_mut::<2>().0) {
                *pair = [low & 15 | high << 4, low >> 4 | high & 0xf0];
            }
            continue;
        }
        let codes = codes_of::<BITS>(string);
        let mut at = 0;
        for width in PLANES.into_iter().filter(|width| BITS & width != 0) {
            let (plane, above) = planes.split_at_mut(4 * width);
            for (b, byte) in plane.iter_mut().enumerate() {
                let bits = |n: usize| (codes[b + 4 * width * n] >> at & low_mask(width)) << (width * n);
                *byte = (0..8 / width).map(bits).fold(0, |byte, bits| byte | bits);
            }
            at += width;
            planes = above;
        }
    }
}

fn low_mask(bits: usize) -> u8 {
    (0xff_u16 >> (8 - bits)) as u8
}

/// Returns the codes in a string of bits: eight codes are `BITS` bytes.
fn codes_of<const BITS: usize>(string: &[u8]) -> [u8; PLANE_LEN] {
    let mut codes = [0; PLANE_LEN];
    for (bytes, codes) in string.chunks_exact(BITS).zip(codes.as_chunks_mut::<8>().0) {
        let mut word = [0; 8];
        word[..BITS].copy_from_slice(bytes);
        let word = u64::from_le_bytes(word);
        for (i, code) in codes.iter_mut().enumerate() {
            *code = (word >> (BITS * i)) as u8 & low_mask(BITS);
        }
    }
    codes
}
