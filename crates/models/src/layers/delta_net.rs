//! The gated delta net: linear attention whose state forgets by a gate and is corrected by a delta rule (Yang et al.,
//! arXiv:2412.06464), as Qwen3-Next and Qwen3.5 use it.
use super::{Linear, Residual};
use crate::config::ModelConfig;
use crate::error::LoadResult;
use crate::weights::Weights;
use attention::{ForwardContext, StateId, StateInputs};
use candle_core::{Result, Tensor, bail};
use compute::{ComputeDevice, DeltaNetInput, DeltaNetSizes, DeltaNetWeights, PlacedLayer};
use std::sync::Arc;

/// A layer that mixes tokens by a recurrence over a state of fixed size.
pub(crate) struct GatedDeltaNet {
    id: StateId,
    device: Arc<dyn ComputeDevice>,
    sizes: DeltaNetSizes,
    qkv: Linear,
    /// Projects to the gate of the output.
    z: Linear,
    /// Projects to how much of the delta the state takes in.
    b: Linear,
    /// Projects to how fast the state forgets.
    a: Linear,
    out: Linear,
    /// What the device has of the layer beside its projections.
    placed: PlacedLayer,
}

impl GatedDeltaNet {
    /// Loads a layer whose state is `id` from `w`, the layer's `linear_attn`.
    pub fn load(w: &Weights, id: StateId, sizes: DeltaNetSizes, config: &ModelConfig) -> LoadResult<Self> {
        let hidden = config.hidden_size;
        let (values, channels) = (sizes.values(), sizes.channels());
        let conv = w.elements("conv1d.weight", &[channels, 1, sizes.conv_kernel])?;
        let taps = (0..sizes.conv_kernel).flat_map(|tap| conv.iter().skip(tap).step_by(sizes.conv_kernel));
        // llama.cpp's files have -exp(A_log) in place of A_log.
        let decay = match w.has("A") {
            true => w.vector("A", sizes.value_heads)?.into_iter().map(|a| -a).collect(),
            false => w.vector("A_log", sizes.value_heads)?.into_iter().map(f32::exp).collect::<Vec<_>>(),
        };
        let dt_bias = w.vector("dt_bias", sizes.value_heads)?;
        let weights = DeltaNetWeights {
            sizes,
            eps: config.rms_norm_eps as f32,
            conv: taps.copied().collect(),
            decay: decay.into_iter().zip(dt_bias).collect(),
            norm: w.vector("norm.weight", sizes.value_dim)?,
        };
        Ok(GatedDeltaNet {
            id,
            device: Arc::clone(w.device()),
            sizes,
            qkv: Linear::load(w, "in_proj_qkv", channels, hidden, false)?,
            z: Linear::load(w, "in_proj_z", values, hidden, false)?,
            b: Linear::load_exact(w, "in_proj_b", sizes.value_heads, hidden)?,
            a: Linear::load_exact(w, "in_proj_a", sizes.value_heads, hidden)?,
            out: Linear::load(w, "out_proj", hidden, values, false)?,
            placed: w.device().place_delta_net(weights)?,
        })
    }

    /// How many elements are kept of a sequence.
    pub fn state_len(&self) -> usize {
        self.sizes.state_len()
    }

    /// Has the states of the sequences of `ctx` take in rows of an earlier step again, which are named by their numbers
    /// in it. `inputs`: what was kept of that step.
    pub fn replay(&self, inputs: &StateInputs, rows: &[u32], ctx: &ForwardContext<'_>) -> Result<()> {
        let [qkv, z, b, a] = &inputs.of(self.id)?[..] else { bail!("a delta net has four inputs") };
        let select = |input: &Tensor| self.device.select_rows(input, rows);
        let (qkv, z, b, a) = (select(qkv)?, select(z)?, select(b)?, select(a)?);
        let input = DeltaNetInput { qkv: &qkv, z: &z, b: &b, a: &a };
        self.device.delta_net(&self.placed, input, self.id, ctx).map(drop)
    }

    /// Adds the layer of the rows h, `[num_tokens, hidden]`, to the stream.
    pub fn add_to(&self, stream: &mut Residual, h: &Tensor, ctx: &ForwardContext<'_>) -> Result<()> {
        let rows = self.device.rows(h)?;
        let [qkv, z, b, a] = Linear::forward_all([&self.qkv, &self.z, &self.b, &self.a], &rows)?;
        if let Some(inputs) = ctx.states().inputs {
            inputs.keep(self.id, &[&qkv, &z, &b, &a]);
        }
        let input = DeltaNetInput { qkv: &qkv, z: &z, b: &b, a: &a };
        let out = self.device.delta_net(&self.placed, input, self.id, ctx)?;
        stream.add_projection(&self.out, &self.device.rows(&out)?)
    }
}
