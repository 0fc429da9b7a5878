//! Attention of rows over one partition: tiles outside, rows inside.
use crate::format::{Format, Side};
use crate::kernel::{Kernel, Query};
use crate::layout::{RecordLayout, STRIP};
use crate::rope::BLOCKS;
use crate::simd::{CHUNK, CentreHead, CentreTile, HeadQuery, Place, STRIPS, Scratch, Tile, kind_of};
use std::cell::RefCell;

/// Tokens of a partition, counted from the sequence's start: partitions are summed apart and merged in order, whatever the
/// number of threads.
pub const PARTITION: usize = 512;
/// Tokens of a tile, counted from the partition's start: one update of the running maximum, one scale of integer weights.
pub const TILE: usize = 128;

/// How far ahead records are fetched, in tiles.
const PREFETCH_TILES: usize = 2;

/// One row: a query and the tokens of the partition that it sees, `from..to` counted from the partition's first (`from` > 0
/// under a sliding window).
pub struct Row<'a> {
    pub query: &'a Query,
    pub from: usize,
    pub to: usize,
}

/// One partition of one kv head, for some rows.
pub struct Job<'a> {
    /// The kv head's record of each block, in order.
    pub records: &'a [&'a [u8]],
    /// Records that will be attended next, to be fetched meanwhile; may be empty.
    pub prefetch: &'a [&'a [u8]],
    /// Position in the sequence of the partition's first token.
    pub first_position: usize,
    pub rows: &'a [Row<'a>],
}

/// Query heads that are taken through the partition together: their centring states stay in a cache.
const BATCH_HEADS: usize = 128;

/// Memory of a call, kept by the thread.
struct Buffers {
    scratch: Scratch,
    /// f32 strips of a tile whose format has no kernel of its own, K and V.
    decoded: [Vec<u8>; 2],
    /// Centring states of a batch's heads, in order.
    states: Vec<[f32; BLOCKS]>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers {
        scratch: Scratch::new(),
        decoded: [Vec::new(), Vec::new()],
        states: Vec::new(),
    });
}

pub(crate) fn attend(kernel: &Kernel, job: &Job<'_>, parts: &mut [f32]) {
    let tokens = job.records.len() * kernel.layout().block_size();
    let mut at = 0;
    for row in job.rows {
        assert!(row.to <= tokens && row.to <= PARTITION, "row ends at {} of {tokens} tokens", row.to);
        let len = kernel.part_len(row.query.group);
        kernel.reset(&mut parts[at..at + len], row.query.group);
        at += len;
    }
    BUFFERS.with_borrow_mut(|buffers| {
        let mut at = 0;
        let mut prefetch = true;
        let per_batch = BATCH_HEADS / job.rows.first().map_or(1, |row| row.query.group);
        for rows in job.rows.chunks(per_batch) {
            let batch = Batch { kernel, job, rows, prefetch };
            let len: usize = rows.iter().map(|row| kernel.part_len(row.query.group)).sum();
            batch.run(&mut parts[at..at + len], buffers);
            at += len;
            prefetch = false; // once is enough
        }
    });
}

/// Some rows of a job.
struct Batch<'a> {
    kernel: &'a Kernel,
    job: &'a Job<'a>,
    rows: &'a [Row<'a>],
    prefetch: bool,
}

/// What a row sees of a tile, counted from the tile's start.
fn visible(row: &Row<'_>, tile: usize) -> Option<(usize, usize)> {
    let start = tile * TILE;
    let clip = |token: usize| token.clamp(start, start + TILE) - start;
    let (from, to) = (clip(row.from), clip(row.to));
    (from < to).then_some((from, to))
}

impl<'a> Batch<'a> {
    fn run(&self, parts: &mut [f32], buffers: &mut Buffers) {
        let mut at = 0;
        for row in self.rows {
            let Some(centre) = row.query.centre.as_ref().filter(|_| row.from < row.to) else { continue };
            let end = at + row.query.group * centre.state_len();
            if buffers.states.len() < end {
                buffers.states.resize(end, [0.0; BLOCKS]);
            }
            self.kernel.steps().prepare(centre, self.job.first_position, &mut buffers.states[at..end]);
            at = end;
        }
        let last = self.rows.iter().filter(|row| row.from < row.to).map(|row| row.to).max().unwrap_or(0);
        for tile in 0..last.div_ceil(TILE) {
            self.tile(tile, parts, buffers);
        }
    }

    fn tile(&self, tile: usize, parts: &mut [f32], buffers: &mut Buffers) {
        let ranges = self.rows.iter().filter_map(|row| visible(row, tile));
        let Some(range) = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return };
        let Buffers { scratch, decoded: [k_decoded, v_decoded], states } = buffers;
        let mut sides =
            [self.side(tile, range, Side::K, k_decoded), self.side(tile, range, Side::V, v_decoded)];
        let mut chunk = Chunk::new(tile);
        let (mut at, mut state_at) = (0, 0);
        let d = self.kernel.layout().head_dim();
        for row in self.rows {
            let group = row.query.group;
            let centre = row.query.centre.as_ref().filter(|_| row.from < row.to);
            let state_len = centre.map_or(0, |centre| centre.state_len());
            if let Some((from, to)) = visible(row, tile) {
                for g in 0..group {
                    let (m, l) = (at + group * d + g, at + group * (d + 1) + g);
                    let state = &states[state_at + g * state_len..][..state_len];
                    let centre = centre.map(|query| CentreHead { query, state });
                    chunk.push(row.query.head(g), Place { from, to, o: at + g * d, m, l }, centre);
                    if chunk.len == CHUNK {
                        chunk.run(self.kernel, &mut sides, scratch, parts);
                    }
                }
            }
            at += self.kernel.part_len(group);
            state_at += group * state_len;
        }
        chunk.run(self.kernel, &mut sides, scratch, parts);
    }

    /// The strips of one side of a tile; `range` is what some row sees of it.
    fn side<'b>(&self, tile: usize, range: (usize, usize), side: Side, decoded: &'b mut Vec<u8>) -> Tile<'b>
    where
        'a: 'b,
    {
        let layout = self.kernel.layout();
        let strips_per_block = layout.block_size() / STRIP;
        let per_tile = TILE / layout.block_size();
        let mut out = Tile::new(layout.head_dim());
        let (first, last) = (range.0 / STRIP, range.1.div_ceil(STRIP));
        for strip in first..last {
            let (block, inner) = (tile * per_tile + strip / strips_per_block, strip % strips_per_block);
            let record = self.job.records[block];
            (out.strips[strip], out.scales[strip]) = strip_of(layout, side, record, inner);
            let ahead = block + PREFETCH_TILES * per_tile;
            let next = || self.job.prefetch.get(ahead.wrapping_sub(self.job.records.len()));
            let ahead = self.job.records.get(ahead).or_else(next).filter(|_| self.prefetch).unwrap_or(&record);
            (out.ahead[strip], out.ahead_scales[strip]) = strip_of(layout, side, ahead, inner);
        }
        if needs_decoding(layout.format(side)) {
            let bytes = STRIP * layout.head_dim() * 4;
            decoded.resize(STRIPS * bytes, 0);
            for (strip, decoded) in decoded.chunks_exact_mut(bytes).enumerate().take(last).skip(first) {
                let (block, inner) = (tile * per_tile + strip / strips_per_block, strip % strips_per_block);
                let start = strip * STRIP;
                let tokens = (range.0.max(start) - start, range.1.min(start + STRIP) - start);
                self.kernel.steps().decode(layout, self.job.records[block], inner, tokens, side, decoded);
            }
            for (strip, decoded) in decoded.chunks_exact(bytes).enumerate().take(last).skip(first) {
                (out.strips[strip], out.scales[strip]) = (decoded, &[]);
            }
        }
        out
    }
}

/// Query heads that a tile is multiplied with together.
struct Chunk<'a> {
    tile: usize,
    len: usize,
    heads: [HeadQuery<'a>; CHUNK],
    places: [Place; CHUNK],
    centres: [Option<CentreHead<'a>>; CHUNK],
}

impl<'a> Chunk<'a> {
    fn new(tile: usize) -> Self {
        let none = HeadQuery { floats: &[], words: &[], wide: &[], sum: 0, unit: 0.0 };
        Chunk { tile, len: 0, heads: [none; CHUNK], places: [Place::default(); CHUNK], centres: [None; CHUNK] }
    }

    fn push(&mut self, head: HeadQuery<'a>, place: Place, centre: Option<CentreHead<'a>>) {
        (self.heads[self.len], self.places[self.len], self.centres[self.len]) = (head, place, centre);
        self.len += 1;
    }

    /// Attends and empties the chunk.
    fn run(&mut self, kernel: &Kernel, [k, v]: &mut [Tile<'_>; 2], scratch: &mut Scratch, parts: &mut [f32]) {
        let (heads, places) = (&self.heads[..self.len], &self.places[..self.len]);
        if places.is_empty() {
            return;
        }
        let first = places.iter().map(|p| p.from).min().unwrap_or(0) / STRIP;
        let last = places.iter().map(|p| p.to).max().unwrap_or(0).div_ceil(STRIP);
        (k.first, k.last) = (first, last);
        (v.first, v.last) = (first, last);
        let steps = kernel.steps();
        steps.scores(k, heads, &mut scratch.s);
        steps.centre(&CentreTile { tile: self.tile, first, last, heads: &self.centres[..self.len] }, &mut scratch.s);
        steps.softmax(v, places, scratch, parts);
        steps.accumulate(v, places, scratch, parts);
        // What lies ahead has been asked for; a chunk's own lines are in the cache already.
        (k.ahead, k.ahead_scales) = (k.strips, k.scales);
        (v.ahead, v.ahead_scales) = (v.strips, v.scales);
        self.len = 0;
    }
}

#[inline(always)]
fn strip_of<'a>(layout: &RecordLayout, side: Side, record: &'a [u8], strip: usize) -> (&'a [u8], &'a [u8]) {
    (&record[layout.codes(side, strip)], &record[layout.scales(side, strip)])
}

/// Whether a format has no kernel of its own.
fn needs_decoding(format: Format) -> bool {
    kind_of(format) == kind_of(Format::F32) && format != Format::F32
}
