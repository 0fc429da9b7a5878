//! Attention of rows over one partition: spans outside, rows inside.
use crate::correction_tables::INTERVALS;
use crate::format::{Format, Side};
use crate::kernel::{Kernel, Query};
use crate::key_transform::CorrectionQuery;
use crate::layout::{PARTITION, SPAN, STRIP};
use crate::simd::{CorrectionHead, CorrectionSpan, HeadQuery, Place, QUAD, STRIPS, Span, SpanScratch};
use std::cell::RefCell;

/// How far ahead records are fetched, in spans.
const PREFETCH_SPANS: usize = 2;

/// One row: a query and the tokens of the partition that it sees, `from..to` counted from the partition's first (`from`
/// > 0 under a sliding window).
pub struct Row<'a> {
    /// The row's query heads of the kv head.
    pub query: &'a Query,
    /// The first token that the row sees.
    pub from: usize,
    /// The end of the tokens that it sees.
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
    /// The rows that attend.
    pub rows: &'a [Row<'a>],
}

/// Query heads that are taken through the partition together: their centring states stay in a cache.
const BATCH_HEADS: usize = 128;

/// Memory of a call, kept by the thread.
struct Buffers {
    scratch: SpanScratch,
    /// Strips of a span, K and V: as f32 where a format has no kernel of its own, as integers where it is expanded.
    decoded: [Vec<u8>; 2],
    /// Centring states of a batch's heads, in order.
    states: Vec<[f32; INTERVALS]>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers {
        scratch: SpanScratch::new(),
        decoded: [Vec::new(), Vec::new()],
        states: Vec::new(),
    });
}

impl Kernel {
    /// Attends one partition of one kv head for some rows. `parts`: `[rows][part_len]`, overwritten with the
    /// partition's partial states.
    pub fn attend(&self, job: &Job<'_>, parts: &mut [f32]) {
        attend(self, job, parts);
    }
}

fn attend(kernel: &Kernel, job: &Job<'_>, parts: &mut [f32]) {
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

/// A query head of a batch.
struct Head<'a> {
    query: HeadQuery<'a>,
    /// Tokens of the partition that it sees.
    from: usize,
    to: usize,
    /// Where its state lies in the batch's parts.
    o: usize,
    m: usize,
    l: usize,
    /// Its query among those of the kv head, and its centring state, in `Buffers::states`.
    correction: Option<(&'a CorrectionQuery, usize, usize)>,
}

impl Head<'_> {
    /// What it sees of a span, counted from the span's start.
    #[inline(always)]
    fn visible(&self, span: usize) -> (usize, usize) {
        let start = span * SPAN;
        let clip = |token: usize| token.clamp(start, start + SPAN) - start;
        (clip(self.from), clip(self.to))
    }
}

impl<'a> Batch<'a> {
    fn run(&self, parts: &mut [f32], buffers: &mut Buffers) {
        let heads = self.heads(&mut buffers.states);
        let last = heads.iter().map(|head| head.to).max().unwrap_or(0);
        for span in 0..last.div_ceil(SPAN) {
            self.span(span, &heads, parts, buffers);
        }
    }

    /// The heads of rows that see anything, their centring states prepared.
    fn heads(&self, states: &mut Vec<[f32; INTERVALS]>) -> Vec<Head<'a>> {
        let d = self.kernel.layout().head_dim();
        let mut heads = Vec::with_capacity(self.rows.iter().map(|row| row.query.group).sum());
        let (mut at, mut state) = (0, 0);
        for row in self.rows {
            let (query, group) = (row.query, row.query.group);
            if row.from < row.to {
                let len = query.correction.as_ref().map_or(0, CorrectionQuery::state_len);
                for g in 0..group {
                    let (o, m, l) = (at + g * d, at + group * d + g, at + group * (d + 1) + g);
                    let correction = query.correction.as_ref().map(|query| (query, g, state + g * len));
                    heads.push(Head { query: query.head(g), from: row.from, to: row.to, o, m, l, correction });
                }
                if let Some(correction) = &query.correction {
                    let end = state + group * len;
                    if states.len() < end {
                        states.resize(end, [0.0; INTERVALS]);
                    }
                    self.kernel.steps.prepare(correction, self.job.first_position, &mut states[state..end]);
                    state = end;
                }
            }
            at += self.kernel.part_len(group);
        }
        heads
    }

    fn span(&self, span: usize, heads: &[Head<'_>], parts: &mut [f32], buffers: &mut Buffers) {
        let ranges = heads.iter().map(|head| head.visible(span)).filter(|(from, to)| from < to);
        let Some(range) = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return };
        let Buffers { scratch, decoded: [first, second], states } = buffers;
        let d = self.kernel.layout().head_dim();
        let (mut k, mut v) = (Span::new(d), Span::new(d));
        self.locate(&mut k, span, range, Side::K);
        self.locate(&mut v, span, range, Side::V);
        let seeing = || heads.iter().filter(|head| head.visible(span).0 < head.visible(span).1);
        let mut quad = Quad::new(span, self.job.first_position);
        let alone = seeing().count() <= QUAD;
        self.decode(&mut k, span, range, Side::K, first);
        if !alone {
            self.decode(&mut v, span, range, Side::V, second);
        }
        for head in seeing() {
            let (from, to) = head.visible(span);
            let correction = head.correction.map(|(query, g, at)| {
                let state = &states[at..at + query.state_len()];
                CorrectionHead { query, state, first: query.first[g] }
            });
            quad.push(head.query, Place { from, to, o: head.o, m: head.m, l: head.l }, correction);
            if quad.len == QUAD && !alone {
                quad.weigh(self.kernel, &mut k, &mut v, scratch, parts);
                quad.add(self.kernel, &mut v, scratch, parts);
            }
        }
        if quad.len > 0 {
            quad.weigh(self.kernel, &mut k, &mut v, scratch, parts);
            if alone {
                // The keys are not needed any more: their memory is in the nearest cache.
                self.decode(&mut v, span, range, Side::V, first);
            }
            quad.add(self.kernel, &mut v, scratch, parts);
        }
    }

    /// Finds the strips of one side of a span; `range` is what some head sees of it.
    fn locate(&self, out: &mut Span<'a>, span: usize, range: (usize, usize), side: Side) {
        let layout = self.kernel.layout();
        // Strips of a block are 1 << shift.
        let shift = layout.block_size().trailing_zeros() - STRIP.trailing_zeros();
        let per_span = STRIPS >> shift;
        let (first, last) = (range.0 / STRIP, range.1.div_ceil(STRIP));
        let (code_bytes, scale_bytes) = layout.strip_bytes(side);
        for block in first >> shift..=(last - 1) >> shift {
            let index = span * per_span + block;
            let record = self.job.records[index];
            let ahead = index + PREFETCH_SPANS * per_span;
            let next = || self.job.prefetch.get(ahead.wrapping_sub(self.job.records.len()));
            let ahead = self.job.records.get(ahead).or_else(next).filter(|_| self.prefetch).unwrap_or(&record);
            let (mut codes, mut scales) = layout.planes(side, record);
            let ahead = (ahead.as_ptr().addr() as isize).wrapping_sub(record.as_ptr().addr() as isize);
            for strip in block << shift..(block + 1) << shift {
                (out.strips[strip], codes) = codes.split_at(code_bytes);
                (out.scales[strip], scales) = scales.split_at(scale_bytes);
                out.ahead[strip] = ahead;
            }
        }
    }

    /// Makes of the strips of a side what kernels read, in the memory of `decoded`, where they do not read them as they
    /// are.
    fn decode<'b>(&self, out: &mut Span<'b>, span: usize, range: (usize, usize), side: Side, decoded: &'b mut Vec<u8>)
    where
        'a: 'b,
    {
        let layout = self.kernel.layout();
        let (first, last) = (range.0 / STRIP, range.1.div_ceil(STRIP));
        // Kernels read the codes of these formats expanded to integers of 8 bits.
        if layout.format(side).is_trellis() {
            // A strip's lines of 16 tokens, each integer a byte.
            let lines = layout.head_dim() / 4;
            decoded.resize((STRIPS * lines + 1) * LINE, 0);
            let start = decoded.as_ptr().align_offset(LINE).min(LINE);
            let strips = decoded[start..].as_chunks_mut::<LINE>().0.chunks_exact_mut(lines);
            for (strip, lines) in strips.enumerate().take(last).skip(first) {
                let (codes, ahead) = (out.strips[strip], out.ahead[strip]);
                match side {
                    Side::K => self.kernel.steps.expand_keys(codes, ahead, lines),
                    Side::V => self.kernel.steps.expand_values(codes, ahead, lines),
                }
                out.strips[strip] = lines.as_flattened();
            }
        } else if needs_decoding(layout.format(side)) {
            let shift = layout.block_size().trailing_zeros() - STRIP.trailing_zeros();
            let per_span = STRIPS >> shift;
            let bytes = STRIP * layout.head_dim() * 4;
            decoded.resize(STRIPS * bytes, 0);
            for (strip, decoded) in decoded.chunks_exact_mut(bytes).enumerate().take(last).skip(first) {
                let (record, inner) =
                    (self.job.records[span * per_span + (strip >> shift)], strip & ((1 << shift) - 1));
                let start = strip * STRIP;
                let tokens = (range.0.max(start) - start, range.1.min(start + STRIP) - start);
                self.kernel.steps.decode(layout, record, inner, tokens, side, decoded);
            }
            for (strip, decoded) in decoded.chunks_exact(bytes).enumerate().take(last).skip(first) {
                (out.strips[strip], out.scales[strip], out.ahead[strip]) = (decoded, &[], 0);
            }
        }
    }
}

/// Up to four query heads that a span is multiplied with together.
struct Quad<'a> {
    span: usize,
    /// Position of the partition's first token.
    first_position: usize,
    len: usize,
    heads: [HeadQuery<'a>; QUAD],
    places: [Place; QUAD],
    corrections: [Option<CorrectionHead<'a>>; QUAD],
}

impl<'a> Quad<'a> {
    fn new(span: usize, first_position: usize) -> Self {
        let none = HeadQuery { floats: &[], words: &[], wide: &[], sum: 0, unit: 0.0 };
        Quad {
            span,
            first_position,
            len: 0,
            heads: [none; QUAD],
            places: [Place::default(); QUAD],
            corrections: [None; QUAD],
        }
    }

    fn push(&mut self, head: HeadQuery<'a>, place: Place, correction: Option<CorrectionHead<'a>>) {
        (self.heads[self.len], self.places[self.len], self.corrections[self.len]) = (head, place, correction);
        self.len += 1;
    }

    /// Computes the weights of what the quad's heads see.
    fn weigh(&self, kernel: &Kernel, k: &mut Span<'_>, v: &mut Span<'_>, scratch: &mut SpanScratch, parts: &mut [f32]) {
        let (heads, places) = (&self.heads[..self.len], &self.places[..self.len]);
        let first = places.iter().map(|p| p.from).min().unwrap_or(0) / STRIP;
        let last = places.iter().map(|p| p.to).max().unwrap_or(0).div_ceil(STRIP);
        (k.first, k.last) = (first, last);
        (v.first, v.last) = (first, last);
        let steps = kernel.steps;
        steps.scores(k, heads, &mut scratch.s);
        let (span, heads) = (self.span, &self.corrections[..self.len]);
        let starts_sequence = span == 0 && self.first_position == 0;
        steps.correct(&CorrectionSpan { span, first, last, starts_sequence, heads }, &mut scratch.s);
        steps.softmax(v, places, scratch, parts);
        // What lies ahead has been asked for; a quad's own lines are in the cache already.
        k.ahead = [0; STRIPS];
    }

    /// Adds the weighted values to the heads' states and empties the quad.
    fn add(&mut self, kernel: &Kernel, v: &mut Span<'_>, scratch: &SpanScratch, parts: &mut [f32]) {
        kernel.steps.accumulate(v, &self.places[..self.len], scratch, parts);
        v.ahead = [0; STRIPS];
        self.len = 0;
    }
}

/// Bytes of a line of codes, and of the memory that a processor fetches at once.
const LINE: usize = 64;

/// Whether a format has no kernel of its own.
fn needs_decoding(format: Format) -> bool {
    format.is_rotated() && !format.has_one_scale()
}
