//! Times of products with weights, in ratios to a copy of the same run.
use crate::bench::median_of;
use crate::workload::noise;
use matmul::WeightType::{self, *};
use metal::launch::{self, ProductForm, ProductRows, ProductWeight};
use metal::{Executor, Launch};
use msl_emu::cuda::{CudaExecutor, Memory};

const TYPES: [WeightType; 17] = [
    F16, Bf16, Q8_0, Q6_K, Q5_K, Q4_K, Q4_0, IQ4_NL, IQ4_XS, Mxfp4, IQ3_S, IQ3_XXS, IQ2_S, IQ2_XS, IQ2_XXS, TQ2_0,
    TQ1_0,
];
/// Rows and elements of a weight.
const WEIGHTS: [(usize, usize); 4] = [(8192, 2048), (2048, 8192), (14_336, 4096), (4096, 14_336)];
/// Rows of x of a decoding step by `matvec`, by `product`, and of a prompt's chunk.
const MATVEC: [usize; 2] = [1, 2];
const FEW: [usize; 6] = [1, 2, 4, 8, 16, 32];
const MANY: usize = 512;
/// The bytes of weights that a repetition goes through, more than any cache holds.
const PASS: usize = 512 << 20;

fn failed(error: metal::ExecError) -> String {
    error.to_string()
}

/// Terabytes a second of the driver's copy, read and written bytes counted.
fn copy_rate(executor: &CudaExecutor) -> Result<f32, String> {
    let bytes = 1 << 30;
    let [from, to] = [executor.create(bytes).map_err(failed)?, executor.create(bytes).map_err(failed)?];
    let mut times = (0..9).map(|_| executor.time_of_copy(&from, &to).map_err(failed)).collect::<Result<Vec<_>, _>>()?;
    times.sort_by(f32::total_cmp);
    Ok(2.0 * bytes as f32 / times[4] / 1e9)
}

/// Copies of a weight of random bits, more than any cache holds. Its scales are whatever the bits say: no
/// product's time depends on values.
fn weights(executor: &CudaExecutor, bytes: usize) -> Result<Vec<Memory>, String> {
    let bits = noise(7, bytes.div_ceil(4));
    (0..PASS.div_ceil(bytes)).map(|_| executor.buffer(&bits[..bytes]).map_err(failed)).collect()
}

/// Microseconds of a product of `rows` rows, by `matvec` or by `product`, the weight being read from memory.
fn time(
    executor: &CudaExecutor,
    (kind, by_matvec): (WeightType, bool),
    (n, k): (usize, usize),
    rows: usize,
    weights: &[Memory],
) -> Result<f32, String> {
    let x = executor.buffer(&noise(8, rows * k)).map_err(failed)?;
    let [halves, sums] = launch::operand_bytes(rows, k).map(|bytes| executor.create(bytes));
    let (halves, sums) = (halves.map_err(failed)?, sums.map_err(failed)?);
    let out = executor.create(rows * n * 4).map_err(failed)?;
    executor.run(&[launch::pack_rows(rows, k, [&x, &halves, &sums])]).map_err(failed)?;
    let operand = ProductRows { halves: &halves, sums: &sums, first: 0, rows, k, experts: None };
    let (outs, nothing) = ([&out], &x);
    let form = ProductForm::Each(&outs);
    let launch = |bytes| -> Launch<'_, Memory> {
        let weight = [ProductWeight { bytes, n, bias: None, unit: 1.0 }];
        match by_matvec {
            true => launch::matvec(kind, (&x, rows, k), &weight, &form, nothing),
            false => launch::product(kind, &operand, &weight, &form, nothing),
        }
    };
    let launches: Vec<Launch<'_, Memory>> = weights.iter().map(launch).collect();
    executor.run(&launches[..1]).map_err(failed)?;
    Ok(1e3 * median_of(executor, &launches, 1)? / launches.len() as f32)
}

/// The table: of few rows the rate at which the weight is read, by that of a copy; of many, the rate of operations.
pub fn table(executor: &CudaExecutor, filter: &str) -> Result<(), String> {
    let copy = copy_rate(executor)?;
    println!("# products on {}; a copy moves {copy:.2} TB/s", executor.device().unwrap_or("none"));
    println!("# weight | rows, v of matvec: us (share of a copy's rate) ... | {MANY} rows: us, TFLOP/s");
    for kind in TYPES {
        for (n, k) in WEIGHTS {
            let name = format!("products {kind} {n}x{k}");
            if !name.contains(filter) {
                continue;
            }
            let bytes = n * launch::row_bytes(kind, k);
            let weights = weights(executor, bytes)?;
            let mut line = format!("{name:26}");
            let few = MATVEC.map(|rows| (true, rows)).into_iter().chain(FEW.map(|rows| (false, rows)));
            for (by_matvec, rows) in few {
                let us = time(executor, (kind, by_matvec), (n, k), rows, &weights)?;
                let by = if by_matvec { "v" } else { "" };
                line += &format!(" | {by}{rows}: {us:.1} ({:.2})", bytes as f32 / us / 1e6 / copy);
            }
            let us = time(executor, (kind, false), (n, k), MANY, &weights)?;
            line += &format!(" | {us:.0}, {:.0}", 2.0 * (n * k * MANY) as f32 / us / 1e6);
            println!("{line}");
        }
    }
    Ok(())
}
