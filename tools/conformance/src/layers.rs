//! What a compute device computes as whole layers: gated delta nets and mixtures of experts. One device's results are
//! compared with another's.
use crate::rows::Stored;
use crate::{Case, noise};
use attention::{
    AttentionPlan, BatchLayout, Centring, CpuBackend, ForwardContext, SequenceStates, StateId, StateLayout, StatePool,
};
use candle_core::{Result, Tensor};
use compute::{
    ComputeDevice, DeltaNetInput, DeltaNetSizes, DeltaNetWeights, ExpertWeights, PlacedLayer, Routing, StoredMatrix,
};
use matmul::WeightType;
use std::ops::Range;
use std::sync::Arc;
use turboquant::Format;

/// The state of the tested layer, which is not the first.
const LAYER: StateId = StateId(1);
/// State slots of the pool.
const SLOTS: usize = 5;

/// A gated delta net on a device, with the states of some sequences. A sequence is named by its state slot, which its
/// inputs depend on.
pub struct DeltaNet<'a> {
    device: &'a dyn ComputeDevice,
    sizes: DeltaNetSizes,
    placed: PlacedLayer,
    /// The states.
    pub states: StatePool,
}

impl<'a> DeltaNet<'a> {
    /// A layer of these sizes.
    ///
    /// # Errors
    /// Sizes that the device does not compute; no memory.
    pub fn new(device: &'a dyn ComputeDevice, sizes: DeltaNetSizes) -> Result<Self> {
        let weights = DeltaNetWeights {
            sizes,
            eps: 1e-6,
            conv: values(1, sizes.conv_kernel * sizes.channels(), 1.0),
            // States are halved by a token, or keep all but a thousandth.
            decay: (0..sizes.value_heads).map(|i| (0.5f32.powi(i as i32 * 3), noise(2, i as u64))).collect(),
            norm: values(3, sizes.value_dim, 1.0),
        };
        let states = device.states(StateLayout::new([8, sizes.state_len()]), SLOTS)?;
        Ok(DeltaNet { device, sizes, placed: device.place_delta_net(weights)?, states })
    }

    /// Computes a step of some positions of some sequences; each one's output, `[positions][values]`.
    ///
    /// # Errors
    /// Whatever the device refuses.
    pub fn step(&self, chunks: &[(u32, Range<usize>)]) -> Result<Vec<Vec<f32>>> {
        let sizes = &self.sizes;
        let mut layout = BatchLayout::default();
        for (_, positions) in chunks {
            layout.cu_seqlens_q.push((layout.num_tokens() + positions.len()) as u32);
            layout.seq_lens.push(positions.end as u32);
            layout.positions.extend(positions.clone().map(|position| position as u32));
            layout.slot_mapping.resize(layout.num_tokens(), 0);
            layout.block_tables.push(Vec::new());
        }
        let rows = layout.num_tokens();
        let tensor = |of: fn(&DeltaNetSizes, u32, usize) -> [Vec<f32>; 4], i: usize| {
            let each = chunks.iter().flat_map(|(slot, positions)| positions.clone().map(move |at| (*slot, at)));
            let all: Vec<f32> = each.flat_map(|(slot, at)| of(sizes, slot, at)[i].clone()).collect();
            Tensor::from_vec(all.clone(), (rows, all.len() / rows), self.device.tensors())
        };
        let (qkv, z, b, a) = (tensor(inputs, 0)?, tensor(inputs, 1)?, tensor(inputs, 2)?, tensor(inputs, 3)?);
        let slots: Vec<u32> = chunks.iter().map(|(slot, _)| *slot).collect();
        // A delta net asks nothing of attention.
        let of_attention = Case {
            k: Format::F32,
            v: Format::F32,
            head_dim: 64,
            kv_heads: 1,
            group: 1,
            block_size: 16,
            sliding_window: None,
            rope: true,
        };
        let (kv, geometry) = of_attention.model();
        let centring = Centring::none(&geometry);
        let backend = CpuBackend::new(kv, geometry, centring)?;
        let plan = AttentionPlan { layout: Arc::new(layout), prepared: None };
        let states = SequenceStates { pool: &self.states, slots: &slots, inputs: None };
        let ctx = ForwardContext::new(&backend, &plan, states);
        let input = DeltaNetInput { qkv: &qkv, z: &z, b: &b, a: &a };
        let mut out = None;
        self.device.pass(&mut || out = Some(self.device.delta_net(&self.placed, input, LAYER, &ctx)));
        let out = out.transpose()?.expect("a device runs what it is given");
        let mut rest = self.device.read(&[&out])?.remove(0).into_iter();
        let values = sizes.values();
        Ok(chunks.iter().map(|(_, positions)| rest.by_ref().take(positions.len() * values).collect()).collect())
    }
}

/// What projections give for a position: qkv, z, b and a.
fn inputs(sizes: &DeltaNetSizes, slot: u32, at: usize) -> [Vec<f32>; 4] {
    let seed = |i: u64| 100 + 10 * u64::from(slot) + i;
    let part = |i: u64, width: usize, size: f32| {
        (0..width).map(|j| size * noise(seed(i), (at * width + j) as u64)).collect::<Vec<f32>>()
    };
    [
        part(0, sizes.channels(), 2.0),
        part(1, sizes.values(), 3.0),
        part(2, sizes.value_heads, 4.0),
        part(3, sizes.value_heads, 4.0),
    ]
}

/// The largest difference, relative to the root mean square of what is wanted; infinite for NaN.
pub fn relative_error(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len(), "as many elements");
    let size = (want.iter().map(|x| x * x).sum::<f32>() / want.len() as f32).sqrt();
    let errors = got.iter().zip(want).map(|(got, want)| (got - want).abs() / size);
    errors.fold(0.0, |most: f32, e| if e.is_nan() { f32::INFINITY } else { most.max(e) })
}

fn values(seed: u64, n: usize, size: f32) -> Vec<f32> {
    (0..n).map(|i| size * noise(seed, i as u64)).collect()
}

/// The bound of [`relative_error`] between a mixture on a GPU and on the CPU. A GPU rounds a product's rows, and f32
/// weights, to 11 bits, by 2^-12 of an element on average at most, in three products of which one follows the others.
/// Elements differ in size by their experts' weights and by two factors of their own, so the largest error of some
/// thousand is many times the average: up to 5.9 times 2^-11 was seen. A wrong expert errs by a hundred times as much.
pub const MIXTURE_BOUND: f32 = 8.0 / 2048.0;

/// A mixture of experts whose weights are stored as `kinds` says of gate, up and down.
pub struct Mixture {
    /// Types of the weights.
    pub kinds: [WeightType; 3],
    /// Width of rows.
    pub hidden: usize,
    /// Inner width of an expert.
    pub inner: usize,
    /// Experts.
    pub experts: usize,
    /// How they are chosen.
    pub routing: Routing,
}

impl Mixture {
    fn matrices(&self, which: usize) -> Vec<Arc<dyn StoredMatrix>> {
        let (n, k) = if which == 2 { (self.hidden, self.inner) } else { (self.inner, self.hidden) };
        let matrix = |i| Stored::quantised(self.kinds[which], n, k, &values(50 + 3 * i + which as u64, n * k, 1.0));
        (0..self.experts as u64).map(matrix).collect()
    }

    /// The rows and their logits, many of which are equal.
    fn row(&self, i: usize) -> (Vec<f32>, Vec<f32>) {
        let logits = values(41 + i as u64 * 7, self.experts, 3.0).into_iter().map(|x| (2.0 * x).round() / 2.0);
        (values(40 + i as u64 * 7, self.hidden, 1.0), logits.collect())
    }

    /// Computes some rows on a device: `[rows][hidden]`.
    ///
    /// # Errors
    /// Whatever the device refuses.
    pub fn run(&self, device: &dyn ComputeDevice, rows: Range<usize>) -> Result<Vec<f32>> {
        let [gate, up, down] = [0, 1, 2].map(|which| self.matrices(which));
        let placed = device.place_experts(ExpertWeights { gate, up, down, routing: self.routing })?;
        let (x, logits): (Vec<_>, Vec<_>) = rows.clone().map(|i| self.row(i)).unzip();
        let x = Tensor::from_vec(x.concat(), (rows.len(), self.hidden), device.tensors())?;
        let logits = Tensor::from_vec(logits.concat(), (rows.len(), self.experts), device.tensors())?;
        Ok(device.read(&[&device.experts(&placed, &x, &logits)?])?.remove(0))
    }
}
