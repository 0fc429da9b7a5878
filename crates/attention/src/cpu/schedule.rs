//! Who computes what: rows in tiles, tiles by kv head, contexts by partition.
//!
//! None of it shows in the result: a partition starts at a multiple of [`PARTITION`] tokens of its sequence and is
//! summed by one kernel call, and partitions are merged in order, by whichever threads.
use super::LayerAngles;
use super::pages::Pages;
use crate::{BatchLayout, LayerGeometry};
use rayon::prelude::*;
use std::ops::Range;
use turboquant::{Job, Kernel, KeyTransform, PARTITION, Query, Row, apply_rope};

/// Rows that share the reading of a page. More would make the partial states outgrow the cache.
const TILE_ROWS: usize = 32;

pub struct Work<'a> {
    pub kernel: &'a Kernel,
    pub transforms: &'a [KeyTransform],
    pub pages: &'a Pages,
    pub geometry: &'a LayerGeometry,
    pub layout: &'a BatchLayout,
    pub angles: LayerAngles<'a>,
}

/// Rows of one sequence and the kv head they attend to.
struct HeadTile {
    seq: usize,
    rows: Range<usize>,
    kv_head: usize,
}

impl Work<'_> {
    /// q (before RoPE), out: `[num_tokens][num_heads][head_dim]`.
    pub fn run(&self, q: &[f32], out: &mut [f32]) {
        let tiles = self.tiles();
        // With few tiles the threads share each one's context; results are the same.
        let few = tiles.len() < 4 * rayon::current_num_threads();
        let results: Vec<Vec<f32>> = tiles.par_iter().map(|tile| self.tile(tile, q, few)).collect();
        let (heads, group) = (self.geometry.num_heads, self.geometry.group());
        let width = group * self.geometry.head_dim;
        for (tile, result) in tiles.iter().zip(results) {
            for (row, values) in tile.rows.clone().zip(result.chunks_exact(width)) {
                let at = row * heads * self.geometry.head_dim + tile.kv_head * width;
                out[at..at + width].copy_from_slice(values);
            }
        }
    }

    fn tiles(&self) -> Vec<HeadTile> {
        let mut tiles = Vec::new();
        for seq in 0..self.layout.num_seqs() {
            let rows = self.layout.rows(seq);
            for start in rows.clone().step_by(TILE_ROWS) {
                let rows = start..(start + TILE_ROWS).min(rows.end);
                tiles.extend((0..self.geometry.kv_heads).map(|kv_head| HeadTile { seq, rows: rows.clone(), kv_head }));
            }
        }
        tiles
    }

    /// Attention of a tile: `[rows][group][head_dim]`.
    fn tile(&self, tile: &HeadTile, q: &[f32], split: bool) -> Vec<f32> {
        let (kernel, d, group) = (self.kernel, self.geometry.head_dim, self.geometry.group());
        let width = group * d;
        let mut heads = vec![0f32; width];
        let queries: Vec<Query> = tile
            .rows
            .clone()
            .map(|row| {
                let at = row * self.geometry.num_heads * d + tile.kv_head * width;
                heads.copy_from_slice(&q[at..][..width]);
                heads.chunks_exact_mut(d).for_each(|head| apply_rope(head, self.angles.row(row)));
                kernel.query(&heads, group, self.geometry.scale, self.transforms.get(tile.kv_head))
            })
            .collect();
        let part_len = kernel.part_len(group);
        let mut total = vec![0f32; queries.len() * part_len];
        total.chunks_exact_mut(part_len).for_each(|part| kernel.reset(part, group));
        let merge = |total: &mut [f32], parts: &[f32]| {
            for (total, part) in total.chunks_exact_mut(part_len).zip(parts.chunks_exact(part_len)) {
                // A row that saw nothing of the partition merges nothing, as if alone. A sum of weights is at least 1
                // else.
                if part[part_len - 1] > 0.0 {
                    kernel.merge(total, part, group);
                }
            }
        };
        let partitions: Vec<_> = self.partitions(tile).collect();
        if split && partitions.len() > 1 {
            // In waves, so that a long context does not need memory for all of its partial states.
            for wave in partitions.chunks(4 * rayon::current_num_threads()) {
                let parts: Vec<_> = wave.par_iter().map(|p| self.partition(tile, &queries, *p)).collect();
                parts.iter().for_each(|parts| merge(&mut total, parts));
            }
        } else {
            partitions.into_iter().for_each(|p| merge(&mut total, &self.partition(tile, &queries, p)));
        }
        let mut out = vec![0f32; queries.len() * width];
        for (part, out) in total.chunks_exact(part_len).zip(out.chunks_exact_mut(width)) {
            kernel.finish(part, group, out);
        }
        out
    }

    /// Tokens that a row sees.
    fn visible(&self, row: usize) -> Range<usize> {
        let end = self.layout.positions[row] as usize + 1;
        self.geometry.sliding_window.map_or(0, |window| end.saturating_sub(window))..end
    }

    /// Partitions that some row of the tile sees, counted from the sequence's start.
    fn partitions(&self, tile: &HeadTile) -> Range<usize> {
        // Both ends grow from row to row.
        let (first, last) = (self.visible(tile.rows.start), self.visible(tile.rows.end - 1));
        first.start / PARTITION..last.end.div_ceil(PARTITION)
    }

    /// The records of a partition that some row of the tile sees; none beyond the last.
    fn records(&self, tile: &HeadTile, partition: usize) -> Vec<&[u8]> {
        let (start, block_size) = (partition * PARTITION, self.kernel.layout().block_size());
        let end = (start + PARTITION).min(self.visible(tile.rows.end - 1).end);
        let blocks =
            self.layout.block_tables[tile.seq].get(start / block_size..end.div_ceil(block_size)).unwrap_or(&[]);
        blocks.iter().map(|b| self.pages.record(*b, tile.kv_head)).collect()
    }

    fn partition(&self, tile: &HeadTile, queries: &[Query], partition: usize) -> Vec<f32> {
        let start = partition * PARTITION;
        let records = self.records(tile, partition);
        // Whoever attends this one goes on to the next, or a neighbour does: either way it will be read soon.
        let prefetch = self.records(tile, partition + 1);
        let rows: Vec<Row<'_>> = tile
            .rows
            .clone()
            .zip(queries)
            .map(|(row, query)| {
                let seen = self.visible(row);
                let inside = |position: usize| position.saturating_sub(start).min(PARTITION);
                Row { query, from: inside(seen.start), to: inside(seen.end) }
            })
            .collect();
        let mut parts = vec![0f32; queries.len() * self.kernel.part_len(self.geometry.group())];
        let job = Job { records: &records, prefetch: &prefetch, first_position: start, rows: &rows };
        self.kernel.attend(&job, &mut parts);
        parts
    }
}
