//! Row-wise operations on the CPU: a row's bits depend on the row alone, and small steps run on the caller's thread.
//!
//! Candle has all of these, but spreads each over a second thread pool, whose spinning workers take the cores from
//! attention and projections.
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, bail};
use rayon::prelude::*;

/// With fewer elements than this, waking other threads costs more than it brings.
const PARALLEL: usize = 1 << 15;

/// How many partial sums a norm keeps. Do not change it: it sets the order of summation, on which a request's bits
/// depend.
const LANES: usize = 16;

/// Calls `f(index, row)` for each row of a new output.
fn rows(len: usize, width: usize, f: impl Fn(usize, &mut [f32]) + Sync) -> CpuStorage {
    let mut out = vec![0f32; len];
    if len < PARALLEL {
        out.chunks_exact_mut(width).enumerate().for_each(|(i, row)| f(i, row));
    } else {
        out.par_chunks_exact_mut(width).enumerate().for_each(|(i, row)| f(i, row));
    }
    CpuStorage::F32(out)
}

/// The elements of a contiguous f32 tensor, and how many of them a row has.
fn elements<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<(&'a [f32], usize)> {
    match (storage, layout.contiguous_offsets(), layout.dims().last()) {
        (CpuStorage::F32(data), Some((from, to)), Some(width)) if *width > 0 => Ok((&data[from..to], *width)),
        _ => bail!("row-wise operations take contiguous f32 tensors with rows, not {layout:?}"),
    }
}

/// An operation on each two elements, by its name. Where the first tensor has one element a row, it meets all of the
/// row.
pub(crate) struct Elementwise<F>(pub &'static str, pub F);

impl<F: Fn(f32, f32) -> f32 + Sync> CustomOp2 for Elementwise<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((a, width), (b, n)) = (elements(a, la)?, elements(b, lb)?);
        let same_rows = la.dims().split_last().map(|of| of.1) == lb.dims().split_last().map(|of| of.1);
        if !same_rows || (width != n && width != 1) {
            bail!("{}: {:?} and {:?}", self.0, la.shape(), lb.shape());
        }
        let out = rows(b.len(), n, |i, out| {
            let (a, b) = (&a[i * width..][..width], &b[i * n..][..n]);
            match *a {
                [a] => out.iter_mut().zip(b).for_each(|(out, b)| *out = self.1(a, *b)),
                _ => out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = self.1(*a, *b)),
            }
        });
        Ok((out, lb.shape().clone()))
    }
}

/// The root-mean-square norm of each row, with its epsilon.
pub(crate) struct RowNorm(pub f32);

impl CustomOp2 for RowNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, weight: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((x, n), (weight, len)) = (elements(x, lx)?, elements(weight, lw)?);
        if len != n {
            bail!("rms-norm: a weight of {len} for rows of {n}");
        }
        let out = rows(x.len(), n, |i, out| {
            let x = &x[i * n..][..n];
            let mut sums = [0f32; LANES];
            let (chunks, rest) = x.as_chunks::<LANES>();
            for chunk in chunks {
                sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x * x);
            }
            sums.iter_mut().zip(rest).for_each(|(sum, x)| *sum += x * x);
            let scale = 1.0 / (sums.iter().sum::<f32>() / n as f32 + self.0).sqrt();
            out.iter_mut().zip(x.iter().zip(weight)).for_each(|(out, (x, w))| *out = x * scale * w);
        });
        Ok((out, lx.shape().clone()))
    }
}

/// e^x to two units in the last place, in operations that vectorise: 2^n times a polynomial of the rest (Cephes'
/// `expf`).
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    // Rounds to the nearest integer.
    const MAGIC: f32 = 12_582_912.0;
    let n = (x * std::f32::consts::LOG2_E + MAGIC) - MAGIC;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    (p * r * r + r + 1.0) * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ComputeDevice, CpuDevice};
    use candle_core::{Device, Tensor};

    fn tensor(shape: &[usize], seed: u32) -> Tensor {
        let n: usize = shape.iter().product();
        let data: Vec<f32> =
            (0..n as u32).map(|i| (i.wrapping_mul(2654435761).wrapping_add(seed) >> 8) as f32 / 4e6 - 2.0).collect();
        Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    fn distance(a: &Tensor, b: &Tensor) -> f32 {
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max)
    }

    #[test]
    fn exp_is_good_to_two_units() {
        for i in -870_000..880_000 {
            let x = i as f32 * 1e-4;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) / want - 1.0).abs() < 2.4e-7, "{x}");
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-37 && exp(1000.0).is_finite());
    }

    /// Every operation gives what Candle's own gives, up to the order of sums; sizes below and above the parallel
    /// threshold.
    #[test]
    fn operations_are_candles() {
        for tokens in [1, 3, 70] {
            let (a, b) = (tensor(&[tokens, 600], 1), tensor(&[tokens, 600], 2));
            let want = (a.silu().unwrap() * &b).unwrap();
            assert!(distance(&CpuDevice.silu_mul(&a, &b).unwrap(), &want) < 2e-6);
            let want = (candle_nn::ops::sigmoid(&a).unwrap() * &b).unwrap();
            assert!(distance(&CpuDevice.sigmoid_mul(&a, &b).unwrap(), &want) < 2e-6);
            let weight = tensor(&[600], 3);
            let want = candle_nn::ops::rms_norm(&a, &weight, 1e-6).unwrap();
            assert!(distance(&CpuDevice.rms_norm(&a, &weight, 1e-6).unwrap(), &want) < 1e-5);
            let (sum, normed) = CpuDevice.add_rms_norm(&a, &b, &weight, 1e-6).unwrap();
            assert_eq!(distance(&sum, &(&a + &b).unwrap()), 0.0);
            assert_eq!(distance(&normed, &CpuDevice.rms_norm(&sum, &weight, 1e-6).unwrap()), 0.0);
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let (a, b) = (tensor(&[2, 6], 1), tensor(&[2, 5], 2));
        assert!(CpuDevice.add_rms_norm(&a, &b, &tensor(&[6], 1), 1e-6).is_err());
        assert!(CpuDevice.rms_norm(&a, &tensor(&[5], 1), 1e-6).is_err());
    }
}
