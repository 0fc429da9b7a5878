//! Gated delta nets by the kernels of `kernels/delta/`.
use super::GpuDevice;
use super::states::{GpuStates, StepSequences};
use crate::executor::Executor;
use crate::launch::{self, ConvolveBuffers, DeltaBuffers, KEY_DIMS, MOST_VALUES, SIMD_COLUMNS};
use crate::tables::floats;
use attention::{ForwardContext, StateId};
use candle_core::{Error, Result, Tensor, bail};
use compute::{DeltaNetInput, DeltaNetSizes, DeltaNetWeights};

/// The weights of a gated delta net beside its projections, in a GPU's memory.
pub(super) struct PlacedDeltaNet<B> {
    sizes: DeltaNetSizes,
    eps: f32,
    conv: B,
    decay: B,
    norm: B,
}

impl<B> PlacedDeltaNet<B> {
    /// Errors: sizes for which there are no kernels; no memory.
    pub fn new<E: Executor<Buffer = B>>(executor: &E, weights: &DeltaNetWeights) -> Result<Self> {
        let DeltaNetWeights { sizes, eps, conv, decay, norm } = weights;
        let values = sizes.value_dim;
        if !KEY_DIMS.contains(&sizes.key_dim) {
            bail!("linear_key_head_dim is {}; delta nets on a GPU have one of {KEY_DIMS:?}", sizes.key_dim);
        }
        if !values.is_multiple_of(SIMD_COLUMNS) || !(1..=MOST_VALUES).contains(&values) {
            bail!(
                "linear_value_head_dim is {values}; on a GPU it must be a multiple of {SIMD_COLUMNS} of at most \
                 {MOST_VALUES}"
            );
        }
        let upload = |values: &[f32]| executor.buffer(&floats(values.iter().copied())).map_err(Error::wrap);
        let decay: Vec<f32> = decay.iter().flat_map(|(exp_a, dt_bias)| [*exp_a, *dt_bias]).collect();
        Ok(PlacedDeltaNet {
            sizes: *sizes,
            eps: *eps,
            conv: upload(conv)?,
            decay: upload(&decay)?,
            norm: upload(norm)?,
        })
    }
}

impl<E: Executor + 'static> GpuDevice<E> {
    /// Two launches: the convolution of all rows, then the recurrence of all sequences and heads with the gated norm.
    pub(super) fn delta_net_of(
        &self,
        net: &PlacedDeltaNet<E::Buffer>,
        input: DeltaNetInput<'_>,
        state: StateId,
        ctx: &ForwardContext<'_>,
    ) -> Result<Tensor> {
        let PlacedDeltaNet { sizes, eps, conv, decay, norm } = net;
        let (rows, sequences) = (ctx.layout().num_tokens(), ctx.layout().num_seqs());
        input.check(sizes, rows)?;
        let states = ctx.states().pool.memory::<GpuStates<E>>()?.layer(state, sizes.state_len())?;
        let step = ctx.once_a_step(|| StepSequences::new(self.executor(), ctx))?;
        let import = |tensor| self.executor.import(tensor);
        let (x, z, b, a) = (import(input.qkv)?, import(input.z)?, import(input.b)?, import(input.a)?);
        let (mixed, out) = (self.room(input.qkv)?, self.room(input.z)?);
        let StepSequences { sequence_of_row, sequences: of_step } = step;
        let of_convolution =
            ConvolveBuffers { x: &x, weight: conv, sequence_of_row, sequences: of_step, states, out: &mixed };
        let of_rule = DeltaBuffers {
            x: &x,
            mixed: &mixed,
            z: &z,
            b: &b,
            a: &a,
            decay,
            norm,
            sequences: of_step,
            states,
            out: &out,
        };
        self.launch(&[
            launch::convolve(sizes, rows, &of_convolution),
            launch::delta_rule(sizes, *eps, (rows, sequences), &of_rule),
        ])?;
        self.export(&out, input.z)
    }
}
