//! Attention of rows over one partition: tiles outside, rows inside.
use crate::format::{Format, Side};
use crate::kernel::{Kernel, Query};
use crate::layout::{RecordLayout, STRIP};
use crate::simd::{CHUNK, HeadQuery, Place, STRIPS, Scratch, Tile, kind_of};
use std::cell::RefCell;

/// Tokens of a partition, counted from the sequence's start: partitions are summed apart and merged in order, whatever the
/// number of threads.
pub const PARTITION: usize = 512;
/// Tokens of a tile, counted from the partition's start: one update of the running maximum, one scale of integer weights.
pub const TILE: usize = 128;

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

/// Memory of a call, kept by the thread.
struct Buffers {
    scratch: Scratch,
    /// f32 strips of a tile whose format has no kernel of its own, K and V.
    decoded: [Vec<u8>; 2],
}

thread_local! {
    static BUFFERS: RefCell<Buffers> =
        RefCell::new(Buffers { scratch: Scratch::new(), decoded: [Vec::new(), Vec::new()] });
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
    let last = job.rows.iter().filter(|row| row.from < row.to).map(|row| row.to).max().unwrap_or(0);
    BUFFERS.with_borrow_mut(|buffers| {
        for tile in 0..last.div_ceil(TILE) {
            attend_tile(kernel, job, tile, parts, buffers);
        }
    });
}

/// The part of `from..to` inside a tile, counted from the tile's start.
fn clip(from: usize, to: usize, tile: usize) -> (usize, usize) {
    let start = tile * TILE;
    (from.clamp(start, start + TILE) - start, to.clamp(start, start + TILE) - start)
}

fn attend_tile(kernel: &Kernel, job: &Job<'_>, tile: usize, parts: &mut [f32], buffers: &mut Buffers) {
    let visible = |row: &Row<'_>| {
        let (from, to) = clip(row.from, row.to, tile);
        (from < to).then_some((from, to))
    };
    let ranges = job.rows.iter().filter_map(visible);
    let Some((from, to)) = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return };
    let Buffers { scratch, decoded: [k_decoded, v_decoded] } = buffers;
    let mut k = side(kernel, job, tile, (from, to), Side::K, k_decoded);
    let mut v = side(kernel, job, tile, (from, to), Side::V, v_decoded);
    let mut chunk = Chunk::new();
    let mut at = 0;
    for row in job.rows {
        let (d, group) = (kernel.layout().head_dim(), row.query.group);
        if let Some((from, to)) = visible(row) {
            for g in 0..group {
                let (m, l) = (at + group * d + g, at + group * (d + 1) + g);
                chunk.push(row.query.head(g), Place { from, to, o: at + g * d, m, l });
                if chunk.len == CHUNK {
                    chunk.run(kernel, &mut k, &mut v, scratch, parts);
                }
            }
        }
        at += kernel.part_len(group);
    }
    chunk.run(kernel, &mut k, &mut v, scratch, parts);
}

/// Query heads that a tile is multiplied with together.
struct Chunk<'a> {
    len: usize,
    heads: [HeadQuery<'a>; CHUNK],
    places: [Place; CHUNK],
}

impl<'a> Chunk<'a> {
    fn new() -> Self {
        let none = HeadQuery { floats: &[], words: &[], wide: &[], sum: 0, unit: 0.0 };
        Chunk { len: 0, heads: [none; CHUNK], places: [Place::default(); CHUNK] }
    }

    fn push(&mut self, head: HeadQuery<'a>, place: Place) {
        (self.heads[self.len], self.places[self.len]) = (head, place);
        self.len += 1;
    }

    /// Attends and empties the chunk.
    fn run(&mut self, kernel: &Kernel, k: &mut Tile<'_>, v: &mut Tile<'_>, scratch: &mut Scratch, parts: &mut [f32]) {
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
        steps.softmax(v, places, scratch, parts);
        steps.accumulate(v, places, scratch, parts);
        // What lies ahead has been asked for; a chunk's own lines are in the cache already.
        (k.ahead, k.ahead_scales) = (k.strips, k.scales);
        (v.ahead, v.ahead_scales) = (v.strips, v.scales);
        self.len = 0;
    }
}

/// The strips of one side of a tile; `range` is what some row sees of it.
fn side<'a>(
    kernel: &Kernel,
    job: &Job<'a>,
    tile: usize,
    range: (usize, usize),
    side: Side,
    decoded: &'a mut Vec<u8>,
) -> Tile<'a> {
    let layout = kernel.layout();
    let strips_per_block = layout.block_size() / STRIP;
    let per_tile = TILE / layout.block_size();
    let mut out = Tile {
        head_dim: layout.head_dim(),
        strips: [&[]; STRIPS],
        scales: [&[]; STRIPS],
        ahead: [&[]; STRIPS],
        ahead_scales: [&[]; STRIPS],
        first: 0,
        last: 0,
    };
    let (first, last) = (range.0 / STRIP, range.1.div_ceil(STRIP));
    let find = |strip: usize| {
        let block = tile * per_tile + strip / strips_per_block;
        (block, strip % strips_per_block)
    };
    for strip in first..last {
        let (block, inner) = find(strip);
        let record = job.records[block];
        (out.strips[strip], out.scales[strip]) = strip_of(layout, side, record, inner);
        // Without a hint of what comes next, the next tile of this partition.
        let ahead = job.prefetch.get(block).or_else(|| job.records.get(block + per_tile)).unwrap_or(&record);
        (out.ahead[strip], out.ahead_scales[strip]) = strip_of(layout, side, ahead, inner);
    }
    if needs_decoding(layout.format(side)) {
        let bytes = STRIP * layout.head_dim() * 4;
        decoded.resize(STRIPS * bytes, 0);
        for (strip, decoded) in decoded.chunks_exact_mut(bytes).enumerate().take(last).skip(first) {
            let (block, inner) = find(strip);
            let tokens = (range.0.max(strip * STRIP) - strip * STRIP, range.1.min((strip + 1) * STRIP) - strip * STRIP);
            kernel.steps().decode(layout, job.records[block], inner, tokens, side, decoded);
        }
        for (strip, decoded) in decoded.chunks_exact(bytes).enumerate().take(last).skip(first) {
            (out.strips[strip], out.scales[strip]) = (decoded, &[]);
        }
    }
    out
}

fn strip_of<'a>(layout: &RecordLayout, side: Side, record: &'a [u8], strip: usize) -> (&'a [u8], &'a [u8]) {
    (&record[layout.codes(side, strip)], &record[layout.scales(side, strip)])
}

/// Whether a format has no kernel of its own.
fn needs_decoding(format: Format) -> bool {
    kind_of(format) == kind_of(Format::F32) && format != Format::F32
}
