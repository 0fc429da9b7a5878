//! The tables of a layer's kv heads, which kernels read.
use super::operands::left_operands;
use super::pairs::{ExactPairs, PAIR_GROUP, exact_groups};
use super::{floats, words};
use turboquant::{KeyTransform, PARTITION};

/// The tables of a layer's kv heads, as bytes, by which kernels centre keys and correct their logits.
#[derive(Clone, Debug)]
pub struct LayerTables {
    /// `[kv head][constant][head_dim]`, in the order of `KeyConstant` of `vectors.h`: what is subtracted from keys, at
    /// position 0 too, the scale and its inverse, the first difference.
    pub key_constants: Vec<u8>,
    /// The approximated pairs, 8 at a time, then the pair groups of each kv head. Entries past the last pair name none.
    pub lists: Vec<u8>,
    /// `[kv head][2 pairs of matrices][high parts, low parts][row][2 RoPE pairs a column]`: left operands of 8x8
    /// products, the cosines in both matrices, then the sines, of the high-frequency pairs at 0 to 31 tokens. Keys
    /// stored as floats have `[pair group]` in place of `[kv head]`, since all kv heads have the same pairs.
    pub high_operands: Vec<u8>,
    /// `[kv head or pair group][72][8]` (cos, sin) of the high-frequency pairs at 64 multiples of 8 tokens, then at 0
    /// to 7 tokens.
    pub high_angles: Vec<u8>,
}

fn constants(key: &KeyTransform) -> impl Iterator<Item = &f32> {
    let of = [key.subtracted(), key.first_mean(), key.scale(), key.inverse_scale(), key.first_difference()];
    of.into_iter().flatten()
}

impl LayerTables {
    /// `keys` has one entry for each kv head, and at least one.
    pub fn new(keys: &[KeyTransform]) -> Self {
        let tables = keys[0].tables();
        let rope = tables.rope();
        let (approximated, groups, lists): (_, Vec<Vec<usize>>, usize) = match exact_groups(keys) {
            Some(_) => {
                let ExactPairs { approximated, high } = ExactPairs::of(rope);
                (approximated, high.chunks(PAIR_GROUP).map(<[usize]>::to_vec).collect(), keys.len())
            }
            None => (tables.approximated().to_vec(), keys.iter().map(|key| key.high_pairs().to_vec()).collect(), 1),
        };
        let eight =
            |group: &[usize]| std::array::from_fn::<_, PAIR_GROUP, _>(|i| group.get(i).map_or(u32::MAX, |p| *p as u32));
        let listed: Vec<u32> = groups.iter().flat_map(|g| eight(g)).collect();
        let at =
            |group: &Vec<usize>, i: usize, tokens| group.get(i).map_or([1.0, 0.0], |pair| rope.cos_sin(*pair, tokens));
        let operands = groups.iter().flat_map(|g| left_operands(4, |pair, token| at(g, pair, token)));
        let tokens = || (0..PARTITION / 8).map(|k| 8 * k).chain(0..8);
        let angles = groups
            .iter()
            .flat_map(|g| tokens().flat_map(move |t| (0..PAIR_GROUP).flat_map(move |i| at(g, i, t).map(|x| x as f32))));
        LayerTables {
            key_constants: floats(keys.iter().flat_map(constants).copied()),
            lists: words(approximated.chunks(PAIR_GROUP).flat_map(eight).chain(listed.repeat(lists))),
            high_operands: words(operands),
            high_angles: floats(angles),
        }
    }
}
