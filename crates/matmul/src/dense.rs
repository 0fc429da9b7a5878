//! Products with f32, f16 and bf16 weights: how the work is cut, not how it is summed.

use rayon::prelude::*;

use crate::weight::Element;
use crate::{Isa, Weight, simd};

/// Multiply-adds below which a product runs on the caller's thread: waking another costs more.
pub(crate) const SERIAL_BELOW: usize = 1 << 18;

/// Chunks of `n` for each thread, so that a thread that starts late does not hold up the rest.
pub(crate) const CHUNKS_PER_THREAD: usize = 4;

/// Chunk sizes are multiples of this, so that only the last chunk meets a partial tile.
const CHUNK_ALIGN: usize = 24;

pub(crate) fn matmul<E: Element>(isa: Isa, x: &[f32], w: Weight<'_>, out: &mut [f32]) {
    let (n, k) = (w.n(), w.k());
    let x = &simd::Arranged::new(isa, x, k);
    let threads = rayon::current_num_threads();
    if threads == 1 || out.len() * k < SERIAL_BELOW {
        let mut rows: Vec<&mut [f32]> = out.chunks_exact_mut(n).collect();
        return simd::dots::<E>(isa, x, w.bytes(), &mut rows);
    }
    let chunk = n.div_ceil(threads * CHUNKS_PER_THREAD).next_multiple_of(CHUNK_ALIGN);
    split_columns(out, n, chunk).into_par_iter().enumerate().for_each(|(c, mut rows)| {
        let w = w.rows(c * chunk, c * chunk + rows[0].len());
        simd::dots::<E>(isa, x, w.bytes(), &mut rows);
    });
}

/// The rows of `out` cut every `chunk` columns: element c holds columns `c * chunk..` of every row.
pub(crate) fn split_columns(out: &mut [f32], n: usize, chunk: usize) -> Vec<Vec<&mut [f32]>> {
    let m = out.len() / n;
    let mut columns: Vec<_> = (0..n.div_ceil(chunk)).map(|_| Vec::with_capacity(m)).collect();
    for row in out.chunks_exact_mut(n) {
        for (column, part) in columns.iter_mut().zip(row.chunks_mut(chunk)) {
            column.push(part);
        }
    }
    columns
}

/// The elements of a row.
pub(crate) fn dequantize<E: Element>(bytes: &[u8], out: &mut [f32]) {
    for (to, from) in out.iter_mut().zip(bytes.chunks_exact(E::BYTES)) {
        *to = E::to_f32(from);
    }
}

/// The bytes of `values`.
pub(crate) fn encode<E: Element>(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| E::from_f32(*value)).collect()
}
