//! Launches of what surrounds attention in a decode step.
use super::bind;
use super::params::{GateParams, NormParams, Params, RowsParams, TopParams};
use crate::executor::Launch;

/// Candidates that one threadgroup of [`top`] looks through.
pub const TOP_SLICE: usize = 4096;

/// Buffers of [`add_rms_norm`].
#[derive(Debug)]
pub struct NormBuffers<'a, B> {
    /// `[rows][width]`.
    pub x: &'a B,
    /// `[rows][width]`; neither this nor `sum` is bound where nothing is added.
    pub delta: &'a B,
    /// `[rows][width]`: x + delta.
    pub sum: &'a B,
    /// `[width]`.
    pub weight: &'a B,
    /// `[rows][width]`.
    pub out: &'a B,
}

/// sum = x + delta if `add`, else x; out = sum / rms(sum) x weight, of `rows` rows of `width` elements.
pub fn add_rms_norm<'a, B>(
    rows: usize,
    (width, add, eps): (usize, bool, f32),
    buffers: &NormBuffers<'a, B>,
) -> Launch<'a, B> {
    let &NormBuffers { x, delta, sum, weight, out } = buffers;
    let bindings = if add { bind(&[x, delta, weight], &[sum, out]) } else { bind(&[x, weight], &[out]) };
    Launch {
        kernel: if add { "add_rms_norm" } else { "rms_norm" }.to_owned(),
        constants: Vec::new(),
        grid: [rows as u32, 1, 1],
        threads: width.div_ceil(4).next_multiple_of(32).min(1024) as u32,
        params: (bindings.len() as u32, NormParams { width: width as u32, eps }.bytes()),
        bindings,
        work: (20 * rows * width) as u64,
    }
}

/// The factor of [`gate_mul`].
#[derive(Debug, Clone, Copy)]
pub enum Gate {
    /// The SiLU of a gate for each element.
    Silu,
    /// The sigmoid of a gate for each so many elements.
    Sigmoid(usize),
}

/// out = silu(gate) x, or sigmoid(gate) x, of `count` elements. Buffers: the gate, x, out.
pub fn gate_mul<'a, B>(count: usize, by: Gate, [gate, x, out]: [&'a B; 3]) -> Launch<'a, B> {
    let (silu, span) = match by {
        Gate::Silu => (1, 1),
        Gate::Sigmoid(span) => (0, span as u32),
    };
    Launch {
        kernel: "gate_mul".to_owned(),
        constants: Vec::new(),
        grid: [count.div_ceil(256) as u32, 1, 1],
        threads: 256,
        bindings: bind(&[gate, x], &[out]),
        params: (3, GateParams { count: count as u32, silu, span }.bytes()),
        work: (20 * count) as u64,
    }
}

/// out[i] = x[rows[i]], of `count` rows of `width` elements. Buffers: x, f32; the rows' numbers, u32; out.
pub fn gather_rows<'a, B>(count: usize, width: usize, [x, rows, out]: [&'a B; 3]) -> Launch<'a, B> {
    Launch {
        kernel: "gather_rows".to_owned(),
        constants: Vec::new(),
        grid: [width.div_ceil(256) as u32, count as u32, 1],
        threads: 256,
        bindings: bind(&[x, rows], &[out]),
        params: (3, RowsParams { width: width as u32 }.bytes()),
        work: (4 * count * width) as u64,
    }
}

/// Buffers of [`top`].
#[derive(Debug)]
pub struct TopBuffers<'a, B> {
    /// `[rows][width]`.
    pub logits: &'a B,
    /// `[rows][slices][count]`, f32.
    pub slice_values: &'a B,
    /// `[rows][slices][count]`, u32.
    pub slice_indices: &'a B,
    /// `[2][rows][count]`: f32 values, then u32 indices, so that both are downloaded at once.
    pub top: &'a B,
}

/// Slices that [`top`] cuts a row into.
pub fn top_slices(width: usize) -> usize {
    width.div_ceil(TOP_SLICE)
}

/// The `count` largest logits of each row in descending order, of equal ones the lower index first: two launches.
///
/// # Panics
/// If the slices' winners do not fit one threadgroup: `count` beyond `TOP_SLICE / top_slices(width)`, or 0.
pub fn top<'a, B>(rows: usize, width: usize, count: usize, buffers: &TopBuffers<'a, B>) -> [Launch<'a, B>; 2] {
    let &TopBuffers { logits, slice_values, slice_indices, top } = buffers;
    let slices = top_slices(width);
    assert!(count > 0 && count * slices <= TOP_SLICE, "the {count} largest of {width} logits");
    let params = |width: usize| TopParams { width: width as u32, count: count as u32, slice: TOP_SLICE as u32 }.bytes();
    let first = Launch {
        kernel: "top_slices".to_owned(),
        constants: Vec::new(),
        grid: [slices as u32, rows as u32, 1],
        threads: 256,
        bindings: bind(&[logits], &[slice_values, slice_indices]),
        params: (3, params(width)),
        work: (rows * width * (4 + 2 * count)) as u64,
    };
    let mut bindings = bind(&[slice_values, slice_indices], &[top, top]);
    bindings[3].offset = rows * count * 4;
    let second = Launch {
        kernel: "top_rows".to_owned(),
        constants: Vec::new(),
        grid: [1, rows as u32, 1],
        threads: 256,
        bindings,
        params: (4, params(slices * count)),
        work: (rows * TOP_SLICE * (4 + 2 * count)) as u64,
    };
    [first, second]
}
