//! Those of Candle's kernels that a model's step uses, in Rust, by the same names and argument indices. They check that
//! the grid covers the result, and sum in f64.
mod element;
mod elementwise;

use crate::double::broken;
use crate::kernels::Argument;
use element::Element;
use msl_emu::Arguments;
use std::collections::BTreeMap;

/// The most threads of a threadgroup.
const THREADS: u32 = 1024;

/// A kernel, which writes one buffer.
pub struct Kernel {
    pub arguments: Arguments,
    pub run: Box<dyn Fn(&Call<'_>, &mut [u8]) + Send + Sync>,
}

impl Kernel {
    /// A kernel with arguments 0 to `count`, which writes `output`.
    fn new([count, output]: [u32; 2], run: impl Fn(&Call<'_>, &mut [u8]) + Send + Sync + 'static) -> Option<Self> {
        let arguments = Arguments { all: (1 << count) - 1, written: 1 << output, most_threads: THREADS };
        Some(Kernel { arguments, run: Box::new(run) })
    }
}

/// The kernel of a name; `None` if none is written for it.
pub fn find(name: &str) -> Option<Kernel> {
    elementwise::find(name)
}

/// A dispatch of a kernel.
pub struct Call<'a> {
    pub name: &'a str,
    pub arguments: &'a BTreeMap<usize, Argument>,
    /// Threadgroups, their threads, and all threads.
    pub sizes: [[usize; 3]; 3],
}

impl Call<'_> {
    fn bytes(&self, index: usize) -> &[u8] {
        self.arguments[&index].bytes()
    }

    /// Integers of 8 bytes.
    fn numbers(&self, index: usize) -> Vec<usize> {
        self.bytes(index).as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes) as usize).collect()
    }

    /// An integer of 8 bytes.
    fn number(&self, index: usize) -> usize {
        self.numbers(index)[0]
    }

    /// Integers of 4 bytes.
    fn ints(&self, index: usize) -> Vec<usize> {
        self.bytes(index).as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes) as usize).collect()
    }

    /// Ends the thread unless `have` of something covers `need`.
    fn covers(&self, what: &str, have: usize, need: usize) {
        if have < need {
            broken(self.name, format_args!("its grid has {have} {what}; the result has {need}"));
        }
    }
}

/// Where element `index` of a tensor lies, whose dimensions are walked with strides.
fn strided(mut index: usize, dims: &[usize], strides: &[usize]) -> usize {
    let mut at = 0;
    for (dim, stride) in dims.iter().zip(strides).rev() {
        at += index % dim * stride;
        index /= dim;
    }
    at
}
