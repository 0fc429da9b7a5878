//! A step's rows as tiles.
use crate::params::TileParams;
use attention::BatchLayout;
use std::ops::Range;

/// Rows of one sequence that attend together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tile {
    pub rows: Range<usize>,
    /// Where the sequence's blocks start in the list of all.
    pub table: usize,
    /// Of the first row in its sequence.
    pub position: usize,
    /// Whether the row is the only one of its sequence in this step.
    pub single: bool,
}

impl Tile {
    /// Partitions up to the last one that some row sees.
    pub fn parts(&self) -> usize {
        (self.position + self.rows.len()).div_ceil(turboquant::PARTITION)
    }

    pub(crate) fn params(&self, window: Option<usize>, sinks: usize) -> TileParams {
        TileParams {
            row: self.rows.start as u32,
            rows: self.rows.len() as u32,
            table: self.table as u32,
            position: self.position as u32,
            first: window.map_or(0, |window| (self.position + 1).saturating_sub(window)) as u32,
            sinks: sinks as u32,
        }
    }
}

/// Cuts a batch into tiles of at most `rows` rows. Blocks of sequence i lie in the list of all after those of 0..i.
pub fn tiles(layout: &BatchLayout, rows: usize) -> Vec<Tile> {
    let (mut tiles, mut table) = (Vec::new(), 0);
    for seq in 0..layout.num_seqs() {
        let all = layout.rows(seq);
        for start in all.clone().step_by(rows) {
            let rows = start..(start + rows).min(all.end);
            let (position, single) = (layout.positions[start] as usize, all.len() == 1);
            tiles.push(Tile { rows, table, position, single });
        }
        table += layout.block_tables[seq].len();
    }
    tiles
}
