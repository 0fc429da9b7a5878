//! Launches of mixtures of experts.
use super::bind;
use super::params::{GroupParams, PackRoutedParams, Params, RouteParams, SumExpertsParams};
use super::products::{GROUP, operand_bytes};
use crate::executor::Launch;

/// The most experts of a layer, and the most that a row goes through: `kMostExperts` of `route.metal`, and lanes of a
/// simdgroup.
pub(crate) const MOST_EXPERTS: usize = 1024;
/// See [`MOST_EXPERTS`].
pub(crate) const MOST_CHOICES: usize = 32;

/// Choices that are in threadgroup memory at once: `kStaged` of `route.metal`.
const STAGED: usize = 1024;

/// How many routed rows a step has, and how much room they take. A routed row is a row together with one of its
/// experts. On the GPU they are sorted by expert, and each expert's begin a new tile, so that some places stay empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutedRowsLayout {
    /// Rows.
    pub rows: usize,
    /// Experts of each row.
    pub choices: usize,
    /// Experts of the layer.
    pub experts: usize,
    /// Places of a tile.
    pub tile: usize,
    /// The most tiles that the routed rows take, whichever experts are chosen.
    pub tiles: usize,
}

impl RoutedRowsLayout {
    /// Returns the layout for `rows` rows, each of which goes through `choices` of `experts` experts. A tile has 32
    /// places where an expert has as many rows on average, so that at most as many places are empty as are not, and
    /// else 8. There are no more sizes, since each has a kernel of its own, which is to be compiled before a step needs
    /// it.
    pub fn new(rows: usize, choices: usize, experts: usize) -> Self {
        let routed = rows * choices;
        let tile = if routed / experts.max(1) < 32 { 8 } else { 32 };
        // At worst every expert that there is a routed row for has one in its last tile.
        let begun = routed.min(experts);
        RoutedRowsLayout { rows, choices, experts, tile, tiles: begun + (routed - begun) / tile }
    }

    /// Places of all tiles.
    pub fn places(&self) -> usize {
        self.tiles * self.tile
    }

    /// Bytes of the operand of all places, of `k` elements each, and of the sums beside it.
    pub fn operand_bytes(&self, k: usize) -> [usize; 2] {
        operand_bytes(self.places(), k)
    }
}

/// Chooses the experts of each row by the router's logits, and their weights: a softmax over all experts, scaled to a
/// sum of 1 over the chosen ones where `normalized`. Of equal logits, the expert of the lower number is chosen.
/// Buffers: logits, `[rows][experts]` f32; the chosen, `[rows][choices]` u32 in ascending order, their weights, f32.
pub fn route<'a, B>(
    routed: &RoutedRowsLayout,
    normalized: bool,
    [logits, chosen, weights]: [&'a B; 3],
) -> Launch<'a, B> {
    let &RoutedRowsLayout { rows, experts, choices, .. } = routed;
    let params = RouteParams {
        rows: rows as u32,
        experts: experts as u32,
        choices: choices as u32,
        normalized: u32::from(normalized),
    };
    Launch {
        kernel: "route".to_owned(),
        constants: Vec::new(),
        grid: [rows.div_ceil(4) as u32, 1, 1],
        threads: 128,
        bindings: bind(&[logits], &[chosen, weights]),
        params: (3, params.bytes()),
        work: (rows * choices * 8 * (experts + 32)) as u64,
    }
}

/// Buffers of [`group_by_expert`].
#[derive(Debug)]
pub struct GroupBuffers<'a, B> {
    /// `[rows][choices]`, u32.
    pub chosen: &'a B,
    /// `[tiles]`, u32.
    pub expert_of_tile: &'a B,
    /// `[tiles][tile]`, u32.
    pub row_of_place: &'a B,
    /// `[rows][choices]`, u32: the place of each routed row.
    pub places: &'a B,
}

/// Sorts routed rows by expert. Tiles that no expert takes have the expert `u32::MAX`, and are not written otherwise;
/// empty places of other tiles have the row `u32::MAX`.
pub fn group_by_expert<'a, B>(routed: &RoutedRowsLayout, buffers: &GroupBuffers<'a, B>) -> Launch<'a, B> {
    let &GroupBuffers { chosen, expert_of_tile, row_of_place, places } = buffers;
    let params = GroupParams {
        rows: routed.rows as u32,
        choices: routed.choices as u32,
        staged: (STAGED / routed.choices) as u32,
        tile_shift: routed.tile.ilog2(),
        tiles: routed.tiles as u32,
    };
    let threads = routed.experts.next_multiple_of(32);
    Launch {
        kernel: "group_by_expert".to_owned(),
        constants: Vec::new(),
        grid: [1, 1, 1],
        threads: threads as u32,
        bindings: bind(&[chosen], &[expert_of_tile, row_of_place, places]),
        params: (4, params.bytes()),
        work: (threads * (8 * routed.rows * routed.choices + threads)) as u64,
    }
}

/// Makes the operand of all places. `gathered`: a place has the row of x that is routed there, else the row of x with
/// the place's number. Buffers: x, `[..][k]` f32; the experts of tiles and the rows of places as in [`GroupBuffers`];
/// the operand and its sums, of [`RoutedRowsLayout::operand_bytes`].
pub fn pack_routed<'a, B>(
    routed: &RoutedRowsLayout,
    (k, gathered): (usize, bool),
    [x, expert_of_tile, row_of_place, operand, sums]: [&'a B; 5],
) -> Launch<'a, B> {
    let groups = k.div_ceil(GROUP);
    let params = PackRoutedParams {
        width: k as u32,
        groups: groups as u32,
        octet_shift: (routed.tile / 8).ilog2(),
        gathered: u32::from(gathered),
    };
    Launch {
        kernel: "pack_routed".to_owned(),
        constants: Vec::new(),
        grid: [groups.div_ceil(4) as u32, (routed.places() / 8) as u32, 1],
        threads: 128,
        bindings: bind(&[x, expert_of_tile, row_of_place], &[operand, sums]),
        params: (5, params.bytes()),
        work: (routed.places() * k) as u64,
    }
}

/// Sums the outputs of each row's experts by their weights. Buffers: x, `[places][width]` f32; weights and places as
/// [`route`] and [`group_by_expert`] give them; out, `[rows][width]`.
pub fn sum_experts<'a, B>(
    routed: &RoutedRowsLayout,
    width: usize,
    [x, weights, places, out]: [&'a B; 4],
) -> Launch<'a, B> {
    let params = SumExpertsParams { width: width as u32, choices: routed.choices as u32 };
    Launch {
        kernel: "sum_experts".to_owned(),
        constants: Vec::new(),
        grid: [width.div_ceil(256) as u32, routed.rows as u32, 1],
        threads: 256,
        bindings: bind(&[x, weights, places], &[out]),
        params: (4, params.bytes()),
        work: (4 * routed.rows * routed.choices * width) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_choice_of_experts_takes_more_tiles() {
        for (rows, choices, experts) in [(1, 2, 8), (5, 8, 8), (70, 3, 16), (512, 8, 128), (300, 8, 8), (3, 1, 1)] {
            let routed = RoutedRowsLayout::new(rows, choices, experts);
            // As many experts as can be have one routed row in their last tile.
            let all = rows * choices;
            let mut counts = vec![0; experts];
            (0..all.min(experts)).for_each(|i| counts[i] += 1);
            counts[0] += all - all.min(experts);
            let tiles: usize = counts.iter().map(|count: &usize| count.div_ceil(routed.tile)).sum();
            assert!(tiles <= routed.tiles, "{routed:?}: {tiles}");
            assert!(routed.places() <= (2 * all + 7 * experts).min(8 * all), "{routed:?}");
        }
    }

    #[test]
    fn sizes_are_those_of_the_kernels() {
        let text = crate::source::library(None, &[]);
        assert!(text.contains(&format!("kStaged = {STAGED}, kMostExperts = {MOST_EXPERTS} }};")));
    }
}
