//! How a batch's rows are cut into tiles.
use crate::launch::TileParams;
use crate::shape::{AttendKernel, Shape};
use attention::BatchLayout;
use std::ops::Range;
use turboquant::PARTITION;

/// Rows of one sequence that share one reading of the cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tile {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Where the sequence's blocks start in the list of all sequences' blocks.
    pub table: usize,
    /// The first row's position in its sequence.
    pub position: usize,
    /// The kernel that attends them.
    pub kernel: AttendKernel,
}

impl Tile {
    /// Partitions up to the last one that some row sees.
    pub fn partitions(&self) -> usize {
        (self.position + self.rows.len()).div_ceil(PARTITION)
    }

    /// The first position that some row sees.
    fn first(&self, window: Option<usize>) -> usize {
        window.map_or(0, |window| (self.position + 1).saturating_sub(window))
    }

    /// Partitions of which some row sees tokens.
    pub(crate) fn seen(&self, window: Option<usize>) -> Range<usize> {
        self.first(window) / PARTITION..self.partitions()
    }

    /// The tile as kernels read it.
    pub fn params(&self, window: Option<usize>) -> TileParams {
        TileParams {
            row: self.rows.start as u32,
            rows: self.rows.len() as u32,
            table: self.table as u32,
            position: self.position as u32,
            first: self.first(window) as u32,
            unused: 0,
        }
    }
}

/// Cuts a batch into tiles. The blocks of sequence i lie in the list of all blocks after those of the sequences before
/// it.
pub fn tiles(shape: &Shape, layout: &BatchLayout) -> Vec<Tile> {
    let (mut tiles, mut table) = (Vec::new(), 0);
    for seq in 0..layout.num_seqs() {
        let all = layout.rows(seq);
        let kernel = shape.kernel_of(all.len());
        let most = shape.tile_rows(kernel);
        for start in all.clone().step_by(most) {
            let (rows, position) = (start..(start + most).min(all.end), layout.positions[start] as usize);
            tiles.push(Tile { rows, table, position, kernel });
        }
        table += layout.block_tables[seq].len();
    }
    tiles
}
