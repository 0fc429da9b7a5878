//! How a step's attention is cut, so that no dispatch keeps the display waiting.
use super::tiles::Tile;
use crate::shape::Shape;
use std::cmp::Reverse;
use std::ops::Range;

/// A dispatch is split once more than this many of its threadgroups would have nothing to do, because no row of their
/// tile sees their partition. Such a threadgroup costs some 10 ns on an M1; a further dispatch costs 2 us, and waits
/// for the last threadgroup of the one before (docs/kernels-log.md).
const IDLE: usize = 1024;

/// Most bytes that the partial states of one slice may take.
const STATE_BYTES: usize = 64 << 20;

/// Tiles that one kernel attends, which go through query, attention and reduction together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slice {
    /// The tiles, those with most partitions first.
    pub tiles: Vec<Tile>,
    pub rows: Range<usize>,
    /// How attention over the tiles is dispatched.
    pub dispatches: Vec<Dispatch>,
}

impl Slice {
    /// Partitions of the longest tile.
    pub fn partitions(&self) -> usize {
        self.tiles[0].partitions()
    }
}

/// One dispatch: the first `tiles` tiles of a slice attend a run of partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Dispatch {
    pub tiles: usize,
    pub partitions: Range<usize>,
}

/// Cuts a batch's tiles into slices. A slice's partial states take at most [`STATE_BYTES`] (or what one tile takes),
/// and a dispatch takes at most `most_work` lane operations (or what one partition of one tile takes, or the queries of
/// one tile).
pub(crate) fn slices(shape: &Shape, tiles: &[Tile], most_work: u64) -> Vec<Slice> {
    let partitions = tiles.iter().map(Tile::partitions).max().unwrap_or(1);
    let rows = (STATE_BYTES / (shape.heads() * partitions * (shape.head_dim() + 2) * 4)).max(64);
    let (mut slices, mut start) = (Vec::new(), 0);
    while start < tiles.len() {
        let (first, kernel) = (tiles[start].rows.start, tiles[start].kernel);
        let most = |work: u64| usize::try_from(most_work / work).unwrap_or(usize::MAX).max(1);
        let most_partitions = most(shape.kv_heads as u64 * shape.partition_work(kernel));
        let most_tiles = most_partitions.min(most(shape.query_work(kernel, 1, partitions)));
        let fits = |tile: &&Tile| tile.kernel == kernel && tile.rows.end - first <= rows;
        let count = tiles[start..].iter().take(most_tiles).take_while(fits).count().max(1);
        let mut tiles = tiles[start..start + count].to_vec();
        let rows = first..tiles[count - 1].rows.end;
        tiles.sort_by_key(|tile| Reverse(tile.partitions()));
        slices.push(Slice { dispatches: dispatches(shape, &tiles, most_partitions), tiles, rows });
        start += count;
    }
    slices
}

/// The dispatches that cover every (tile, partition) that some row sees, at most `most` of them each. `tiles` are in
/// order of their number of partitions, the largest first.
fn dispatches(shape: &Shape, tiles: &[Tile], most: usize) -> Vec<Dispatch> {
    let all = tiles[0].partitions();
    // For each partition: how many tiles, from the first on, hold all that see it.
    let mut until = vec![0; all];
    for (tile, count) in tiles.iter().zip(1..) {
        until[tile.seen(shape.window)].fill(count);
    }
    let (mut dispatches, mut from) = (Vec::new(), 0);
    while let Some(unseen) = until[from..].iter().position(|tiles| *tiles > 0) {
        from += unseen;
        let (tiles, mut idle, mut end) = (until[from], 0, from);
        for (part, until) in until.iter().enumerate().skip(from).take((most / tiles).max(1)) {
            if *until > tiles {
                break;
            }
            idle += (tiles - until) * shape.kv_heads;
            if idle > IDLE {
                break;
            }
            if *until > 0 {
                end = part + 1;
            }
        }
        dispatches.push(Dispatch { tiles, partitions: from..end });
        from = end;
    }
    dispatches
}

#[cfg(test)]
mod tests {
    use super::*;
    use turboquant::{Format, PARTITION, RecordLayout};

    fn shape(kv_heads: usize, d: usize) -> Shape {
        let record = RecordLayout::new(Format::Tc4, Format::Tc4, d, 32).unwrap();
        Shape { keys_centred: true, ..Shape::new(record, kv_heads, 4) }
    }

    /// Decode steps, chunks of any length, sequences of unlike lengths, and windows. Every partition that some row of a
    /// tile sees is dispatched exactly once. In each dispatch at most `IDLE` threadgroups are idle that a further
    /// dispatch would have avoided, and no dispatch could have been left out without exceeding that or `most_work`. No
    /// slice exceeds `STATE_BYTES`, and no dispatch exceeds `most_work`, but for the exceptions that `slices` names.
    #[expect(clippy::too_many_lines, reason = "to be split")]
    #[test]
    fn slices_cover_all_and_stay_below_the_limit() {
        for (kv_heads, d, rows, position, seqs, window) in [
            (8, 128, 1, 131_000, 64, None),
            (8, 128, 512, 130_560, 1, None),
            (32, 256, 8192, 0, 2, None),
            (2, 64, 3, 100, 5, None),
            (32, 512, 1, 1 << 20, 3, None),
            (8, 64, 1, 131_000, 2, Some(4096)),
            (8, 64, 100, 131_000, 2, Some(4000)),
            (8, 64, 1, 32_000, 16, Some(1024)),
        ] {
            let shape = Shape { window, ..shape(kv_heads, d) };
            let kernel = shape.kernel_of(rows);
            let per_tile = shape.tile_rows(kernel);
            let position = |seq: usize| position * (seq + 1) / seqs;
            let tiles: Vec<Tile> = (0..seqs)
                .flat_map(|seq| (0..rows).step_by(per_tile).map(move |at| (seq * rows + at, at, rows)))
                .map(|(row, at, rows)| Tile {
                    rows: row..row + per_tile.min(rows - at),
                    table: 0,
                    position: position(row / rows) + at,
                    kernel,
                })
                .collect();
            let one = kv_heads as u64 * shape.partition_work(kernel);
            for most_work in [1, 5 * one, 1000 * one, u64::MAX] {
                let mut next = 0;
                for slice in slices(&shape, &tiles, most_work) {
                    assert_eq!(slice.rows.start, next);
                    next = slice.rows.end;
                    let here = &slice.tiles;
                    let mut in_order = here.clone();
                    in_order.sort_by_key(|tile| tile.rows.start);
                    assert!(tiles.windows(here.len()).any(|tiles| tiles == in_order), "other tiles");
                    assert_eq!(in_order[0].rows.start..in_order[here.len() - 1].rows.end, slice.rows);
                    let partitions = here.iter().map(Tile::partitions).max().unwrap();
                    assert_eq!(slice.partitions(), partitions);
                    let mut times = vec![vec![0; partitions]; here.len()];
                    let mut until = vec![0; partitions];
                    for dispatch in &slice.dispatches {
                        assert!(!dispatch.partitions.is_empty());
                        let work = (dispatch.tiles * dispatch.partitions.len()) as u64 * one;
                        assert!(work <= most_work.max(one), "{work} of {most_work}");
                        times[..dispatch.tiles]
                            .iter_mut()
                            .flat_map(|t| &mut t[dispatch.partitions.clone()])
                            .for_each(|t| *t += 1);
                    }
                    for ((tile, times), count) in here.iter().zip(times).zip(1..) {
                        for (part, times) in times.into_iter().enumerate() {
                            let to = (part + 1) * PARTITION;
                            let first = window.map_or(0, |window| (tile.position + 1).saturating_sub(window));
                            let seen = part < tile.partitions() && to > first;
                            assert!(times == 1 || !seen && times == 0, "{times} times {part} of {tile:?}");
                            until[part] = if seen { count } else { until[part] };
                        }
                    }
                    let spared = |tiles: usize, partitions: Range<usize>| -> usize {
                        until[partitions].iter().map(|until| tiles.saturating_sub(*until) * kv_heads).sum()
                    };
                    for dispatch in &slice.dispatches {
                        let idle = spared(dispatch.tiles, dispatch.partitions.clone());
                        assert!(idle <= IDLE, "{idle} of {dispatch:?}");
                    }
                    for pair in slice.dispatches.windows(2) {
                        let (a, b) = (&pair[0], &pair[1]);
                        let whole = (a.tiles * (b.partitions.start + 1 - a.partitions.start)) as u64 * one > most_work;
                        let longer = spared(a.tiles, a.partitions.start..b.partitions.start + 1) > IDLE;
                        assert!(whole || longer || b.tiles > a.tiles, "{b:?} spares nothing of {a:?}");
                    }
                    let work = shape.query_work(kernel, here.len(), partitions);
                    assert!(work <= most_work || here.len() == 1, "{work} of {most_work} for queries");
                    let state = slice.rows.len() * shape.heads() * partitions * (d + 2) * 4;
                    assert!(state <= STATE_BYTES || slice.rows.len() <= 64, "{state} bytes for {:?}", slice.rows);
                }
                assert_eq!(next, seqs * rows);
            }
        }
    }
}
