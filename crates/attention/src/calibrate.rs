//! Measures the constants of a model's keys while it runs.
use crate::centre::layer_transforms;
use crate::{AttentionPlan, BackendHook, KeyCentring, KeyConstants, LayerGeometry, LayerId, ModelGeometry};
use candle_core::{DType, Device, Result, Tensor};
use std::sync::{Mutex, MutexGuard};

/// The first tokens of a text are left out: their keys are unlike all others ("attention sinks", Xiao et al.,
/// arXiv:2309.17453).
const FIRST_TOKENS: u32 = 4;

/// Pair scales lie between this and its inverse. A scale of 16 is that of a pair whose queries have 65,536 times the
/// energy of its keys, relative to other pairs: beyond that the errors of either do not matter any more. It also keeps
/// queries, which grow by at most as much, below the 65,504 that a GPU's halves hold.
const LARGEST_SCALE: f64 = 16.0;

/// Sums up K and Q of a model that runs over an exact cache: first over a text, then over many short starts of texts.
pub struct KeyCalibration {
    geometry: ModelGeometry,
    sums: Mutex<Sums>,
}

struct Sums {
    starts: bool,
    layers: Vec<LayerSums>,
}

/// Sums of one layer.
struct LayerSums {
    /// Keys of the text.
    keys: Moments,
    /// Queries of the text, those of a GQA group taken together.
    queries: Moments,
    /// Keys of the starts, by position.
    starts: Vec<Moments>,
}

/// Sums of vectors before RoPE and of their squares, by kv head and element.
struct Moments {
    count: usize,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

/// What was found out about a model's keys.
#[derive(Debug, Clone, PartialEq)]
pub struct CalibrationReport {
    /// The share of the keys' energy that is subtracted from coded keys, mean over layers.
    pub share: f64,
    /// The smallest and the largest pair scale.
    pub scales: [f64; 2],
    /// How far the keys at positions 0, 1 .. of a text lie from the mean, relative to later ones: squared distances,
    /// mean over kv heads.
    pub distances: Vec<f64>,
}

impl Moments {
    fn new(len: usize) -> Self {
        Moments { count: 0, sum: vec![0.0; len], squares: vec![0.0; len] }
    }

    /// Adds vectors, `[heads][head_dim]` of one row; as many heads in a row as `group` says count as one head's.
    fn add(&mut self, row: &[f32], group: usize, head_dim: usize) {
        self.count += group;
        for (i, head) in row.chunks_exact(head_dim).enumerate() {
            let at = i / group * head_dim;
            for ((x, sum), square) in head.iter().zip(&mut self.sum[at..]).zip(&mut self.squares[at..]) {
                *sum += f64::from(*x);
                *square += f64::from(*x).powi(2);
            }
        }
    }

    fn mean(&self) -> Vec<f64> {
        self.sum.iter().map(|s| s / self.count.max(1) as f64).collect()
    }

    /// Mean squares of the elements' distances from `point`.
    fn energy(&self, point: &[f64]) -> Vec<f64> {
        let n = self.count.max(1) as f64;
        let elements = self.sum.iter().zip(&self.squares).zip(point);
        // Rounding may leave a negative number of a constant element.
        elements.map(|((s, square), p)| ((square - 2.0 * p * s) / n + p * p).max(0.0)).collect()
    }
}

impl KeyCalibration {
    /// Nothing has been summed up of the layers of `geometry` yet. `start_len`: tokens of a start.
    pub fn new(geometry: &ModelGeometry, start_len: usize) -> Self {
        let layers = geometry.layers.iter().map(|layer| {
            let moments = || Moments::new(layer.kv_heads * layer.head_dim);
            LayerSums { keys: moments(), queries: moments(), starts: (0..start_len).map(|_| moments()).collect() }
        });
        let sums = Sums { starts: false, layers: layers.collect() };
        KeyCalibration { geometry: geometry.clone(), sums: Mutex::new(sums) }
    }

    /// What follows are starts, no longer the text.
    pub fn begin_starts(&self) {
        self.sums().starts = true;
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The constants of all layers, and what is to be said of them.
    ///
    /// # Errors
    /// A layer whose RoPE has more pairs than half of its head size; keys that are not finite.
    pub fn finish(&self) -> Result<(KeyConstants, CalibrationReport)> {
        let sums = self.sums();
        let (mut constants, mut share) = (KeyConstants::default(), 0.0);
        let mut scales = [f64::INFINITY, 0.0];
        // Starts of a short text are short.
        let seen = |layer: &LayerSums| layer.starts.iter().take_while(|start| start.count > 0).count();
        let mut distances = vec![0.0; sums.layers.first().map_or(0, seen)];
        let mut heads = 0;
        let f32s = |values: &[f64]| values.iter().map(|x| *x as f32).collect::<Vec<f32>>();
        for (layer, sums) in self.geometry.layers.iter().zip(&sums.layers) {
            let d = layer.head_dim;
            let mean = sums.keys.mean();
            let (means, ones) = (f32s(&mean), vec![1.0; mean.len()]);
            let transforms = layer_transforms(layer, KeyCentring::Approximated, &means, &means, &ones)?;
            let subtracted: Vec<f64> = transforms.iter().flat_map(|t| t.subtracted()).map(|x| f64::from(*x)).collect();
            let (all, rest) = (sums.keys.energy(&vec![0.0; mean.len()]), sums.keys.energy(&subtracted));
            share += 1.0 - total(&rest) / total(&all).max(f64::MIN_POSITIVE);
            let queries = sums.queries.energy(&vec![0.0; mean.len()]);
            let of_heads = queries.chunks_exact(d).zip(rest.chunks_exact(d));
            let of_layer: Vec<f64> = of_heads.flat_map(|(q, k)| pair_scales(layer, q, k)).collect();
            scales = of_layer.iter().fold(scales, |[low, high], s| [low.min(*s), high.max(*s)]);
            let later = sums.keys.energy(&mean);
            for (distance, start) in distances.iter_mut().zip(&sums.starts) {
                let of_start = start.energy(&mean);
                let ratio = |(a, b): (&[f64], &[f64])| total(a) / total(b).max(f64::MIN_POSITIVE);
                *distance += of_start.chunks_exact(d).zip(later.chunks_exact(d)).map(ratio).sum::<f64>();
            }
            heads += layer.kv_heads;
            let first_mean = sums.starts.first().filter(|start| start.count > 0).map_or(mean, Moments::mean);
            constants.means.push(means);
            constants.first_means.push(f32s(&first_mean));
            constants.scales.push(f32s(&of_layer));
        }
        distances.iter_mut().for_each(|distance| *distance /= heads.max(1) as f64);
        let share = share / self.geometry.layers.len().max(1) as f64;
        Ok((constants, CalibrationReport { share, scales, distances }))
    }
}

fn total(values: &[f64]) -> f64 {
    values.iter().sum()
}

/// The scales of a kv head's elements that make the error of its logits least: the fourth root of the queries' energy
/// over that of what is stored of the keys, the same for both elements of a RoPE pair. Their geometric mean is 1. An
/// element without energy in one of the two has no use for a scale and gets 1.
fn pair_scales(layer: &LayerGeometry, queries: &[f64], keys: &[f64]) -> Vec<f64> {
    let rope = layer.rope.as_ref();
    let pairs = rope.map_or(0, |rope| rope.pairs());
    let of_pair = |energy: &[f64], i: usize| match rope {
        Some(rope) if i < 2 * pairs => {
            let (x, y) = rope.elements(i % pairs);
            energy[x] + energy[y]
        }
        _ => energy[i],
    };
    let scale = |i: usize| {
        let (q, k) = (of_pair(queries, i), of_pair(keys, i));
        (q > 0.0 && k > 0.0).then(|| (q.ln() - k.ln()) / 4.0)
    };
    let logs: Vec<Option<f64>> = (0..layer.head_dim).map(scale).collect();
    let used = logs.iter().flatten().count().max(1) as f64;
    let mean = logs.iter().flatten().sum::<f64>() / used;
    let limit = LARGEST_SCALE.ln();
    logs.iter().map(|log| log.map_or(1.0, |log| (log - mean).clamp(-limit, limit).exp())).collect()
}

fn rows(t: &Tensor) -> Result<Vec<Vec<f32>>> {
    t.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_from(1)?.to_vec2()
}

impl BackendHook for KeyCalibration {
    fn store(&self, layer: LayerId, k: &Tensor, v: &Tensor, plan: &AttentionPlan) -> Result<(Tensor, Tensor)> {
        let (keys, d) = (rows(k)?, self.geometry.layers[layer.0].head_dim);
        let mut sums = self.sums();
        let starts = sums.starts;
        let sums = &mut sums.layers[layer.0];
        for (row, position) in keys.iter().zip(&plan.layout.positions) {
            if starts {
                if let Some(moments) = sums.starts.get_mut(*position as usize) {
                    moments.add(row, 1, d);
                }
            } else if *position >= FIRST_TOKENS {
                sums.keys.add(row, 1, d);
            }
        }
        Ok((k.clone(), v.clone()))
    }

    fn query(&self, layer: LayerId, q: &Tensor, plan: &AttentionPlan) -> Result<Tensor> {
        let geometry = &self.geometry.layers[layer.0];
        let mut sums = self.sums();
        if !sums.starts {
            for (row, position) in rows(q)?.iter().zip(&plan.layout.positions) {
                if *position >= FIRST_TOKENS {
                    sums.layers[layer.0].queries.add(row, geometry.group(), geometry.head_dim);
                }
            }
        }
        Ok(q.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BatchLayout;
    use std::sync::Arc;
    use turboquant::Rope;

    const D: usize = 16;

    /// One kv head with two query heads; 4 RoPE pairs, of which one is of high frequency, beside 8 other elements.
    fn layer() -> LayerGeometry {
        let rope = Rope::new(vec![0.5, 0.04, 0.01, 0.001], 1.0).unwrap();
        LayerGeometry { num_heads: 2, kv_heads: 1, head_dim: D, scale: 1.0, sliding_window: None, rope: Some(rope) }
    }

    fn plan(positions: &[u32]) -> AttentionPlan {
        let layout = BatchLayout { positions: positions.to_vec(), ..BatchLayout::default() };
        AttentionPlan { layout: Arc::new(layout), prepared: None }
    }

    fn feed(calibration: &KeyCalibration, positions: &[u32], k: impl Fn(u32, usize) -> f32, q: [f32; 2]) {
        let (plan, n) = (plan(positions), positions.len());
        let keys: Vec<f32> = positions.iter().flat_map(|p| (0..D).map(|i| k(*p, i)).collect::<Vec<_>>()).collect();
        let queries: Vec<f32> = (0..n).flat_map(|_| q.map(|q| [q; D])).flatten().collect();
        let tensor = |data, heads| Tensor::from_vec(data, (n, heads, D), &Device::Cpu).unwrap();
        let keys = tensor(keys, 1);
        calibration.store(LayerId(0), &keys, &keys, &plan).unwrap();
        calibration.query(LayerId(0), &tensor(queries, 2), &plan).unwrap();
    }

    /// Element i of a key is 10 + i, plus and minus `spread(i)` in turn.
    fn key(position: u32, i: usize) -> f32 {
        10.0 + i as f32 + if position.is_multiple_of(2) { spread(i) } else { -spread(i) }
    }

    fn spread(i: usize) -> f32 {
        // Element 15 is constant. The energies of both elements of a pair differ.
        if i == 15 { 0.0 } else { 1.0 + i as f32 / 8.0 }
    }

    #[test]
    fn constants_follow_from_the_text_and_the_starts() {
        let calibration = KeyCalibration::new(&ModelGeometry { layers: vec![layer()] }, 3);
        // The first four tokens of the text are unlike the others; two query heads have 25 in the mean of squares.
        feed(&calibration, &[0, 1, 2, 3], |_, _| 1e6, [1e6; 2]);
        feed(&calibration, &[4, 5, 6, 7], key, [1.0, 7.0]);
        calibration.begin_starts();
        // Keys at positions 0 and 1 of two starts; later positions are of the text alone.
        feed(&calibration, &[0, 1, 0, 1], |p, i| if p == 0 { 3.0 } else { key(4, i) }, [1e6; 2]);
        let (constants, report) = calibration.finish().unwrap();
        let mean: Vec<f32> = (0..D).map(|i| 10.0 + i as f32).collect();
        assert_eq!(constants.means, [mean]);
        assert_eq!(constants.first_means, [[3.0; D]]);

        // A pair's energy is that of both its elements. All means are subtracted, and element 15 has no energy left.
        let energy = |i: usize| f64::from(spread(i)).powi(2);
        let stored = |i: usize| if i < 8 { energy(i % 4) + energy(i % 4 + 4) } else { energy(i) };
        let asked = |i: usize| if i < 8 { 50.0 } else { 25.0 };
        let scale = |i: usize| (asked(i) / stored(i)).powf(0.25);
        let mean = (0..15).map(|i| scale(i).ln()).sum::<f64>() / 15.0;
        for (i, got) in constants.scales[0].iter().enumerate() {
            let want = if i == 15 { 1.0 } else { scale(i) / mean.exp() };
            assert!((f64::from(*got) - want).abs() < 1e-6, "element {i}: {got} for {want}");
        }
        let (low, high) = constants.scales[0].iter().fold((f32::MAX, 0f32), |(l, h), s| (l.min(*s), h.max(*s)));
        assert_eq!(report.scales.map(|s| s as f32), [low, high]);

        let (noise, constant): (f64, f64) =
            (0..D).map(|i| (energy(i), (10.0 + i as f64).powi(2))).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        assert!((report.share - constant / (constant + noise)).abs() < 1e-9);
        let first: f64 = (0..D).map(|i| (7.0 + i as f64).powi(2)).sum();
        for (got, want) in report.distances.iter().zip([first / noise, 1.0]) {
            assert!((got / want - 1.0).abs() < 1e-6, "{got} for {want}");
        }
    }

    /// However unlike the pairs, scales stay in their range.
    #[test]
    fn scales_are_bounded() {
        let mut energies = [1.0; D];
        (energies[8], energies[9]) = (1e30, 1e-30);
        let scales = pair_scales(&layer(), &energies, &[1.0; D]);
        assert!((scales[8] / LARGEST_SCALE - 1.0).abs() < 1e-12 && (scales[9] * LARGEST_SCALE - 1.0).abs() < 1e-12);
    }
}
