//! The helpers against f64.
use conformance::noise;
use metal::Executor;
use metal::launch::{self, Gate, NormBuffers, TopBuffers};

fn pack(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn unpack(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
}

/// What f32 rounds, relative: the few operations of an element and the sum over a row.
const ROUNDING: f64 = 2e-6;

fn read<E: Executor>(executor: &E, buffer: &E::Buffer, n: usize) -> Vec<f64> {
    let mut bytes = vec![0; n * 4];
    executor.download(buffer, 0, &mut bytes).unwrap();
    unpack(&bytes)
}

fn data(seed: u64, n: usize) -> Vec<f32> {
    (0..n).map(|i| noise(seed, i as u64)).collect()
}

/// Nothing, or the first element that is further off; NaN is.
fn close(got: &[f64], want: &[f64], relative: f64, absolute: f64, what: &str) -> Result<(), String> {
    let near = |got: f64, want: f64| (got - want).abs() <= relative * want.abs() + absolute;
    match got.iter().zip(want).enumerate().find(|(_, (got, want))| !near(**got, **want)) {
        Some((i, (got, want))) => Err(format!("{what} element {i}: {got} for {want}")),
        None => Ok(()),
    }
}

/// A norm of a few rows, and residual + norm.
pub fn norms<E: Executor>(executor: &E) -> Result<(), String> {
    for (rows, width) in [(3, 100), (2, 1536)] {
        let n = rows * width;
        let bytes = [data(1, n), data(2, width), data(3, n)].map(|x| pack(&x));
        let [x, weight, delta] = [0, 1, 2].map(|i| executor.buffer(&bytes[i]).unwrap());
        let [sum, out] = [0, 1].map(|_| executor.create(n * 4).unwrap());
        let eps = 1e-5;
        let buffers = NormBuffers { x: &x, delta: &delta, sum: &sum, weight: &weight, out: &out };
        let unpacked = [0, 1, 2].map(|i| unpack(&bytes[i]));
        let sums: Vec<f64> = unpacked[0].iter().zip(&unpacked[2]).map(|(a, b)| a + b).collect();
        for add in [false, true] {
            executor.run(&[launch::add_rms_norm(rows, (width, add, eps), &buffers)]).unwrap();
            let new = if add { read(executor, &sum, n) } else { unpacked[0].clone() };
            close(&new, if add { &sums } else { &unpacked[0] }, ROUNDING, 1e-6, "sum")?;
            let norm = |row: &[f64]| {
                let mean = row.iter().map(|r| r * r).sum::<f64>() / width as f64;
                let scaled = row.iter().zip(&unpacked[1]).map(|(r, w)| r * w / (mean + f64::from(eps)).sqrt());
                scaled.collect::<Vec<f64>>()
            };
            let want: Vec<f64> = new.chunks(width).flat_map(norm).collect();
            close(&read(executor, &out, n), &want, ROUNDING, 1e-6, "norm")?;
        }
    }
    Ok(())
}

/// silu(gate) x up, sigmoid(gate) x up, with a gate for each element and for each 111 of them.
pub fn gates<E: Executor>(executor: &E) -> Result<(), String> {
    let n = 777;
    let scaled: Vec<f32> = data(4, n).iter().map(|x| 5.0 * x).collect();
    let bytes = [scaled, data(5, n)].map(|x| pack(&x));
    let [gate, up] = [0, 1].map(|i| executor.buffer(&bytes[i]).unwrap());
    let out = executor.create(n * 4).unwrap();
    let [gates, others] = [0, 1].map(|i| unpack(&bytes[i]));
    for by in [Gate::Silu, Gate::Sigmoid(1), Gate::Sigmoid(111)] {
        executor.run(&[launch::gate_mul(n, by, [&gate, &up, &out])]).unwrap();
        let (silu, span) = match by {
            Gate::Silu => (true, 1),
            Gate::Sigmoid(span) => (false, span),
        };
        let weight = |g: f64| (if silu { g } else { 1.0 }) / (1.0 + (-g).exp());
        let want: Vec<f64> = others.iter().enumerate().map(|(i, u)| weight(gates[i / span]) * u).collect();
        close(&read(executor, &out, n), &want, ROUNDING, 1e-6, "gate")?;
    }
    Ok(())
}

/// The largest logits, in order.
pub fn top<E: Executor>(executor: &E, count: usize) -> Result<(), String> {
    let (rows, width) = (2, 9001);
    let mut logits = data(8, rows * width);
    (logits[17], logits[4500], logits[4501]) = (f32::NAN, 30.0, 30.0);
    let bytes = pack(&logits);
    let n = rows * launch::top_slices(width) * count;
    let [slice_values, slice_indices, top] = [n, n, 2 * rows * count].map(|n| executor.create(4 * n).unwrap());
    let logits = executor.buffer(&bytes).unwrap();
    let buffers = TopBuffers { logits: &logits, slice_values: &slice_values, slice_indices: &slice_indices, top: &top };
    executor.run(&launch::top(rows, width, count, &buffers)).unwrap();
    let mut got = vec![0; 4 * rows * count];
    executor.download(&top, 4 * rows * count, &mut got).unwrap();
    let got: Vec<u32> = got.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    for (row, got) in unpack(&bytes).chunks(width).zip(got.chunks(count)) {
        let mut order: Vec<u32> = (0..width as u32).filter(|i| !row[*i as usize].is_nan()).collect();
        order.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b)));
        if got != &order[..count] {
            return Err(format!("{got:?} for {:?}", &order[..count]));
        }
    }
    Ok(())
}

/// All of them, by name. `executor`: of an order of lanes.
pub fn all<E: Executor>(executor: impl Fn(u32) -> E) -> Vec<(String, Result<(), String>)> {
    let mut results = Vec::new();
    for (count, order) in [(1, 0), (40, 1), (7, 9)] {
        let e = executor(order);
        let mut add = |name: &str, result| results.push((format!("{name} in lane order {order}"), result));
        add("add_rms_norm", norms(&e));
        add("gate_mul", gates(&e));
        add("top", top(&e, count));
    }
    results
}
