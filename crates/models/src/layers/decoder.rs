//! Embedding, layers, norm and head: what all decoder-only families share.
use super::{Attention, Embedding, GatedDeltaNet, Linear, Residual, RmsNorm};
use crate::config::ModelConfig;
use crate::error::LoadResult;
use crate::model::Model;
use crate::weights::Weights;
use attention::{ForwardContext, ModelGeometry, StateInputs, StateLayout};
use candle_core::{Result, Tensor, bail};
use compute::{ComputeDevice, Precision};
use std::sync::Arc;

/// The head's tensor.
const HEAD: &str = "lm_head.weight";

/// One layer of a family.
pub(crate) trait DecoderLayer: Send {
    /// Reads the residual stream of the step's rows and adds to it.
    fn forward(&self, x: &mut Residual, ctx: &ForwardContext<'_>) -> Result<()>;

    /// The layer's attention; `None` for a layer that mixes tokens in another way.
    fn attention(&self) -> Option<&Attention>;

    /// The layer's recurrence; `None` for a layer that keeps no state of fixed size.
    fn delta_net(&self) -> Option<&GatedDeltaNet> {
        None
    }
}

/// A decoder-only transformer of layers `L`.
pub(crate) struct Decoder<L> {
    device: Arc<dyn ComputeDevice>,
    embedding: Embedding,
    layers: Vec<L>,
    norm: RmsNorm,
    /// `None` for an embedding model without a head.
    head: Option<Linear>,
    vocab_size: usize,
    hidden_size: usize,
    geometry: ModelGeometry,
    states: StateLayout,
}

impl<L: DecoderLayer + 'static> Decoder<L> {
    /// Loads a model. `layer` loads one of its layers, of which it is given the number and the weights.
    pub fn load(
        config: &ModelConfig,
        weights: &Weights,
        layer: impl Fn(usize, &Weights) -> LoadResult<L>,
    ) -> LoadResult<Box<dyn Model>> {
        let (root, top) = roots(weights);
        let layers = (0..config.layers.len()).map(|i| layer(i, &root.at(format!("layers.{i}"))));
        let layers = layers.collect::<LoadResult<Vec<_>>>()?;
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embedding = root.vocabulary("embed_tokens.weight", vocab, hidden)?;
        let head = match config.tie_word_embeddings {
            true => Some(embedding.clone()),
            // Embedding models need none.
            false if config.pooling.is_ok() && !top.has(HEAD) => None,
            false => Some(top.vocabulary(HEAD, vocab, hidden)?),
        };
        let head = head.map(|head| Linear::new(head, None, Precision::Fast, weights.device())).transpose()?;
        let states = StateLayout::new(layers.iter().filter_map(L::delta_net).map(GatedDeltaNet::state_len));
        Ok(Box::new(Decoder {
            device: Arc::clone(weights.device()),
            embedding: Embedding::new(embedding, weights.device().tensors()),
            layers,
            norm: RmsNorm::load(&root, "norm", hidden, config)?,
            head,
            vocab_size: vocab,
            hidden_size: hidden,
            geometry: config.geometry(),
            states,
        }))
    }
}

/// The names below which a decoder's own weights lie: a model's, and those of multimodal models.
const ROOTS: [&str; 3] = ["model", "model.language_model", "language_model.model"];

/// Whether a decoder of `num_layers` layers could ask for this tensor. It does not for those of vision towers and of
/// further layers, which predict tokens ahead.
pub(crate) fn is_asked_for(tensor: &str, num_layers: usize) -> bool {
    let below = |root: &str| tensor.strip_prefix(root).and_then(|rest| rest.strip_prefix('.'));
    let roots = ROOTS.into_iter().filter_map(below).chain([tensor]);
    let of_decoder = |name: &str| match name.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) {
        Some((layer, _)) => layer.parse::<usize>().is_ok_and(|layer| layer < num_layers),
        None => name.starts_with("embed_tokens.") || name.starts_with("norm."),
    };
    tensor.ends_with(HEAD) || roots.into_iter().any(of_decoder)
}

/// The decoder's own weights, and those among which its head lies. Checkpoints of multimodal models have both below
/// other names, and those of embedding models may have the decoder's at the top.
fn roots(weights: &Weights) -> (Weights, Weights) {
    let has = |root: &&str| weights.has(&format!("{root}.embed_tokens.weight"));
    let root = match ROOTS.into_iter().find(has) {
        None if weights.has("embed_tokens.weight") => weights.clone(),
        found => weights.at(found.unwrap_or("model")),
    };
    match weights.has("language_model.lm_head.weight") {
        true => (root, weights.at("language_model")),
        false => (root, weights.clone()),
    }
}

impl<L: DecoderLayer> Model for Decoder<L> {
    fn geometry(&self) -> &ModelGeometry {
        &self.geometry
    }

    fn state_layout(&self) -> &StateLayout {
        &self.states
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn key_bias(&self) -> Option<Vec<Vec<f32>>> {
        let attentions = self.layers.iter().filter_map(L::attention);
        attentions.map(|attention| attention.key_bias().map(<[f32]>::to_vec)).collect()
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn has_head(&self) -> bool {
        self.head.is_some()
    }

    fn hidden_states(&self, tokens: &[u32], rows: &[u32], ctx: &ForwardContext<'_>) -> Result<Tensor> {
        let x = self.embedding.forward(tokens)?;
        let mut x = Residual::new(x);
        for layer in &self.layers {
            layer.forward(&mut x, ctx)?;
        }
        x.select(rows, &*self.device)?.norm_tensor(&self.norm)
    }

    fn replay(&self, inputs: &StateInputs, rows: &[u32], ctx: &ForwardContext<'_>) -> Result<()> {
        self.layers.iter().filter_map(L::delta_net).try_for_each(|net| net.replay(inputs, rows, ctx))
    }

    fn logits(&self, hidden_states: &Tensor) -> Result<Tensor> {
        match &self.head {
            Some(head) => head.forward_tensor(hidden_states),
            None => bail!("the model has no head, and thus no logits"),
        }
    }
}
