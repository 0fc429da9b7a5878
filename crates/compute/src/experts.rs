//! A sparse mixture of feed-forward blocks: what a device is given of it, and the CPU's.
use crate::{ComputeDevice, PlacedWeight, Precision, StoredMatrix};
use candle_core::{Device, Result, Tensor, bail};
use std::sync::Arc;

/// How experts are chosen for a token: those that its router weighs most (Switch Transformer's top-k routing after a
/// softmax over all experts).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routing {
    /// How many experts a token goes through.
    pub per_token: usize,
    /// Whether the weights of a token's experts are scaled to a sum of 1.
    pub normalized: bool,
}

/// The weights of a layer's experts, in the order of their numbers. An expert computes down(silu(gate(x)) * up(x)).
pub struct ExpertWeights {
    /// `[inner, hidden]` each.
    pub gate: Vec<Arc<dyn StoredMatrix>>,
    /// `[inner, hidden]` each.
    pub up: Vec<Arc<dyn StoredMatrix>>,
    /// `[hidden, inner]` each.
    pub down: Vec<Arc<dyn StoredMatrix>>,
    /// How experts are chosen.
    pub routing: Routing,
}

/// The experts of a layer on the CPU.
pub(crate) struct CpuExperts {
    /// Gate, up and down of each.
    experts: Vec<[PlacedWeight; 3]>,
    routing: Routing,
}

/// The rows that are routed to an expert, and its weight in each of them.
#[derive(Clone, Default)]
struct Routed {
    rows: Vec<u32>,
    weights: Vec<f32>,
}

impl CpuExperts {
    /// Places the weights on `device`, the CPU.
    ///
    /// Errors: another number of weights of one projection than of another.
    pub fn new(device: &dyn ComputeDevice, weights: ExpertWeights) -> Result<Self> {
        let ExpertWeights { gate, up, down, routing } = weights;
        if gate.len() != up.len() || gate.len() != down.len() || routing.per_token > gate.len() {
            let counts = (gate.len(), up.len(), down.len());
            bail!("{} of the experts of {counts:?} weights a token", routing.per_token);
        }
        let place = |matrix| device.place(matrix, None, Precision::Fast);
        let experts = gate.into_iter().zip(up).zip(down);
        let experts = experts.map(|((gate, up), down)| Ok([place(gate)?, place(up)?, place(down)?]));
        Ok(CpuExperts { experts: experts.collect::<Result<_>>()?, routing })
    }

    /// Computes the mixture of the rows x. A row's sum runs over its experts by number, whatever other rows there are.
    pub fn forward(&self, device: &dyn ComputeDevice, x: &Tensor, logits: &Tensor) -> Result<Tensor> {
        let (num_rows, num_experts) = (x.dim(0)?, self.experts.len());
        if logits.dims() != [num_rows, num_experts] {
            bail!("logits of {:?} for {num_rows} rows and {num_experts} experts", logits.dims());
        }
        let logits: Vec<f32> = logits.flatten_all()?.to_vec1()?;
        let mut routed = vec![Routed::default(); num_experts];
        for (row, logits) in logits.chunks_exact(num_experts).enumerate() {
            for (expert, weight) in self.routing.route(logits) {
                routed[expert].rows.push(row as u32);
                routed[expert].weights.push(weight);
            }
        }
        let mut mixed = Vec::new();
        for (Routed { rows, weights }, [gate, up, down]) in routed.iter().zip(&self.experts) {
            if rows.is_empty() {
                continue;
            }
            let inner = device.gated_product(&device.rows(&device.select_rows(x, rows)?)?, gate, up)?;
            let [output] = &device.products(&inner, &[down])?[..] else { bail!("as many products as weights") };
            let (output, width): (Vec<f32>, _) = (output.flatten_all()?.to_vec1()?, down.rows());
            mixed.resize(num_rows * width, 0f32);
            for ((row, weight), y) in rows.iter().zip(weights).zip(output.chunks_exact(width)) {
                let mixed = &mut mixed[*row as usize * width..][..width];
                mixed.iter_mut().zip(y).for_each(|(mixed, y)| *mixed += weight * y);
            }
        }
        let width = mixed.len() / num_rows;
        Tensor::from_vec(mixed, (num_rows, width), &Device::Cpu)
    }
}

impl Routing {
    /// A token's experts and their weights, the largest weight first; of two equal ones, the lower number first.
    fn route(&self, logits: &[f32]) -> Vec<(usize, f32)> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut shares: Vec<(usize, f32)> = logits.iter().map(|l| (l - max).exp()).enumerate().collect();
        let all: f32 = shares.iter().map(|s| s.1).sum();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        shares.truncate(self.per_token);
        let chosen: f32 = shares.iter().map(|s| s.1).sum();
        let total = if self.normalized { chosen } else { all };
        shares.iter_mut().for_each(|s| s.1 /= total);
        shares
    }
}
