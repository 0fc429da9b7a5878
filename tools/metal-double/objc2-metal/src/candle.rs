//! Those of Candle's kernels that a model's step uses, in Rust, by the same names and argument indices: copies of
//! floats. They check that the grid covers the result.
use crate::double::broken;
use crate::kernels::Argument;
use msl_emu::Arguments;
use std::collections::BTreeMap;

/// The most threads of a threadgroup.
const THREADS: u32 = 1024;
/// Bytes of an element.
const SIZE: usize = 4;

/// A kernel, which writes one buffer.
pub struct Kernel {
    pub arguments: Arguments,
    pub run: Box<dyn Fn(&Call<'_>, &mut [u8]) + Send + Sync>,
}

impl Kernel {
    /// A kernel with arguments 0 to `count`, which writes `output`.
    fn new([count, output]: [u32; 2], run: impl Fn(&Call<'_>, &mut [u8]) + Send + Sync + 'static) -> Self {
        let arguments = Arguments { all: (1 << count) - 1, written: 1 << output, most_threads: THREADS };
        Kernel { arguments, run: Box::new(run) }
    }
}

/// The kernel of a name; `None` if none is written for it.
pub fn find(name: &str) -> Option<Kernel> {
    match name {
        "copy_f32_strided" => Some(strided_copy()),
        "copy2d_f32" => Some(copy_2d()),
        _ => None,
    }
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

/// The elements of a view: the number of elements, of dimensions, dimensions, strides, from, to.
fn strided_copy() -> Kernel {
    Kernel::new([6, 5], |call, output| {
        let (count, dims, strides) = (call.number(0), call.numbers(2), call.numbers(3));
        call.covers("elements", call.sizes[2][0], count);
        for i in 0..count {
            let from = &call.bytes(4)[strided(i, &dims, &strides) * SIZE..][..SIZE];
            output[i * SIZE..][..SIZE].copy_from_slice(from);
        }
    })
}

/// Rows that are copied: the number of rows, their length, the strides of source and target, from, to.
fn copy_2d() -> Kernel {
    Kernel::new([6, 5], |call, output| {
        let [rows, length, from_stride, to_stride] = [0, 1, 2, 3].map(|index| call.number(index));
        call.covers("rows", call.sizes[2][0], rows);
        call.covers("elements a row", call.sizes[2][1], length);
        for row in 0..rows {
            let from = &call.bytes(4)[row * from_stride * SIZE..][..length * SIZE];
            output[row * to_stride * SIZE..][..length * SIZE].copy_from_slice(from);
        }
    })
}
