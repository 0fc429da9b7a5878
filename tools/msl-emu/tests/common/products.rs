//! Products with weights against f64.
use conformance::noise;
use conformance::weights::stored;
use matmul::{Weight, WeightType};
use metal::Executor;
use metal::launch::{self, ProductForm, ProductRows, ProductWeight};

fn bytes_of(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Rows whose groups have unlike sizes, from 2^-20 to 2^16, as halves could not hold them.
fn rows_of_x(rows: usize, k: usize) -> Vec<f32> {
    let size = |i: usize| 2f32.powi((i / 32 * 7 % 37) as i32 - 20);
    (0..rows * k).map(|i| noise(1, i as u64) * size(i)).collect()
}

/// The bytes of a weight as kernels read it: rows of floats are padded to whole groups.
fn padded(weight: Weight<'_>) -> Vec<u8> {
    let row = weight.bytes().len() / weight.n();
    let to = launch::row_bytes(weight.weight_type(), weight.k());
    weight.bytes().chunks(row).flat_map(|row| [row, &vec![0; to - row.len()]].concat()).collect()
}

/// A weight's bytes, its number of rows, and its bias.
type Stored<'a> = (&'a [u8], usize, Option<&'a [f32]>);

/// The products of x with up to three weights of a type, by one launch, or what `form` makes of them.
struct Case<'a> {
    kind: WeightType,
    k: usize,
    weights: Vec<Stored<'a>>,
    form: Form<'a>,
    by: Kernel,
}

/// The kernel that multiplies.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kernel {
    /// `product`, or `product_f32`.
    Product,
    /// `matvec`.
    Matvec,
}

#[derive(Clone, Copy)]
enum Form<'a> {
    Each,
    Onto(&'a [f32]),
    Gated,
}

impl Case<'_> {
    fn run<E: Executor>(&self, executor: &E, x: &[f32]) -> Vec<Vec<f32>> {
        let (k, rows) = (self.k, x.len() / self.k);
        let floats = executor.buffer(&bytes_of(x)).unwrap();
        let nothing = executor.buffer(&[]).unwrap();
        let buffers = self.weights.iter().map(|(bytes, n, bias)| {
            let weight = padded(Weight::new(self.kind, *n, k, bytes).unwrap());
            let bias = bias.map(|bias| executor.buffer(&bytes_of(bias)).unwrap());
            (executor.buffer(&weight).unwrap(), bias, executor.create(rows * n * 4).unwrap())
        });
        let buffers: Vec<_> = buffers.collect();
        let outs: Vec<_> = buffers.iter().map(|(.., out)| out).collect();
        if self.kind == WeightType::F32 {
            let (weight, bias, out) = &buffers[0];
            let all = [&floats, weight, bias.as_ref().unwrap_or(&nothing), out];
            executor.run(&[launch::product_f32(self.weights[0].1, k, (0, rows), bias.is_some(), all)]).unwrap();
        } else {
            let [halves, sums] = launch::operand_bytes(rows, k).map(|bytes| executor.create(bytes).unwrap());
            let operand = ProductRows { halves: &halves, sums: &sums, first: 0, rows, k, experts: None };
            // bf16 weights of the test are below 2.
            let unit = if self.kind == WeightType::Bf16 { 128.0 } else { 1.0 };
            let weights = buffers.iter().zip(&self.weights).map(|((bytes, bias, _), (_, n, _))| ProductWeight {
                bytes,
                n: *n,
                bias: bias.as_ref(),
                unit,
            });
            let residual = match self.form {
                Form::Onto(residual) => executor.buffer(&bytes_of(residual)).unwrap(),
                _ => executor.buffer(&[]).unwrap(),
            };
            let form = match self.form {
                Form::Each => ProductForm::Each(&outs),
                Form::Onto(_) => ProductForm::Onto { residual: &residual, out: outs[0] },
                Form::Gated => ProductForm::Gated(outs[0]),
            };
            let weights: Vec<_> = weights.collect();
            let launches = match self.by {
                Kernel::Matvec => vec![launch::matvec(self.kind, (&floats, rows, k), &weights, &form, &nothing)],
                Kernel::Product => {
                    let pack = launch::pack_rows(rows, k, [&floats, &halves, &sums]);
                    vec![pack, launch::product(self.kind, &operand, &weights, &form, &nothing)]
                }
            };
            executor.run(&launches).unwrap();
        }
        let read = |(out, (_, n, _)): (&&E::Buffer, &(_, usize, _))| {
            let mut bytes = vec![0; rows * n * 4];
            executor.download(out, 0, &mut bytes).unwrap();
            bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        outs.iter().zip(&self.weights).map(read).collect()
    }
}

/// The elements of the product in f64, `[rows][n]`, each with the sum of its terms' sizes.
fn exact(weight: Weight<'_>, bias: &[f32], x: &[f32]) -> Vec<(f64, f64)> {
    let (n, k) = (weight.n(), weight.k());
    let mut all = vec![(0.0, 0.0); x.len() / k * n];
    let mut row = vec![0.0; k];
    for i in 0..n {
        matmul::dequantize_row(weight, i, &mut row);
        for (j, x) in x.chunks(k).enumerate() {
            let terms = x.iter().zip(&row).map(|(x, w)| f64::from(*x) * f64::from(*w));
            let size = terms.clone().map(f64::abs).sum::<f64>() + f64::from(bias[i]).abs();
            all[j * n + i] = (terms.sum::<f64>() + f64::from(bias[i]), size);
        }
    }
    all
}

/// The largest error, as a share of the terms' sizes. `product` rounds each x to a half, whose step is 2^-11 of it or
/// 2^-28 of its group's largest; sums of f32 add less. The other kernels round to f32 alone: an element goes through at
/// most 30 sums one after the other, which add 2^-24 each.
fn check(got: &[f32], want: &[(f64, f64)], kind: WeightType, by: Kernel) -> Result<f64, String> {
    let bound = if kind == WeightType::F32 || by == Kernel::Matvec { 1.8e-6 } else { 2f64.powi(-11) };
    let mut worst = 0f64;
    for (i, (got, (want, size))) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want).abs() / size;
        // NaN is no small error.
        if error.is_nan() || error > bound {
            return Err(format!(
                "element {i}: {got} for {want}, {error:.1e} of the terms' sizes; allowed: {bound:.1e}"
            ));
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

fn values(seed: u64, n: usize) -> Vec<f32> {
    (0..n).map(|i| noise(seed, i as u64)).collect()
}

/// One type and shape: every row against f64, and its bits alone against those among others.
pub fn agrees<E: Executor>(
    executor: &E,
    (kind, by): (WeightType, Kernel),
    (n, k): (usize, usize),
    rows: usize,
) -> Result<f64, String> {
    let bytes = stored(kind, n * k, 2);
    let (x, bias) = (rows_of_x(rows, k), values(3, n));
    let case = Case { kind, k, weights: vec![(&bytes, n, Some(&bias))], form: Form::Each, by };
    let got = case.run(executor, &x).remove(0);
    let worst = check(&got, &exact(Weight::new(kind, n, k, &bytes).unwrap(), &bias, &x), kind, by)?;
    for row in [0, rows - 1] {
        let alone = case.run(executor, &x[row * k..][..k]).remove(0);
        let among = &got[row * n..][..n];
        if let Some(i) = (0..n).find(|i| alone[*i].to_bits() != among[*i].to_bits()) {
            return Err(format!("row {row}, element {i}: {} alone, {} among {rows}", alone[i], among[i]));
        }
    }
    Ok(worst)
}

/// Three weights at once give what each gives alone, bit by bit; so does a sum; a gated product is what the two give.
pub fn forms<E: Executor>(executor: &E, (kind, by): (WeightType, Kernel), rows: usize) -> Result<(), String> {
    let k = 512;
    let sizes = [35, 7, 16];
    let bytes = [0, 1, 2].map(|i| stored(kind, sizes[i] * k, 10 + i as u64));
    let biases = [0, 1, 2].map(|i| values(20 + i as u64, sizes[i]));
    let x = rows_of_x(rows, k);
    let weight = |i: usize| (&*bytes[i], sizes[i], (i != 1).then_some(&*biases[i]));
    let run = |weights, form| Case { kind, k, weights, form, by }.run(executor, &x);
    let together = run((0..3).map(weight).collect(), Form::Each);
    for (i, together) in together.iter().enumerate() {
        if run(vec![weight(i)], Form::Each)[0] != *together {
            return Err(format!("weight {i} alone and with the others"));
        }
    }
    let residual = values(30, rows * sizes[0]);
    let sum = run(vec![weight(0)], Form::Onto(&residual)).remove(0);
    let mut each = sum.iter().zip(&residual).zip(&together[0]);
    if let Some(i) = each.position(|((sum, x), y)| *sum != x + y) {
        return Err(format!("element {i} of a sum: {}", sum[i]));
    }
    let other = stored(kind, sizes[0] * k, 40);
    let up = (&*other, sizes[0], None);
    let (gate, second) = (&together[0], run(vec![up], Form::Each).remove(0));
    let gated = run(vec![weight(0), up], Form::Gated).remove(0);
    let silu = |gate: f32| f64::from(gate) / (1.0 + (-f64::from(gate)).exp());
    for (i, got) in gated.iter().enumerate() {
        let want = silu(gate[i]) * f64::from(second[i]);
        if (f64::from(*got) - want).abs() > 4e-6 * want.abs() + 1e-30 {
            return Err(format!("element {i} of a gated product: {got} for {want}"));
        }
    }
    Ok(())
}

/// Every type with each number of rows at which another kernel begins, or its columns are not filled; by either kernel.
pub fn all<E: Executor>(executor: impl Fn(u32) -> E) -> Vec<(String, Result<(), String>)> {
    let mut results = Vec::new();
    for kind in WeightType::ALL {
        for (i, rows) in [1, 8, 11, 29, 33, 70].into_iter().enumerate() {
            // A k of several partitions; floats and small blocks end within one.
            let k = match kind.block_len() {
                1 => 583,
                32 => 608,
                _ => 768,
            };
            let result = agrees(&executor(i as u32), (kind, Kernel::Product), (37, k), rows).map(drop);
            results.push((format!("{kind} with {rows} rows"), result));
        }
    }
    for kind in WeightType::ALL.into_iter().filter(|kind| *kind != WeightType::F32) {
        // One partition whose last blocks are not there, and two.
        let most = if kind.block_len() <= 32 { 2304 } else { 4608 };
        for (i, (k, rows)) in [(768, 1), (most, 2)].into_iter().enumerate() {
            let result = agrees(&executor(i as u32), (kind, Kernel::Matvec), (9, k), rows).map(drop);
            results.push((format!("{kind} with {rows} rows by matvec"), result));
        }
    }
    let product = [(WeightType::Bf16, 3), (WeightType::Q4_K, 40), (WeightType::Q8_0, 17), (WeightType::IQ2_S, 9)];
    let product = product.map(|(kind, rows)| (kind, Kernel::Product, rows));
    let matvec = [(WeightType::Q4_1, 1), (WeightType::Q6_K, 2), (WeightType::IQ3_S, 1)]
        .map(|(kind, rows)| (kind, Kernel::Matvec, rows));
    for (kind, by, rows) in product.into_iter().chain(matvec) {
        results.push((format!("forms of {kind} with {rows} rows, {by:?}"), forms(&executor(1), (kind, by), rows)));
    }
    results
}
