//! Products of the same rows with one weight or several: rows are prepared once, and threads share out the work.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::block_product::PanelScratch;
use crate::kinds::{self, Operand};
use crate::{Isa, Weight};

/// One product of [`crate::matmul_all`]: a weight, and where its product with the rows goes.
pub struct Product<'a> {
    /// The weight, `[n][k]`.
    pub weight: Weight<'a>,
    /// The product, `[m][n]`: a row for each row of `x`.
    pub out: &'a mut [f32],
}

/// The number of multiply-adds below which products run on the caller's thread, since waking another costs more.
const SERIAL_BELOW: usize = 1 << 18;

/// The number of tasks for each thread. Several let the others take over from a thread that starts late or is slowed
/// down.
const TASKS_PER_THREAD: usize = 8;

/// The product with some rows of a weight.
struct Task<'a> {
    /// The weight's rows.
    weight: Weight<'a>,
    /// The index of the prepared rows of `x` that the weight's type takes.
    operand: usize,
    /// For each row of `x`, the elements of its output row that belong to the weight's rows.
    out: Vec<&'a mut [f32]>,
}

/// Computes all products. The caller has checked them: `k` is that of each weight, and no output is empty.
pub(crate) fn multiply(isa: Isa, x: &[f32], k: usize, products: &mut [Product<'_>]) {
    let rows: usize = products.iter().map(|p| p.weight.n()).sum();
    let threads = if x.len() * rows < SERIAL_BELOW { 1 } else { rayon::current_num_threads() };
    let mut operands: Vec<Operand<'_>> = Vec::new();
    let mut tasks = Vec::new();
    for Product { weight, out } in products {
        let (operand, align) = kinds::prepare(weight.weight_type(), isa, x, k, &mut operands);
        let width = match threads {
            1 => weight.n(),
            _ => rows.div_ceil(threads * TASKS_PER_THREAD).next_multiple_of(align),
        };
        for (i, out) in split_columns(out, weight.n(), width).into_iter().enumerate() {
            let weight = weight.rows(i * width, i * width + out[0].len());
            tasks.push(Task { weight, operand, out });
        }
    }
    share(threads, tasks, |Task { weight, operand, mut out }, scratch| {
        kinds::multiply(isa, &operands[operand], weight, &mut out, scratch);
    });
}

/// Does all tasks on `threads` threads. Each thread has a run of neighbouring tasks, whose weights follow one another
/// in memory, and takes from the ends of the other threads' runs when its own is done.
fn share<T: Send>(threads: usize, tasks: Vec<T>, work: impl Fn(T, &mut PanelScratch) + Sync) {
    let threads = threads.min(tasks.len()).max(1);
    let (len, mut tasks) = (tasks.len(), tasks.into_iter());
    let run = |i| Mutex::new(tasks.by_ref().take(len * (i + 1) / threads - len * i / threads).collect::<VecDeque<T>>());
    let runs: Vec<Mutex<VecDeque<T>>> = (0..threads).map(run).collect();
    let take = |own: usize, i: usize| {
        let mut run = runs[(own + i) % threads].lock().unwrap_or_else(PoisonError::into_inner);
        if i == 0 { run.pop_front() } else { run.pop_back() }
    };
    let begun = AtomicUsize::new(0);
    let take_all = || {
        let own = begun.fetch_add(1, Ordering::Relaxed);
        let mut scratch = PanelScratch::default();
        while let Some(task) = (0..threads).find_map(|i| take(own, i)) {
            work(task, &mut scratch);
        }
    };
    if threads == 1 {
        return take_all();
    }
    rayon::scope(|scope| {
        (1..threads).for_each(|_| scope.spawn(|_| take_all()));
        take_all();
    });
}

/// Cuts the rows of `out`, each of `n` elements, every `width` elements. Entry `c` of the result holds elements
/// `c * width..(c + 1) * width` of every row.
fn split_columns(out: &mut [f32], n: usize, width: usize) -> Vec<Vec<&mut [f32]>> {
    let m = out.len() / n;
    let mut columns: Vec<_> = (0..n.div_ceil(width)).map(|_| Vec::with_capacity(m)).collect();
    for row in out.chunks_exact_mut(n) {
        for (column, part) in columns.iter_mut().zip(row.chunks_mut(width)) {
            column.push(part);
        }
    }
    columns
}
