//! The helpers against f64.
use conformance::noise;
use half::{bf16, f16};
use metal::launch::{self, NormBuffers, RopeBuffers, TopBuffers};
use metal::{Element, Executor, RopeParams};

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

/// A norm of a few rows, and residual + norm.
pub fn norms<E: Executor>(executor: &E, element: Element) -> Result<(), String> {
    for (rows, width) in [(3, 100), (2, 1536)] {
        let n = rows * width;
        let bytes = [data(1, n), data(2, width), data(3, n)].map(|x| pack(element, &x));
        let [x, weight, delta] = [0, 1, 2].map(|i| executor.buffer(&bytes[i]).unwrap());
        let [sum, out] = [0, 1].map(|_| executor.create(n * element.bytes()).unwrap());
        let eps = 1e-5;
        let buffers = NormBuffers { x: &x, delta: &delta, sum: &sum, weight: &weight, out: &out };
        let unpacked = [0, 1, 2].map(|i| unpack(element, &bytes[i]));
        let sums: Vec<f64> = unpacked[0].iter().zip(&unpacked[2]).map(|(a, b)| a + b).collect();
        for add in [false, true] {
            executor.run(&[launch::add_rms_norm(element, rows, (width, add, eps), &buffers)]).unwrap();
            let new = if add { read(executor, element, &sum, n) } else { unpacked[0].clone() };
            close(&new, if add { &sums } else { &unpacked[0] }, rounding(element), 1e-6, "sum")?;
            let norm = |row: &[f64]| {
                let mean = row.iter().map(|r| r * r).sum::<f64>() / width as f64;
                let scaled = row.iter().zip(&unpacked[1]).map(|(r, w)| r * w / (mean + f64::from(eps)).sqrt());
                scaled.collect::<Vec<f64>>()
            };
            let want: Vec<f64> = new.chunks(width).flat_map(norm).collect();
            close(&read(executor, element, &out, n), &want, rounding(element), 1e-6, "norm")?;
        }
    }
    Ok(())
}

/// silu(gate) x up, sigmoid(gate) x up.
pub fn gates<E: Executor>(executor: &E, element: Element) -> Result<(), String> {
    let n = 777;
    let scaled: Vec<f32> = data(4, n).iter().map(|x| 5.0 * x).collect();
    let bytes = [scaled, data(5, n)].map(|x| pack(element, &x));
    let [gate, up] = [0, 1].map(|i| executor.buffer(&bytes[i]).unwrap());
    let out = executor.create(n * element.bytes()).unwrap();
    let [gates, others] = [0, 1].map(|i| unpack(element, &bytes[i]));
    for silu in [true, false] {
        executor.run(&[launch::gate_mul(element, n, silu, [&gate, &up, &out])]).unwrap();
        let weight = |g: f64| (if silu { g } else { 1.0 }) / (1.0 + (-g).exp());
        let want: Vec<f64> = gates.iter().zip(&others).map(|(g, u)| weight(*g) * u).collect();
        close(&read(executor, element, &out, n), &want, rounding(element), 1e-6, "gate")?;
    }
    Ok(())
}

/// RoPE of queries and keys.
pub fn rope<E: Executor>(executor: &E, element: Element) -> Result<(), String> {
    let (tokens, d, heads, kv_heads, pairs) = (5, 96, 3, 2, 40);
    let angles: Vec<f32> = data(9, tokens * pairs).iter().map(|x| 10.0 * x).collect();
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (1.1 * a.cos(), 1.1 * a.sin())).unzip();
    let bytes = [data(6, tokens * heads * d), data(7, tokens * kv_heads * d)].map(|x| pack(element, &x));
    let [q, k] = [0, 1].map(|i| executor.buffer(&bytes[i]).unwrap());
    let [q_out, k_out] = [0, 1].map(|i| executor.create(bytes[i].len()).unwrap());
    let [c, s] = [&cos, &sin].map(|x| executor.buffer(&pack(Element::F32, x)).unwrap());
    let sizes = [tokens, heads, kv_heads, d, pairs].map(|n| n as u32);
    let params =
        RopeParams { tokens: sizes[0], heads: sizes[1], kv_heads: sizes[2], head_dim: sizes[3], pairs: sizes[4] };
    let buffers = RopeBuffers { cos: &c, sin: &s, q: &q, k: &k, q_out: &q_out, k_out: &k_out };
    executor.run(&[launch::rope(element, params, &buffers)]).unwrap();
    for (buffer, bytes, heads) in [(&q_out, &bytes[0], heads), (&k_out, &bytes[1], kv_heads)] {
        let mut want = unpack(element, bytes);
        for (i, x) in want.chunks_mut(d).enumerate() {
            for pair in 0..pairs {
                let at = i / heads * pairs + pair;
                let (c, s, a, b) = (f64::from(cos[at]), f64::from(sin[at]), x[pair], x[pair + pairs]);
                (x[pair], x[pair + pairs]) = (a * c - b * s, a * s + b * c);
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

/// All of them, by name, in every element type. `executor`: of an order of lanes.
pub fn all<E: Executor>(executor: impl Fn(u32) -> E) -> Vec<(String, Result<(), String>)> {
    let mut results = Vec::new();
    for (element, count, order) in [(Element::F32, 1, 0), (Element::F16, 40, 1), (Element::Bf16, 7, 9)] {
        let e = executor(order);
        let mut add = |name: &str, result| results.push((format!("{name} {}", element.name()), result));
        add("add_rms_norm", norms(&e, element));
        add("gate_mul", gates(&e, element));
        add("rope", rope(&e, element));
        add("top", top(&e, element, count));
    }
    results
}
