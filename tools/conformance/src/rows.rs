//! A compute device's operations on rows and its products, as a model calls them, against f64.
use crate::weights;
use candle_core::{Result, Tensor};
use compute::{ComputeDevice, Precision, StoredMatrix, Sum};
use matmul::{Weight, WeightType};
use std::sync::Arc;

const D: usize = 64;
/// The bound of [`error`]: f32 rounds the operations of an element and the sum over a row, and exponentials err by a
/// few units in the last place.
pub const BOUND: f64 = 4e-6;

fn noise(seed: u64, n: usize) -> Vec<f32> {
    (0..n).map(|i| crate::noise(seed, i as u64)).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// Returns the largest error of all operations, relative to a result or, below 1, absolute. It is infinite where the
/// largest logits are not in order.
///
/// # Errors
/// An operation that fails.
pub fn error(device: &dyn ComputeDevice) -> Result<f64> {
    let tensor = |x: &[f32], shape: &[usize]| Tensor::from_slice(x, shape, device.tensors());
    let off = |got: &Tensor, want: Vec<f64>| {
        let got = got.flatten_all()?.to_vec1::<f32>()?;
        let each = got.iter().zip(want).map(|(got, want)| (f64::from(*got) - want).abs() / want.abs().max(1.0));
        // NaN is no small error.
        Ok::<_, candle_core::Error>(each.fold(0.0, |most, e| if e <= most { most } else { e }))
    };
    let (x, y, w) = (noise(1, 3 * D), noise(2, 3 * D), noise(3, D));
    let (a, b, weight) = (tensor(&x, &[3, D])?, tensor(&y, &[3, D])?, tensor(&w, &[D])?);
    let (x, y, w) = (wide(&x), wide(&y), wide(&w));
    let scaled = |row: &[f64]| {
        let scale = 1.0 / (row.iter().map(|x| x * x).sum::<f64>() / D as f64 + 1e-6).sqrt();
        row.iter().zip(&w).map(|(x, w)| x * scale * w).collect::<Vec<f64>>()
    };
    let sums: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
    let (sum, normed) = device.add_rms_norm(&a, &b, &weight, 1e-6)?;
    let gate = |x: f64| 1.0 / (1.0 + (-x).exp());
    let mut errors = vec![
        off(&device.rms_norm(&a, &weight, 1e-6)?, x.chunks(D).flat_map(scaled).collect())?,
        off(&normed, sums.chunks(D).flat_map(scaled).collect())?,
        off(&sum, sums)?,
        off(&device.silu_mul(&a, &b)?, x.iter().zip(&y).map(|(x, y)| x * gate(*x) * y).collect())?,
        off(&device.sigmoid_mul(&a, &b)?, x.iter().zip(&y).map(|(x, y)| gate(*x) * y).collect())?,
        off(
            &device.sigmoid_mul(&tensor(&w[..3].iter().map(|w| *w as f32).collect::<Vec<_>>(), &[3, 1])?, &b)?,
            y.chunks(D).zip(&w).flat_map(|(row, w)| row.iter().map(|y| gate(*w) * y).collect::<Vec<_>>()).collect(),
        )?,
    ];
    errors.push(if largest_in_order(device)? { 0.0 } else { f64::INFINITY });
    Ok(errors.into_iter().fold(0.0, f64::max))
}

/// A weight `[n, k]` in memory.
pub struct Stored {
    kind: WeightType,
    n: usize,
    k: usize,
    bytes: Vec<u8>,
}

impl Stored {
    /// Quantises values `[n][k]`.
    ///
    /// # Panics
    /// If the values are not whole rows of quantisation blocks.
    pub fn quantised(kind: WeightType, n: usize, k: usize, values: &[f32]) -> Arc<dyn StoredMatrix> {
        let bytes = matmul::quantize(kind, values).expect("whole blocks");
        Arc::new(Stored { kind, n, k, bytes })
    }

    /// Returns a weight of values that depend on `seed`: see [`weights::stored`].
    ///
    /// # Panics
    /// If a row is no whole number of quantisation blocks.
    pub fn random(kind: WeightType, n: usize, k: usize, seed: u64) -> Arc<dyn StoredMatrix> {
        Arc::new(Stored { kind, n, k, bytes: weights::stored(kind, n * k, seed) })
    }
}

impl StoredMatrix for Stored {
    fn view(&self) -> Weight<'_> {
        Weight::new(self.kind, self.n, self.k, &self.bytes).expect("as they were made")
    }
    fn forget(&self) {}
}

/// The bound of [`products_error`]: products round rows to 11 bits, by up to 2^-11 of an element, twice in the longest
/// chain.
pub const PRODUCTS_BOUND: f64 = 1e-3;

/// Returns the largest error, relative to the norm of a result, of products with norms, onto a sum, and gated.
///
/// # Errors
/// An operation that fails.
pub fn products_error(device: &dyn ComputeDevice) -> Result<f64> {
    const N: usize = 64;
    const ROWS: usize = 11;
    let kind = WeightType::Q8_0;
    let stored = |seed, n: usize, k: usize| Stored::quantised(kind, n, k, &noise(seed, n * k));
    let matrices = [stored(11, N, D), stored(12, N, D), stored(13, D, N)];
    let dense = |matrix: &Arc<dyn StoredMatrix>| {
        let view = matrix.view();
        let mut rows = vec![0f32; view.n() * view.k()];
        rows.chunks_exact_mut(view.k()).enumerate().for_each(|(i, row)| matmul::dequantize_row(view, i, row));
        wide(&rows)
    };
    let product = |x: &[f64], w: &[f64], k: usize| -> Vec<f64> {
        let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
        x.chunks(k).flat_map(|x| w.chunks(k).map(|w| dot(x, w)).collect::<Vec<_>>()).collect()
    };
    let off = |got: &Tensor, want: &[f64]| {
        let got = device.read(&[got])?.remove(0);
        let square = |x: f64| x * x;
        let error: f64 = got.iter().zip(want).map(|(got, want)| square(f64::from(*got) - want)).sum();
        let error = (error / want.iter().map(|x| square(*x)).sum::<f64>()).sqrt();
        Ok::<_, candle_core::Error>(if error.is_nan() { f64::INFINITY } else { error })
    };
    let place = |i: usize| device.place(Arc::clone(&matrices[i]), None, Precision::Fast);
    let (first, second) = (place(0)?, place(1)?);
    let tensor = |x: &[f32], shape: &[usize]| Tensor::from_slice(x, shape, device.tensors());
    let (x, delta, w) = (noise(14, ROWS * D), noise(15, ROWS * D), noise(16, D));
    let mut stream = Sum { x: tensor(&x, &[ROWS, D])?, delta: Some(tensor(&delta, &[ROWS, D])?) };
    let rows = device.norm_rows(&mut stream, &tensor(&w, &[D])?, 1e-6)?;
    let sums: Vec<f64> = wide(&x).iter().zip(wide(&delta)).map(|(x, y)| x + y).collect();
    let normed: Vec<f64> = sums
        .chunks(D)
        .flat_map(|row| {
            let scale = 1.0 / (row.iter().map(|x| x * x).sum::<f64>() / D as f64 + 1e-6).sqrt();
            row.iter().zip(wide(&w)).map(|(x, w)| x * scale * w).collect::<Vec<f64>>()
        })
        .collect();
    let [gate, up] = [0, 1].map(|i| product(&normed, &dense(&matrices[i]), D));
    let got = device.products(&rows, &[&first, &second])?;
    let mut errors = vec![off(&stream.x, &sums)?, off(&got[0], &gate)?, off(&got[1], &up)?];
    let residual = noise(17, ROWS * N);
    let onto = device.product_onto(&tensor(&residual, &[ROWS, N])?, &rows, &first)?;
    let onto = match onto.delta {
        Some(delta) => (onto.x + delta)?,
        None => onto.x,
    };
    errors.push(off(&onto, &gate.iter().zip(wide(&residual)).map(|(x, y)| x + y).collect::<Vec<_>>())?);
    let gated: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
    let gated = product(&gated, &dense(&matrices[2]), N);
    let down = device.products(&device.gated_product(&rows, &first, &second)?, &[&place(2)?])?;
    errors.push(off(&down[0], &gated)?);
    Ok(errors.into_iter().fold(0.0, f64::max))
}

fn largest_in_order(device: &dyn ComputeDevice) -> Result<bool> {
    let (rows, width, count) = (2, 5000, 9);
    let logits = noise(5, rows * width);
    let want = logits.chunks(width).flat_map(|row| {
        let mut all: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(count);
        all
    });
    let got = device.largest(&Tensor::from_slice(&logits, (rows, width), device.tensors())?, count)?;
    Ok(got == Some(want.collect()))
}
