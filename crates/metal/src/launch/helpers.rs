//! Launches of what surrounds attention in a decode step.
use super::bind;
use crate::executor::{Constant, Launch};
use crate::params::{NormParams, Params, RopeParams, SiluParams, TopParams};
use crate::shape::Element;

/// Candidates that one threadgroup of [`top`] looks through.
pub const TOP_SLICE: usize = 4096;

/// residual += x (unless `add` is false), out = residual / rms(residual) x weight, of `rows` rows of `width` elements.
pub fn add_rms_norm<'a, B>(
    element: Element,
    rows: usize,
    (width, add, eps): (usize, bool, f32),
    [x, weight, residual, out]: [&'a B; 4],
) -> Launch<'a, B> {
    Launch {
        kernel: format!("add_rms_norm_{}", element.name()),
        constants: Vec::new(),
        grid: [rows as u32, 1, 1],
        threads: width.div_ceil(4).next_multiple_of(32).min(1024) as u32,
        bindings: bind(&[x, weight], &[residual, out]),
        params: (4, NormParams { width: width as u32, add: u32::from(add), eps }.bytes()),
    }
}

/// out = silu(gate) x up, of `count` elements.
pub fn silu_mul<'a, B>(element: Element, count: usize, [gate, up, out]: [&'a B; 3]) -> Launch<'a, B> {
    Launch {
        kernel: format!("silu_mul_{}", element.name()),
        constants: Vec::new(),
        grid: [count.div_ceil(256) as u32, 1, 1],
        threads: 256,
        bindings: bind(&[gate, up], &[out]),
        params: (3, SiluParams { count: count as u32 }.bytes()),
    }
}

/// Buffers of [`rope`].
#[derive(Debug)]
pub struct RopeBuffers<'a, B> {
    pub positions: &'a B,
    /// Of [`crate::RopeTables`].
    pub starts: &'a B,
    pub offsets: &'a B,
    pub q: &'a B,
    pub k: &'a B,
}

/// Turns q and k in place.
pub fn rope<'a, B>(
    element: Element,
    interleaved: bool,
    params: RopeParams,
    buffers: &RopeBuffers<'a, B>,
) -> Launch<'a, B> {
    let &RopeBuffers { positions, starts, offsets, q, k } = buffers;
    let pairs = params.tokens * (params.heads + params.kv_heads) * params.pairs;
    Launch {
        kernel: format!("rope_{}", element.name()),
        constants: vec![Constant::Bool(5, interleaved)],
        grid: [pairs.div_ceil(256), 1, 1],
        threads: 256,
        bindings: bind(&[positions, starts, offsets], &[q, k]),
        params: (5, params.bytes()),
    }
}

/// Buffers of [`top`].
#[derive(Debug)]
pub struct TopBuffers<'a, B> {
    /// `[rows][width]`.
    pub logits: &'a B,
    /// `[rows][slices][count]`, f32 and u32.
    pub slice_values: &'a B,
    pub slice_indices: &'a B,
    /// `[rows][count]`.
    pub values: &'a B,
    pub indices: &'a B,
}

/// Slices that [`top`] cuts a row into.
pub fn top_slices(width: usize) -> usize {
    width.div_ceil(TOP_SLICE)
}

/// The `count` largest logits of each row in descending order, of equal ones the lower index first: two launches.
///
/// # Panics
/// If the slices' winners do not fit one threadgroup: `count` beyond `TOP_SLICE / top_slices(width)`, or 0.
pub fn top<'a, B>(
    element: Element,
    rows: usize,
    width: usize,
    count: usize,
    buffers: &TopBuffers<'a, B>,
) -> [Launch<'a, B>; 2] {
    let &TopBuffers { logits, slice_values, slice_indices, values, indices } = buffers;
    let slices = top_slices(width);
    assert!(count > 0 && count * slices <= TOP_SLICE, "the {count} largest of {width} logits");
    let params = |width: usize| TopParams { width: width as u32, count: count as u32, slice: TOP_SLICE as u32 }.bytes();
    let first = Launch {
        kernel: format!("top_slices_{}", element.name()),
        constants: Vec::new(),
        grid: [slices as u32, rows as u32, 1],
        threads: 256,
        bindings: bind(&[logits], &[slice_values, slice_indices]),
        params: (3, params(width)),
    };
    let second = Launch {
        kernel: "top_rows".to_owned(),
        constants: Vec::new(),
        grid: [1, rows as u32, 1],
        threads: 256,
        bindings: bind(&[slice_values, slice_indices], &[values, indices]),
        params: (4, params(slices * count)),
    };
    [first, second]
}
