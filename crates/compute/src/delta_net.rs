//! The gated delta net: linear attention whose state forgets by a gate and is corrected by a delta rule (Yang et al.,
//! arXiv:2412.06464), as Qwen3-Next and Qwen3.5 use it. What a device is given of it, and the CPU's recurrence.
use attention::{ForwardContext, StateId};
use candle_core::{CpuStorage, Result, Storage, Tensor, bail};
use rayon::prelude::*;

/// In which order a checkpoint has the value heads of a gated delta net that share their key heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadOrder {
    /// The value heads of a key head follow each other, as in Hugging Face's checkpoints.
    Grouped,
    /// The first value heads of all key heads follow each other, then the second ones, as in llama.cpp's files.
    Tiled,
}

/// Sizes of a gated delta net.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaNetSizes {
    /// Heads of q and k.
    pub key_heads: usize,
    /// Heads of v and of the output: a multiple of `key_heads`.
    pub value_heads: usize,
    /// Elements of a head of q or k.
    pub key_dim: usize,
    /// Elements of a head of v.
    pub value_dim: usize,
    /// Tokens that the convolution sees.
    pub conv_kernel: usize,
    /// The order of the value heads.
    pub order: HeadOrder,
}

impl DeltaNetSizes {
    /// The channels of the convolution: q and k of all key heads, and v of all value heads.
    pub fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.values()
    }

    /// The key head of a value head.
    pub fn key_head(&self, value_head: usize) -> usize {
        match self.order {
            HeadOrder::Grouped => value_head / (self.value_heads / self.key_heads),
            HeadOrder::Tiled => value_head % self.key_heads,
        }
    }

    /// The elements of one token's v, over all value heads.
    pub fn values(&self) -> usize {
        self.value_heads * self.value_dim
    }

    /// Elements of the convolution's last inputs, `[conv_kernel - 1][channels]`.
    pub fn conv_len(&self) -> usize {
        (self.conv_kernel - 1) * self.channels()
    }

    /// The elements of a layer's recurrent state: the convolution's last inputs, and a matrix `[key_dim][value_dim]`
    /// for each value head.
    pub fn state_len(&self) -> usize {
        self.conv_len() + self.value_heads * self.key_dim * self.value_dim
    }
}

/// The weights of a gated delta net beside its projections.
#[derive(Debug, Clone)]
pub struct DeltaNetWeights {
    /// The sizes.
    pub sizes: DeltaNetSizes,
    /// The number that the norms of the output add to a mean square.
    pub eps: f32,
    /// `[conv_kernel][channels]`, the oldest token first.
    pub conv: Vec<f32>,
    /// For each value head, exp(A_log) and dt_bias. At each token the head's matrix is multiplied by
    /// exp(-exp(A_log) * softplus(a + dt_bias)), where a is the token's.
    pub decay: Vec<(f32, f32)>,
    /// `[value_dim]`.
    pub norm: Vec<f32>,
}

/// The outputs of a gated delta net's projections for the rows of a step.
#[derive(Clone, Copy)]
pub struct DeltaNetInput<'a> {
    /// `[rows, channels]`: q, k and v before the convolution.
    pub qkv: &'a Tensor,
    /// `[rows, value_heads * value_dim]`: the gate of the output.
    pub z: &'a Tensor,
    /// `[rows, value_heads]`: how much of the delta the state takes in.
    pub b: &'a Tensor,
    /// `[rows, value_heads]`: how fast the state forgets.
    pub a: &'a Tensor,
}

impl DeltaNetInput<'_> {
    /// Errors: tensors that are not of `rows` rows of these sizes.
    pub fn check(&self, sizes: &DeltaNetSizes, rows: usize) -> Result<()> {
        let (heads, values) = (sizes.value_heads, sizes.values());
        let wanted = [(self.qkv, sizes.channels()), (self.z, values), (self.b, heads), (self.a, heads)];
        match wanted.into_iter().find(|(tensor, width)| tensor.dims() != [rows, *width]) {
            Some((tensor, width)) => bail!("a projection of {:?} where [{rows}, {width}] goes in", tensor.dims()),
            None => Ok(()),
        }
    }
}

/// The outputs of the projections for the rows of one sequence.
struct Projected<'a> {
    qkv: &'a [f32],
    z: &'a [f32],
    b: &'a [f32],
    a: &'a [f32],
}

impl DeltaNetWeights {
    /// Computes the rows of a step on the CPU: `[rows, value_heads * value_dim]`. Tokens are taken in one by one, in a
    /// prompt as in an answer, so that the result does not depend on how a prompt is cut into chunks.
    pub(crate) fn forward(&self, input: DeltaNetInput<'_>, state: StateId, ctx: &ForwardContext<'_>) -> Result<Tensor> {
        input.check(&self.sizes, ctx.layout().num_tokens())?;
        let all = [input.qkv, input.z, input.b, input.a].map(Tensor::storage_and_layout);
        let elements = |i: usize| match (&*all[i].0, all[i].1.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F32(data)), Some((from, to))) => Ok(&data[from..to]),
            _ => bail!("a delta net takes contiguous f32 rows"),
        };
        let (qkv, z, b, a) = (elements(0)?, elements(1)?, elements(2)?, elements(3)?);
        let (heads, channels, width) = (self.sizes.value_heads, self.sizes.channels(), self.sizes.values());
        let mut out = vec![0f32; z.len()];
        for seq in 0..ctx.layout().num_seqs() {
            let at = ctx.layout().rows(seq);
            let part = |width: usize| at.start * width..at.end * width;
            let rows =
                Projected { qkv: &qkv[part(channels)], z: &z[part(width)], b: &b[part(heads)], a: &a[part(heads)] };
            let out = &mut out[part(width)];
            ctx.with_state(seq, state, |state| self.sequence(&rows, state, out))?;
        }
        Tensor::from_vec(out, (z.len() / width, width), input.z.device())
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
        let (keys, key_head) = (key_heads * key_dim, self.sizes.key_head(head));
        let (exp_a, dt_bias) = self.decay[head];
        let mut out = vec![0f32; rows.z.len() / value_heads];
        let tokens = mixed.chunks_exact(self.sizes.channels()).zip(out.chunks_exact_mut(value_dim));
        for (token, (mixed, out)) in tokens.enumerate() {
            let q = scaled_to_length(&mixed[key_head * key_dim..][..key_dim], 1.0 / (key_dim as f32).sqrt());
            let k = scaled_to_length(&mixed[keys + key_head * key_dim..][..key_dim], 1.0);
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

/// Takes in one token. The matrix `state`, `[key_dim][value_dim]`, is multiplied by `keep`. The difference of `v` and
/// the value that the matrix then gives for `k`, times `beta`, is added at `k`. `out` is what the new matrix gives for
/// `q`. Each sum runs over the elements of k or q, in order.
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
fn scaled_to_length(x: &[f32], length: f32) -> Vec<f32> {
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
