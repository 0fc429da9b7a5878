//! How a step's attention is cut, so that no dispatch keeps the display waiting.
use crate::plan::Tile;
use crate::scratch::STATE_BYTES;
use crate::shape::{Form, Shape};
use std::ops::Range;

/// Tiles of one form that go through query, attention and reduction together, and the partitions of each dispatch of attention.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slice {
    pub tiles: Range<usize>,
    /// Of the longest tile.
    pub parts: usize,
    pub dispatches: Vec<Range<usize>>,
}

/// Cuts tiles so that the state of a slice's partitions takes [`STATE_BYTES`] at most (or what one tile takes), and a dispatch at most
/// `most_work` lane operations (or what one partition of one tile takes, or one tile's queries).
pub(crate) fn slices(shape: &Shape, tiles: &[Tile], most_work: u64) -> Vec<Slice> {
    let parts = tiles.iter().map(Tile::parts).max().unwrap_or(1);
    let rows = (STATE_BYTES / (shape.heads() * parts * (shape.head_dim() + 2) * 4)).max(64);
    let (mut slices, mut start) = (Vec::new(), 0);
    while start < tiles.len() {
        let (first, form) = (tiles[start].rows.start, tiles[start].form);
        let most = |work: u64| usize::try_from(most_work / work).unwrap_or(usize::MAX).max(1);
        let partitions = most(shape.kv_heads as u64 * shape.partition_work(form));
        let most_tiles = partitions.min(most(shape.query_work(form, 1, parts)));
        let fits = |tile: &&Tile| tile.form == form && tile.rows.end - first <= rows;
        let count = tiles[start..].iter().take(most_tiles).take_while(fits).count().max(1);
        let all = start..start + count;
        let parts = tiles[all.clone()].iter().map(Tile::parts).max().unwrap_or(1);
        let step = (partitions / count).clamp(1, parts);
        let dispatches = (0..parts).step_by(step).map(|from| from..(from + step).min(parts)).collect();
        slices.push(Slice { tiles: all, parts, dispatches });
        start += count;
    }
    slices
}

impl Shape {
    /// Lane operations, about, of the queries of `tiles` tiles: rotated, and where keys are centred each pair of 8 columns taken into
    /// what follows a partition's 16 blocks, in up to 8 terms, by products of cos and of sin in three parts.
    pub(crate) fn query_work(&self, form: Form, tiles: usize, parts: usize) -> u64 {
        let terms = if self.exact_groups.is_some() { 8 } else { 3 };
        let partition = if self.keys_centred { 8 * (self.head_dim() / 2) * (16 * 6 * terms + 20) } else { 0 };
        (tiles * self.kv_heads * self.blocks(form) * (8 * self.head_dim() * 40 + parts * partition)) as u64
    }

    /// Lane operations, about, of one kv head, tile and partition: an element of K or V is decoded in 7, and multiplied with each
    /// column (docs/kernels.md: 15 cycles an element for 8 columns). Centring's products come on top of those with K.
    pub(crate) fn partition_work(&self, form: Form) -> u64 {
        let (columns, steps) = (8 * self.blocks(form), self.head_dim() / 8);
        let missing = match (self.keys_centred, self.exact_groups) {
            (false, _) => 0,
            (true, None) => 7,
            (true, Some(groups)) => 6 * groups + 3,
        };
        let elements = 2 * turboquant::PARTITION * self.head_dim();
        (elements * (7 + columns) + elements * columns * missing / (2 * steps)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use turboquant::{Format, RecordLayout};

    fn shape(kv_heads: usize, d: usize) -> Shape {
        let record = RecordLayout::new(Format::Tq4, Format::Tq4, d, 32).unwrap();
        Shape { keys_centred: true, values_centred: true, ..Shape::new(record, kv_heads, 4) }
    }

    /// Every partition of every tile once, in order, and nothing above the limits, for decode steps and chunks of any length.
    #[test]
    fn slices_cover_all_and_stay_below_the_limit() {
        for (kv_heads, d, rows, position, seqs) in [
            (8, 128, 1, 131_000, 64),
            (8, 128, 512, 130_560, 1),
            (32, 256, 8192, 0, 2),
            (2, 64, 3, 100, 5),
            (32, 512, 1, 1 << 20, 3),
        ] {
            let shape = shape(kv_heads, d);
            let form = shape.form_of(rows);
            let per_tile = shape.tile_rows(form);
            let tiles: Vec<Tile> = (0..seqs)
                .flat_map(|seq| (0..rows).step_by(per_tile).map(move |at| (seq * rows + at, at, rows)))
                .map(|(row, at, rows)| Tile {
                    rows: row..row + per_tile.min(rows - at),
                    table: 0,
                    position: position + at,
                    form,
                })
                .collect();
            let one = kv_heads as u64 * shape.partition_work(form);
            for most_work in [1, 5 * one, 1000 * one, u64::MAX] {
                let mut next = 0;
                for slice in slices(&shape, &tiles, most_work) {
                    assert_eq!(slice.tiles.start, next);
                    next = slice.tiles.end;
                    let here = &tiles[slice.tiles.clone()];
                    assert_eq!(slice.parts, here.iter().map(Tile::parts).max().unwrap());
                    let mut part = 0;
                    for dispatch in &slice.dispatches {
                        assert_eq!(dispatch.start, part);
                        assert!(dispatch.end > part);
                        part = dispatch.end;
                        let work = (here.len() * dispatch.len()) as u64 * one;
                        assert!(work <= most_work.max(one), "{work} of {most_work}");
                    }
                    assert_eq!(part, slice.parts);
                    let work = shape.query_work(form, here.len(), slice.parts);
                    assert!(work <= most_work || here.len() == 1, "{work} of {most_work} for queries");
                    let rows = here[here.len() - 1].rows.end - here[0].rows.start;
                    let state = rows * shape.heads() * slice.parts * (d + 2) * 4;
                    assert!(state <= STATE_BYTES || rows <= 64, "{state} bytes for {rows} rows");
                }
                assert_eq!(next, tiles.len());
            }
        }
    }
}
