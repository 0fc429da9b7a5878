//! The helpers against f64.
use attention::conformance::noise;
use half::{bf16, f16};
use metal::launch::{self, RopeBuffers, TopBuffers};
use metal::{Element, Executor, RopeParams, RopeTables};
use turboquant::{Pairing, Rope};

fn pack(element: Element, x: &[f32]) -> Vec<u8> {
    let one = |x: &f32| match element {
        Element::F32 => x.to_le_bytes().to_vec(),
        Element::F16 => f16::from_f32(*x).to_le_bytes().to_vec(),
        Element::Bf16 => bf16::from_f32(*x).to_le_bytes().to_vec(),
    };
    x.iter().flat_map(one).collect()
}

fn unpack(element: Element, bytes: &[u8]) -> Vec<f64> {
    match element {
        Element::F32 => bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Element::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f64()).collect(),
        Element::Bf16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f64()).collect(),
    }
}

/// Half a unit in the last place, relative, and what f32 adds.
fn rounding(element: Element) -> f64 {
    match element {
        Element::F32 => 2e-6,
        Element::F16 => 2f64.powi(-11) + 2e-6,
        Element::Bf16 => 2f64.powi(-8) + 2e-6,
    }
}

fn read<E: Executor>(executor: &E, element: Element, buffer: &E::Buffer, n: usize) -> Vec<f64> {
    let mut bytes = vec![0; n * element.bytes()];
    executor.download(buffer, 0, &mut bytes).unwrap();
    unpack(element, &bytes)
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

/// Residual + RMSNorm of a few rows.
pub fn norms<E: Executor>(executor: &E, element: Element) -> Result<(), String> {
    for (rows, width) in [(3, 100), (2, 1536)] {
        let n = rows * width;
        let bytes = [data(1, n), data(2, width), data(3, n)].map(|x| pack(element, &x));
        let [x, weight, residual] = [&bytes[0], &bytes[1], &bytes[2]].map(|b| executor.buffer(b).unwrap());
        let out = executor.create(n * element.bytes()).unwrap();
        let eps = 1e-5;
        let launch = launch::add_rms_norm(element, rows, (width, true, eps), [&x, &weight, &residual, &out]);
        executor.run(&[launch]).unwrap();
        let [x, weight, old] = [0, 1, 2].map(|i| unpack(element, &bytes[i]));
        let sums: Vec<f64> = x.iter().zip(&old).map(|(a, b)| a + b).collect();
        let new = read(executor, element, &residual, n);
        close(&new, &sums, rounding(element), 1e-6, "residual")?;
        let want: Vec<f64> = new
            .chunks(width)
            .flat_map(|row| {
                let mean = row.iter().map(|r| r * r).sum::<f64>() / width as f64;
                row.iter().zip(&weight).map(move |(r, w)| r * w / (mean + f64::from(eps)).sqrt())
            })
            .collect();
        close(&read(executor, element, &out, n), &want, rounding(element), 1e-6, "norm")?;
    }
    Ok(())
}

/// SiLU x up.
pub fn silu<E: Executor>(executor: &E, element: Element) -> Result<(), String> {
    let n = 777;
    let scaled: Vec<f32> = data(4, n).iter().map(|x| 5.0 * x).collect();
    let bytes = [scaled, data(5, n)].map(|x| pack(element, &x));
    let [gate, up] = [&bytes[0], &bytes[1]].map(|b| executor.buffer(b).unwrap());
    let out = executor.create(n * element.bytes()).unwrap();
    executor.run(&[launch::silu_mul(element, n, [&gate, &up, &out])]).unwrap();
    let [gate, up] = [0, 1].map(|i| unpack(element, &bytes[i]));
    let want: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
    close(&read(executor, element, &out, n), &want, rounding(element), 1e-6, "silu")
}

/// RoPE of queries and keys.
pub fn rope<E: Executor>(executor: &E, element: Element, interleaved: bool) -> Result<(), String> {
    let (d, heads, kv_heads, pairs) = (96, 3, 2, 40);
    let frequencies: Vec<f32> = (0..pairs).map(|i| 1e4f32.powf(-(i as f32) / pairs as f32)).collect();
    let pairing = if interleaved { Pairing::Interleaved } else { Pairing::HalfSplit };
    let rope = Rope::new(d, &frequencies, pairing).unwrap();
    let tables = RopeTables::new(&rope, 1 << 17);
    let positions = [0u32, 1, 511, 512, 100_003];
    let bytes = [data(6, 5 * heads * d), data(7, 5 * kv_heads * d)].map(|x| pack(element, &x));
    let buffer = |bytes: &[u8]| executor.buffer(bytes).unwrap();
    let words: Vec<u8> = positions.iter().flat_map(|p| p.to_le_bytes()).collect();
    let (at, starts, offsets) = (buffer(&words), buffer(&tables.starts), buffer(&tables.offsets));
    let (q, k) = (buffer(&bytes[0]), buffer(&bytes[1]));
    let params = RopeParams {
        tokens: 5,
        heads: heads as u32,
        kv_heads: kv_heads as u32,
        head_dim: d as u32,
        pairs: pairs as u32,
        factor: 1.1,
    };
    let buffers = RopeBuffers { positions: &at, starts: &starts, offsets: &offsets, q: &q, k: &k };
    executor.run(&[launch::rope(element, interleaved, params, &buffers)]).unwrap();
    for (buffer, bytes, heads) in [(&q, &bytes[0], heads), (&k, &bytes[1], kv_heads)] {
        let mut want = unpack(element, bytes);
        for (i, x) in want.chunks_mut(d).enumerate() {
            for (pair, f) in frequencies.iter().enumerate() {
                let (s, c) = (f64::from(*f) * f64::from(positions[i / heads])).sin_cos();
                let (a, b) = if interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + pairs) };
                let (x0, x1) = (x[a] * 1.1, x[b] * 1.1);
                (x[a], x[b]) = (x0 * c - x1 * s, x0 * s + x1 * c);
            }
        }
        // A difference of two products of up to 2: a unit of f32 at 4, and of the result.
        close(&read(executor, element, buffer, want.len()), &want, rounding(element), 2e-6, "rope")?;
    }
    Ok(())
}

/// The largest logits, in order.
pub fn top<E: Executor>(executor: &E, element: Element, count: usize) -> Result<(), String> {
    let (rows, width) = (2, 9001);
    let mut logits = data(8, rows * width);
    (logits[17], logits[4500], logits[4501]) = (f32::NAN, 30.0, 30.0);
    let bytes = pack(element, &logits);
    let n = rows * launch::top_slices(width) * count;
    let [slice_values, slice_indices, values, indices] =
        [n, n, rows * count, rows * count].map(|n| executor.create(4 * n).unwrap());
    let logits = executor.buffer(&bytes).unwrap();
    let buffers = TopBuffers {
        logits: &logits,
        slice_values: &slice_values,
        slice_indices: &slice_indices,
        values: &values,
        indices: &indices,
    };
    executor.run(&launch::top(element, rows, width, count, &buffers)).unwrap();
    let mut got = vec![0; 4 * rows * count];
    executor.download(&indices, 0, &mut got).unwrap();
    let got: Vec<u32> = got.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    for (row, got) in unpack(element, &bytes).chunks(width).zip(got.chunks(count)) {
        let mut order: Vec<u32> = (0..width as u32).filter(|i| !row[*i as usize].is_nan()).collect();
        order.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b)));
        if got != &order[..count] {
            return Err(format!("{got:?} for {:?}", &order[..count]));
        }
    }
    Ok(())
}

/// All of them, by name, in every element type and both conventions of RoPE. `executor`: of an order of lanes.
pub fn all<E: Executor>(executor: impl Fn(u32) -> E) -> Vec<(String, Result<(), String>)> {
    let mut results = Vec::new();
    for (element, count, order) in [(Element::F32, 1, 0), (Element::F16, 40, 1), (Element::Bf16, 7, 9)] {
        let e = executor(order);
        let mut add = |name: &str, result| results.push((format!("{name} {}", element.name()), result));
        add("add_rms_norm", norms(&e, element));
        add("silu_mul", silu(&e, element));
        add("rope", rope(&e, element, false));
        add("interleaved rope", rope(&e, element, true));
        add("top", top(&e, element, count));
    }
    results
}
