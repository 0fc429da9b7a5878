//! The gated delta net: linear attention whose state forgets by a gate and is corrected by a delta rule (Yang et al.,
//! arXiv:2412.06464), as Qwen3-Next and Qwen3.5 use it.
use super::{Linear, Residual};
use crate::config::{DeltaNetSizes, ModelConfig};
use crate::error::LoadResult;
use crate::weights::Weights;
use attention::{ForwardContext, StateId};
use candle_core::{Result, Tensor, bail};
use compute::ComputeDevice;
use rayon::prelude::*;
use std::sync::Arc;

/// A layer that mixes tokens by a recurrence over a state of fixed size.
pub(crate) struct GatedDeltaNet {
    id: StateId,
    device: Arc<dyn ComputeDevice>,
    sizes: DeltaNetSizes,
    eps: f32,
    qkv: Linear,
    /// Projects to the gate of the output.
    z: Linear,
    /// Projects to how much of the delta the state takes in.
    b: Linear,
    /// Projects to how fast the state forgets.
    a: Linear,
    out: Linear,
    /// `[conv_kernel][channels]`, the oldest token first.
    conv: Vec<f32>,
    /// For each value head, exp(A_log) and dt_bias: a token's state is multiplied by
    /// exp(-exp(A_log) * softplus(a + dt_bias)).
    decay: Vec<(f32, f32)>,
    /// `[value_dim]`.
    norm: Vec<f32>,
}

/// What the projections gave for the rows of one sequence.
struct Projected<'a> {
    qkv: &'a [f32],
    z: &'a [f32],
    b: &'a [f32],
    a: &'a [f32],
}

impl GatedDeltaNet {
    /// Loads a layer whose state is `id` from `w`, the layer's `linear_attn`.
    pub fn load(w: &Weights, id: StateId, sizes: DeltaNetSizes, config: &ModelConfig) -> LoadResult<Self> {
        let hidden = config.hidden_size;
        let (values, channels) = (sizes.value_heads * sizes.value_dim, sizes.channels());
        let conv = w.elements("conv1d.weight", &[channels, 1, sizes.conv_kernel])?;
        let taps = (0..sizes.conv_kernel).flat_map(|tap| conv.iter().skip(tap).step_by(sizes.conv_kernel));
        let conv = taps.copied().collect();
        let a_log = w.vector("A_log", sizes.value_heads)?;
        let dt_bias = w.vector("dt_bias", sizes.value_heads)?;
        Ok(GatedDeltaNet {
            id,
            device: Arc::clone(w.device()),
            sizes,
            eps: config.rms_norm_eps as f32,
            qkv: Linear::load(w, "in_proj_qkv", channels, hidden, false)?,
            z: Linear::load(w, "in_proj_z", values, hidden, false)?,
            b: Linear::load_exact(w, "in_proj_b", sizes.value_heads, hidden)?,
            a: Linear::load_exact(w, "in_proj_a", sizes.value_heads, hidden)?,
            out: Linear::load(w, "out_proj", hidden, values, false)?,
            conv,
            decay: a_log.into_iter().map(f32::exp).zip(dt_bias).collect(),
            norm: w.vector("norm.weight", sizes.value_dim)?,
        })
    }

    /// How many elements are kept of a sequence.
    pub fn state_len(&self) -> usize {
        self.sizes.state_len()
    }

    /// Adds the layer of the rows h, `[num_tokens, hidden]`, to the stream. Tokens go in one by one in the same form, a
    /// prompt's as an answer's, so the cut of a prompt does not show. The recurrence runs on the CPU, wherever the
    /// projections do; a GPU is waited for once.
    pub fn add_to(&self, stream: &mut Residual, h: &Tensor, ctx: &ForwardContext<'_>) -> Result<()> {
        let rows = self.device.rows(h)?;
        let [qkv, z, b, a] = Linear::forward_all([&self.qkv, &self.z, &self.b, &self.a], &rows)?;
        let read = self.device.read(&[&qkv, &z, &b, &a])?;
        let [qkv, z, b, a] = &*read else { bail!("as many rows as were read") };
        let (heads, channels) = (self.sizes.value_heads, self.sizes.channels());
        let width = heads * self.sizes.value_dim;
        let mut out = vec![0f32; z.len()];
        for seq in 0..ctx.layout().num_seqs() {
            let at = ctx.layout().rows(seq);
            let part = |width: usize| at.start * width..at.end * width;
            let rows =
                Projected { qkv: &qkv[part(channels)], z: &z[part(width)], b: &b[part(heads)], a: &a[part(heads)] };
            let out = &mut out[part(width)];
            ctx.with_state(seq, self.id, |state| self.sequence(&rows, state, out))?;
        }
        let out = Tensor::from_vec(out, (h.dim(0)?, width), h.device())?;
        stream.add_projection(&self.out, &self.device.rows(&out)?)
    }

    /// Computes the tokens of one sequence. out: `[tokens][value_heads][value_dim]`.
    fn sequence(&self, rows: &Projected<'_>, state: &mut [f32], out: &mut [f32]) {
        let (conv_state, recurrent) = state.split_at_mut(self.sizes.conv_len());
        let mixed = self.convolve(rows.qkv, conv_state);
        let (heads, width) = (self.sizes.value_heads, self.sizes.value_dim);
        let each = recurrent.par_chunks_exact_mut(self.sizes.key_dim * width).enumerate();
        let by_head: Vec<Vec<f32>> = each.map(|(head, state)| self.head(head, rows, &mixed, state)).collect();
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            out.copy_from_slice(&by_head[i % heads][i / heads * width..][..width]);
        }
    }

    /// The causal convolution of each channel over its last `conv_kernel` tokens, then SiLU. The state becomes the last
    /// inputs.
    fn convolve(&self, inputs: &[f32], state: &mut [f32]) -> Vec<f32> {
        let channels = self.sizes.channels();
        let all = [&*state, inputs].concat();
        let mut out = vec![0f32; inputs.len()];
        out.par_chunks_exact_mut(channels).enumerate().for_each(|(token, out)| {
            let seen = all[token * channels..].chunks_exact(channels);
            for (tap, x) in self.conv.chunks_exact(channels).zip(seen) {
                out.iter_mut().zip(tap.iter().zip(x)).for_each(|(out, (w, x))| *out += w * x);
            }
            out.iter_mut().for_each(|x| *x *= sigmoid(*x));
        });
        state.copy_from_slice(&all[inputs.len()..]);
        out
    }

    /// The recurrence of one value head, token by token, and the gated norm of what it gives: `[tokens][value_dim]`.
    fn head(&self, head: usize, rows: &Projected<'_>, mixed: &[f32], state: &mut [f32]) -> Vec<f32> {
        let DeltaNetSizes { key_heads, value_heads, key_dim, value_dim, .. } = self.sizes;
        let (keys, key_head) = (key_heads * key_dim, head / (value_heads / key_heads));
        let (exp_a, dt_bias) = self.decay[head];
        let mut out = vec![0f32; rows.z.len() / value_heads];
        let tokens = mixed.chunks_exact(self.sizes.channels()).zip(out.chunks_exact_mut(value_dim));
        for (token, (mixed, out)) in tokens.enumerate() {
            let q = unit(&mixed[key_head * key_dim..][..key_dim], 1.0 / (key_dim as f32).sqrt());
            let k = unit(&mixed[keys + key_head * key_dim..][..key_dim], 1.0);
            let v = &mixed[2 * keys + head * value_dim..][..value_dim];
            let at = token * value_heads + head;
            let keep = (-exp_a * softplus(rows.a[at] + dt_bias)).exp();
            delta_rule(state, &q, &k, v, keep, sigmoid(rows.b[at]), out);
            self.gated_norm(out, &rows.z[at * value_dim..][..value_dim]);
        }
        out
    }

    /// Replaces x by its RMS norm times the SiLU of the gate.
    fn gated_norm(&self, x: &mut [f32], z: &[f32]) {
        let mean = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
        let scale = 1.0 / (mean + self.eps).sqrt();
        x.iter_mut().zip(self.norm.iter().zip(z)).for_each(|(x, (w, z))| *x = *x * scale * w * z * sigmoid(*z));
    }
}

/// Takes in one token: the state `[key_dim][value_dim]` forgets, predicts the value at `k`, takes in `beta` of what it
/// missed, and is read at `q`. Sums run along the keys.
fn delta_rule(state: &mut [f32], q: &[f32], k: &[f32], v: &[f32], keep: f32, beta: f32, out: &mut [f32]) {
    let width = v.len();
    let mut delta = vec![0f32; width];
    for (row, k) in state.chunks_exact_mut(width).zip(k) {
        for (s, sum) in row.iter_mut().zip(&mut delta) {
            *s *= keep;
            *sum += *s * k;
        }
    }
    delta.iter_mut().zip(v).for_each(|(d, v)| *d = (v - *d) * beta);
    out.fill(0.0);
    for (row, (k, q)) in state.chunks_exact_mut(width).zip(k.iter().zip(q)) {
        for ((s, d), out) in row.iter_mut().zip(&delta).zip(out.iter_mut()) {
            *s += k * d;
            *out += *s * q;
        }
    }
}

/// x, scaled to the length `length`.
fn unit(x: &[f32], length: f32) -> Vec<f32> {
    let square: f32 = x.iter().map(|x| x * x).sum();
    let scale = 1.0 / (square + 1e-6).sqrt();
    x.iter().map(|x| x * scale * length).collect()
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// ln(1 + e^x); beyond 20 the difference from x is below an f32's last place.
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}
