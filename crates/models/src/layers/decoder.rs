//! Embedding, layers, norm, head: what all decoder-only families share.
use super::{Embedding, Linear, Residual, RmsNorm, RopeTables};
use crate::Model;
use attention::{ForwardContext, KvMeans, ModelGeometry, StateLayout};
use candle_core::{Result, Tensor};

pub(crate) trait DecoderLayer: Send {
    /// Reads the residual stream of all tokens and adds to it.
    fn forward(&self, x: &mut Residual, rope: &RopeTables, ctx: &ForwardContext<'_>) -> Result<()>;

    /// Biases of the K and V projections, if the layer has them.
    fn kv_bias(&self) -> Option<(&[f32], &[f32])>;
}

pub(crate) struct Decoder<L> {
    pub embedding: Embedding,
    pub layers: Vec<L>,
    pub norm: RmsNorm,
    pub head: Linear,
    pub geometry: ModelGeometry,
    pub states: StateLayout,
}

impl<L: DecoderLayer> Model for Decoder<L> {
    fn geometry(&self) -> &ModelGeometry {
        &self.geometry
    }

    fn state_layout(&self) -> &StateLayout {
        &self.states
    }

    fn vocab_size(&self) -> usize {
        self.head.out_features()
    }

    fn kv_bias(&self) -> Option<KvMeans> {
        let both = self.layers.iter().map(|l| l.kv_bias().map(|(k, v)| (k.to_vec(), v.to_vec())));
        let (keys, values) = both.collect::<Option<Vec<_>>>()?.into_iter().unzip();
        Some(KvMeans { keys, values })
    }

    fn forward(&self, tokens: &[u32], logit_rows: &[u32], ctx: &ForwardContext<'_>) -> Result<Tensor> {
        let x = self.embedding.forward(tokens)?;
        let rope = RopeTables::new(&self.geometry.rope, &ctx.layout().positions, x.device())?;
        let rows = Tensor::from_slice(logit_rows, logit_rows.len(), x.device())?;
        let mut x = Residual::new(x);
        for layer in &self.layers {
            layer.forward(&mut x, &rope, ctx)?;
        }
        self.head.forward(&x.select(&rows)?.norm(&self.norm, ctx)?, ctx)
    }
}
